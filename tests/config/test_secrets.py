"""Secrets are in the attributes and nowhere else."""

from __future__ import annotations

import base64
import json
import pickle
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pydantic_core
import pytest
from pydantic import TypeAdapter, ValidationError

from deerflow_replica import AppConfig, DeerFlowContext
from deerflow_replica.cli.config import Format, _rendered
from deerflow_replica.config import DatabaseConfig, ModelConfig, StreamBridgeConfig, TitleConfig
from deerflow_replica.config.frozen import FrozenDict, FrozenList
from deerflow_replica.config.masking import is_secret_name, masked
from deerflow_replica.config.targets import target_of
from deerflow_replica.errors import ConfigError
from rich_config import RICH, SECRET

OUTPUTS: tuple[Callable[[AppConfig], Any], ...] = (
    repr,
    str,
    lambda config: f"{config}",
    lambda config: config.model_dump(),
    lambda config: config.model_dump(mode="json"),
    lambda config: config.model_dump(exclude_unset=True),
    lambda config: config.model_dump_json(indent=1),
    lambda config: config.to_mapping(),
    lambda config: config.warnings,
    lambda config: pydantic_core.to_json(config),
    lambda config: pydantic_core.to_jsonable_python(DeerFlowContext(config, "t")),
    lambda config: TypeAdapter(Any).dump_json(DeerFlowContext(config, "t")),
    lambda config: TypeAdapter(dict[str, Any]).dump_python({"context": DeerFlowContext(config, "t")}),
    lambda config: list(config.__repr_args__()),
)


@pytest.mark.parametrize("output", OUTPUTS)
def test_no_output_of_the_whole_shows_a_secret(output: Callable[[AppConfig], Any]) -> None:
    config = AppConfig.from_mapping({**RICH, "plain": "$PLAIN", "number": "$N"}, env={"PLAIN": "hush-77", "N": "x-991"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = str(output(config))
    assert SECRET not in shown
    assert "hush-77" not in shown
    assert "x-991" not in shown


PLANTED: dict[str, Any] = {
    "database": {"backend": "postgres", "postgres_url": f"host=h user=u password='{SECRET} 1' dbname=d"},
    "checkpointer": {"type": "postgres", "connection_string": f"postgres://u:{SECRET}@h/d?sslmode=require"},
    "stream_bridge": {"type": "redis", "redis_url": f"rediss://user:{SECRET}/x@h:6379/0"},
    "store": {"type": "mongo", "connection_string": f"mongodb+srv://u:{SECRET}@h/?authSource=admin"},
    "models": [{"name": "m", "OPENAI_API_KEY": SECRET, "default_headers": {"Authorization": f"Bearer {SECRET}"}}],
    "memory": {
        "backend_config": {"credentials": [{"user": SECRET}, [SECRET]], "url": f"https://h/?api_key={SECRET}&x=1"}
    },
    "extensions": {
        "mcpServers": {
            "s": {"env": {"DB_PASSWD": SECRET}, "url": f"https://h/sse?token={SECRET}", "args": ["-x"]},
            "t": {"args": ["run", "--api-key", SECRET, "--verbose"], "url": f"https://h/sse?v=1&key={SECRET}"},
        }
    },
    "channels": {"slack": {"bot-token": SECRET, "app_secret": SECRET.encode()}, "Cookie": SECRET},
    "tools": [{"name": "web", "private_key": {"pem": SECRET}, "access-key": 5}],
    "weather": "$WEATHER",
    "proxies": ["$PROXY", {"deep": ["$DEEP"]}],
}
VARIABLES = {"WEATHER": f"{SECRET}-w", "PROXY": f"http://u:{SECRET}@p", "DEEP": SECRET}


def command(config: AppConfig, *keys: str) -> str:
    """What the command line would print of that configuration."""
    values = {key: config.explain(key).value for key in keys}
    return "".join(_rendered(data, form) for form in Format for data in (config.to_mapping(), values))


MORE_OUTPUTS: tuple[Callable[[AppConfig], Any], ...] = (
    *OUTPUTS,
    lambda config: [
        config.explain(key) for key in ("store", "models.0", "memory", "extensions", "channels", "proxies")
    ],
    lambda config: [vars for key in PLANTED for vars in (config.explain(key).value, config.explain(key).default)],
    lambda config: config.diff(AppConfig()) + AppConfig().diff(config),
    lambda config: config.diff(config.evolve({"channels": {"slack": {"bot-token": f"{SECRET}2"}}}, env={})),
    lambda config: config.explain("extensions.mcp_servers.t.args.2"),
    lambda config: config.diff(
        config.evolve({"extensions": {"mcp_servers": {"t": {"args": ["run", "--api-key", f"{SECRET}2"]}}}}, env={})
    ),
    lambda config: command(config, "weather", "tools.0.private_key.pem", "memory.backend_config.url"),
    lambda config: [repr(target_of(config, name)) for name in ("database", "checkpointer", "stream_bridge", "store")],
)


@pytest.mark.parametrize("output", MORE_OUTPUTS)
def test_a_secret_planted_anywhere_is_in_no_output(output: Callable[[AppConfig], Any]) -> None:
    config = AppConfig.from_mapping(PLANTED, env=VARIABLES)
    revealed = json.dumps(config.to_mapping(reveal=True), default=bytes.decode)
    assert revealed.count(SECRET) == 20
    again = pickle.loads(pickle.dumps(config)).evolve({"log_level": "debug"}, env={})  # noqa: S301 our own bytes
    for one in (config, again):
        shown = f"{output(one)!r} {output(one)}"
        assert SECRET not in shown
        assert base64.b64encode(SECRET.encode()).decode() not in shown
    assert "Bearer" not in repr(config)


@pytest.mark.parametrize("place", [key for key in PLANTED if key not in ("weather", "proxies")])
def test_an_error_about_a_part_shows_no_secret_of_it(place: str) -> None:
    for wrong in (
        {place: {"wrong": PLANTED[place]}, "title": [PLANTED[place]]},
        {"title": {"max_words": PLANTED[place]}},
    ):
        with pytest.raises(ConfigError) as raised:
            AppConfig.from_mapping({**PLANTED, **wrong}, env=VARIABLES)
        text = "".join(traceback.format_exception(raised.value)) + repr(raised.value.problems)
        assert SECRET not in text


def parts(value: Any) -> Iterator[Any]:
    yield value
    children: list[Any] = []
    if isinstance(value, Mapping):
        children = list(value.values())
    elif isinstance(value, tuple | frozenset):
        children = list(value)
    elif hasattr(type(value), "model_fields"):
        children = [getattr(value, name) for name in type(value).model_fields] + [value.model_extra]
    for child in children:
        if not isinstance(child, str):
            yield from parts(child)


def test_no_part_shows_a_secret() -> None:
    config = AppConfig.from_mapping(RICH, env={})
    for part in parts(config):
        assert SECRET not in repr(part)
        assert SECRET not in str(part)


def test_attributes_and_reveal_are_true() -> None:
    config = AppConfig.from_mapping(RICH, env={})
    assert config.stream_bridge.redis_url == f"redis://:{SECRET}@h:6379/0"
    assert config.get("models.0.api_key") == SECRET
    assert json.dumps(config.to_mapping(reveal=True), default=list).count(SECRET) == 5
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 our own bytes


def test_a_text_from_a_variable_is_shown_as_the_variable() -> None:
    data = {"tools": [{"greeting": "$HELLO"}], "models": [{"name": "m", "use": "$USE"}]}
    config = AppConfig.from_mapping(data, env={"HELLO": "good day", "USE": "a:B"})
    assert config.to_mapping()["tools"] == [{"greeting": "$HELLO"}]
    assert config.to_mapping()["models"][0]["use"] == "$USE"
    assert "good day" not in repr(config.evolve({"log_level": "debug"}))
    assert config.evolve({"tools": [{"greeting": "hi"}]}).to_mapping()["tools"] == [{"greeting": "hi"}]


@pytest.mark.parametrize(
    "build",
    [
        lambda: AppConfig.from_mapping({"models": [{"api_key": SECRET}]}, env={}),
        lambda: AppConfig.from_mapping({"stream_bridge": {"redis_url": [f"redis://:{SECRET}@h"]}}, env={}),
        lambda: AppConfig.from_mapping({"database": f"postgresql://u:{SECRET}@h"}, env={}),
        lambda: AppConfig.from_mapping({"title": {"max_words": "$N"}}, env={"N": SECRET}),
        lambda: AppConfig.from_mapping({"memory": {"enabled": f"password={SECRET}"}}, env={}),
        lambda: AppConfig().evolve({"memory": {"mode": {"token": SECRET}}}),
    ],
)
def test_errors_and_what_is_chained_behind_them_show_no_secret(build: Callable[[], object]) -> None:
    with pytest.raises(ConfigError) as raised:
        build()
    text = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    assert SECRET not in text


@pytest.mark.parametrize(
    "content",
    [
        f"x: {SECRET}\ny: \xff".encode("latin-1"),
        f"x: !!int {SECRET}".encode(),
        f"x: !!float {SECRET}".encode(),
        f"x: [{SECRET}".encode(),
        f"? [{SECRET}]\n: 1".encode(),
        f"title: [{SECRET}]\ntoken: '\\x01\x01'".encode(),
        f"memory: {{enabled: {{token: {SECRET}}}}}".encode(),
    ],
)
@pytest.mark.parametrize("name", ["config.yaml", "extensions_config.json"])
def test_nothing_that_quotes_the_file_is_behind_an_error(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"a: 1\n")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        AppConfig.from_file(env={"DEER_FLOW_PROJECT_ROOT": str(tmp_path)})
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)
    assert SECRET not in repr(raised.value)


BUILDS: tuple[Callable[[dict[str, Any]], AppConfig], ...] = (
    lambda data: AppConfig.from_mapping(data, env={}),
    lambda data: AppConfig().evolve(data, env={}),
    lambda data: AppConfig().model_copy(update=data),
)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("data", [{"title": 5, "password": SECRET}, {"database": {"backend": "postgres"}}])
def test_nothing_that_holds_the_input_is_behind_an_error(
    build: Callable[[dict[str, Any]], AppConfig], data: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError) as raised:
        build(data)
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)


@pytest.mark.parametrize("key", ["mcpServers", "mcp_servers"])
def test_a_variable_under_either_name_of_a_field_is_shown_as_the_variable(key: str, tmp_path: Path) -> None:
    servers = {key: {"s": {"env": {"PLAIN": "$A"}}}}
    (tmp_path / "config.yaml").write_text("a: 1\n")
    (tmp_path / "extensions_config.json").write_text(json.dumps(servers))
    env = {"A": SECRET, "DEER_FLOW_PROJECT_ROOT": str(tmp_path)}
    for config in (AppConfig.from_mapping({"extensions": servers}, env=env), AppConfig.from_file(env=env)):
        assert config.extensions.mcp_servers["s"]["env"]["PLAIN"] == SECRET
        assert SECRET not in repr(config)
        assert config.to_mapping()["extensions"]["mcp_servers"]["s"]["env"]["PLAIN"] == "$A"
        shown = config.evolve({"extensions": {key: {"s": {"env": {"PLAIN": "new"}}}}}, env={}).to_mapping()
        assert shown["extensions"]["mcp_servers"]["s"]["env"]["PLAIN"] == "new"


@pytest.mark.parametrize("data", [{"title": ["$A"]}, {"title": {"max_words": {"q": "$A"}}}, {"models": {"x": ["$A"]}}])
def test_a_variable_inside_a_refused_value_is_shown_as_the_variable(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"\$A") as raised:
        AppConfig.from_mapping(data, env={"A": SECRET})
    assert SECRET not in str(raised.value)


def test_a_text_inside_an_override_is_shown_as_the_variable(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: 1\n")
    name = "DEERFLOW_REPLICA__TOOLS"
    config = AppConfig.from_file(tmp_path / "config.yaml", env={name: f"[{{greeting: {SECRET}, n: 1}}]"})
    assert config.to_mapping()["tools"] == [{"greeting": f"${name}", "n": 1}]


def test_a_warning_shows_no_secret() -> None:
    assert SECRET not in str(AppConfig.from_mapping({"log_level": "$A"}, env={"A": SECRET}).warnings)
    assert SECRET not in str(AppConfig.from_mapping({"log_level": f"redis://:{SECRET}@h"}, env={}).warnings)


def test_a_configuration_that_was_refused_is_shown_without_its_input() -> None:
    refused: tuple[tuple[Any, dict[str, Any]], ...] = (
        (AppConfig, {"title": {"max_words": "geheim"}}),
        (TitleConfig, {"max_words": "geheim"}),
    )
    for kind, values in refused:
        with pytest.raises(ValidationError) as caught:
            kind(**values)
        shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        frames = [frame for frame in shown.stack if frame.filename.endswith("section.py")]
        assert [frame.locals and frame.locals["self"] for frame in frames] in (["AppConfig()"], ["TitleConfig()"])


def test_a_refused_assignment_shows_no_value() -> None:
    config = AppConfig()
    for section, name in (
        (config, "stream_bridge"),
        (config.stream_bridge, "redis_url"),
        (config.stream_bridge, "new"),
    ):
        with pytest.raises((ValidationError, AttributeError)) as caught:
            setattr(section, name, f"redis://:{SECRET}@h")
        assert SECRET not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


def test_validation_errors_hide_their_input() -> None:
    with pytest.raises(ValidationError) as raised:
        AppConfig(stream_bridge={"type": "redis", "redis_url": [SECRET]})  # type: ignore[arg-type]  # wrong on purpose
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:pw@h:6379/0", "redis://:***@h:6379/0"),
        ("redis://user:p:w@h:6379", "redis://user:***@h:6379"),
        ("postgresql://u:p@w@h/d?sslmode=require", "postgresql://u:***@h/d?sslmode=require"),
        ("redis://:p/w?x#y@h:1/0", "redis://:***@h:1/0"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("http://h:80/a@b", "http://h:80/a@b"),
        ("https://h/x?api_key=abc&page=2", "https://h/x?api_key=***&page=2"),
        ("host=h password=abc dbname=d", "host=h password=*** dbname=d"),
        ("host=h password='a b\\' c' user=u", "host=h password=*** user=u"),
        ("two redis://:a@h and redis://:b@i", "two redis://:***@h and redis://:***@i"),
        ("redis://:p'w\"<x>@h:1", "redis://:***@h:1"),
        ("redis://:two words@h:1", "redis://:***@h:1"),
        ("'redis://:pw@h'", "'redis://:***@h'"),
        ("see http://h:80 or me@h", "see http://h:80 or me@h"),
        ("host=h password=a&b;c,d#e user=u", "host=h password=*** user=u"),
        ('host=h password="a b" user=u', "host=h password=*** user=u"),
        ("https://h/x?token=a,b;c&page=2", "https://h/x?token=***&page=2"),
        ("https://h/x?key=abc&sort=key&SIG=d,e#f", "https://h/x?key=***&sort=key&SIG=***#f"),
        ("https://h/?monkey=1 key=2", "https://h/?monkey=1 key=2"),
        ("1redis://:pw@h 2password=x", "1redis://:***@h 2password=***"),
        ("max_tokens=5", "max_tokens=5"),
        ("nothing here", "nothing here"),
    ],
)
def test_masked_texts(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize("text", ["A" * 200_000 + "=", "A" * 200_000 + " x://", "a" + " " * 200_000 + "b="])
def test_long_texts_are_masked_in_linear_time(text: str) -> None:
    started = time.process_time()
    assert masked(text) == text
    assert time.process_time() - started < 2


def test_secret_names() -> None:
    secret = ["api_key", "API-KEY", "openai_api_key", "apiKey", "DB_PASSWORD", "x-auth-token", "Cookie", "credentials"]
    assert all(is_secret_name(name) for name in secret)
    assert not any(is_secret_name(name) for name in ["max_tokens", "token_counting", "key", "monkeys", "", 5, None])


def test_sections_and_containers_mask_on_their_own() -> None:
    assert SECRET not in repr(ModelConfig.model_validate({"name": "m", "api_key": SECRET}))
    assert SECRET not in repr(DatabaseConfig(postgres_url=f"postgresql://u:{SECRET}@h/d"))
    bridge = StreamBridgeConfig(type="redis", redis_url=f"redis://:{SECRET}@h")
    assert bridge.model_dump()["redis_url"] == "redis://:***@h"
    assert SECRET not in repr(FrozenDict({"token": SECRET})) + repr(FrozenList([{"secret": [SECRET]}]))


def test_bytes_are_base64_in_json() -> None:
    assert json.loads(AppConfig.from_mapping({"x": {"b": b"\xff"}}, env={}).model_dump_json())["x"]["b"] == "/w=="
