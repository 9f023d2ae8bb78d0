"""Where values come from, what differs, and when a change takes effect."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from deerflow_replica import AppConfig
from deerflow_replica.config import Change, Explanation, Section
from deerflow_replica.config.frozen import FrozenDict
from deerflow_replica.errors import ConfigError
from plain_data import wholes
from rich_config import RICH, SECRET

FILE = """\
title:
  max_words: $WORDS
models:
- name: m
  api_key: $GONE
extensions:
  mcp_servers: {y: {}}
weather: {a.b: [1, {k: v}]}
store:
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AppConfig:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(FILE)
    (tmp_path / "extensions_config.json").write_text('{"skills": {"s": {"enabled": "$ON"}}}')
    return AppConfig.from_file(
        env={
            "WORDS": "7",
            "ON": "yes",
            "DEERFLOW_REPLICA__title__max_chars": "30",
            "DEERFLOW_REPLICA__TOOLS": "[{name: web}]",
            "DEER_FLOW_STREAM_BRIDGE_REDIS_URL": f"redis://:{SECRET}@h",
        }
    )


@pytest.mark.parametrize(
    ("key", "origin", "source", "variable", "value"),
    [
        ("title.max_words", "file", "config.yaml:2:14", "WORDS", "$WORDS"),
        ("title", "file", "config.yaml:2:3", None, None),
        ("title.enabled", "default", None, None, True),
        ("title.max_chars", "environment", "DEERFLOW_REPLICA__title__max_chars", None, 30),
        ("tools.0.name", "environment", "DEERFLOW_REPLICA__TOOLS", None, "$DEERFLOW_REPLICA__TOOLS"),
        ("models.0.name", "file", "config.yaml:4:9", None, "m"),
        ("models.0.api_key", "file", "config.yaml:5:12", "GONE", "$GONE"),
        ("models.0.use", "default", None, None, None),
        (("weather", "a.b", 1, "k"), "file", "config.yaml:8:24", None, "v"),
        ("stream_bridge.type", "environment", "DEER_FLOW_STREAM_BRIDGE_REDIS_URL", None, "redis"),
        (
            "stream_bridge.redis_url",
            "environment",
            "DEER_FLOW_STREAM_BRIDGE_REDIS_URL",
            None,
            "$DEER_FLOW_STREAM_BRIDGE_REDIS_URL",
        ),
        ("stream_bridge.ack", "default", None, None, "pipelined"),
        ("extensions.skills.s.enabled", "file", "extensions_config.json:1:30", "ON", "$ON"),
        ("extensions.mcpServers", "file", "config.yaml:7:16", None, {"y": {}}),
        ("extensions.mcp_servers.y", "file", "config.yaml:7:20", None, {}),
        ("store", "default", None, None, None),
        ("store.type", "default", None, None, "sqlite"),
        ("log_level", "default", None, None, "info"),
    ],
)
def test_where_values_come_from(
    config: AppConfig, key: str | tuple[Any, ...], origin: str, source: str | None, variable: str | None, value: object
) -> None:
    found = config.explain(key)
    assert (found.origin, found.source, found.variable) == (origin, source, variable)
    assert value is None or found.value == value
    again = pickle.loads(pickle.dumps(config))  # noqa: S301 our own bytes
    assert again.explain(key) == found


def test_what_was_changed_is_an_argument(config: AppConfig) -> None:
    changed = config.evolve(
        {"title": {"max_words": "$W", "max_chars": 40}, "store": {"type": "memory"}}, env={"W": "3"}
    )
    words, chars = changed.explain("title.max_words"), changed.explain("title.max_chars")
    assert (words.origin, words.source, words.variable) == ("argument", None, "W")
    assert (chars.origin, chars.source, chars.value) == ("argument", None, 40)
    assert changed.explain("store.type").origin == "argument"
    assert changed.explain("models.0.name").origin == "file"
    assert config.model_copy(update={"log_level": "debug"}).explain("log_level").origin == "argument"
    assert AppConfig(log_level="debug").explain("log_level").origin == "argument"
    assert AppConfig.from_mapping({"x": {"y": 1}}, env={}).explain("x.y").origin == "argument"
    assert config.evolve({"title": None}).explain("title.max_words").origin == "default"


def test_the_second_extensions_file_alone_is_the_source(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("x: 1\n")
    (tmp_path / "mcp_config.json").write_text('{"mcpServers": {"s": {}}}')
    config = AppConfig.from_file(env={"DEER_FLOW_PROJECT_ROOT": str(tmp_path)})
    assert config.explain("extensions").source == f"{tmp_path}/mcp_config.json:1:1"
    assert config.explain("extensions.mcp_servers.s").source == f"{tmp_path}/mcp_config.json:1:22"


def test_defaults(config: AppConfig) -> None:
    assert config.explain("title.max_words").default == 6
    assert config.explain("title").default["max_words"] == 6
    assert config.explain("models").default == ()
    assert config.explain("models.0.name").default is None
    assert config.explain("weather").default is None
    assert config.explain("checkpointer").default is None
    memory = config.evolve({"database": {"backend": "memory"}, "store": {"type": "sqlite"}})
    assert (memory.explain("store.type").value, memory.explain("store.type").default) == ("sqlite", "memory")
    assert memory.explain("store").default["type"] == "memory"


def test_an_unknown_key_is_a_key_error_that_suggests(config: AppConfig) -> None:
    with pytest.raises(KeyError, match=r"did you mean title\.max_words"):
        config.explain("title.max_word")
    with pytest.raises(ConfigError, match="GONE is not set"):
        config.explain("models.0.api_key.below")


def test_an_explanation_is_frozen_and_hashable(config: AppConfig) -> None:
    found = config.explain("title")
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.value = 1  # type: ignore[misc]  # the point of the test
    assert isinstance(found.value, FrozenDict)
    assert len({found, config.explain("title")}) == 1
    assert [field.name for field in dataclasses.fields(Explanation)] == [
        "key", "value", "default", "origin", "source", "variable", "takes_effect", "description",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "effect"),
    [
        *[(f"memory.{name}", "next-run") for name in ("enabled", "mode", "injection_enabled", "backend_config")],
        ("memory.backend_config.max_injection_tokens", "next-run"),
        ("memory.backend_config.storage_path", "restart"),
        ("memory.storage", "restart"),
        ("memory", "restart"),
        ("title.enabled", "next-run"),
        *[(f"user_thread_mapping.{name}", "next-run") for name in ("enabled", "anonymous", "anonymous_user_id")],
        ("user_thread_mapping.type", "restart"),
        ("model_feedback.enabled", "rebuild"),
        ("model_feedback.type", "restart"),
        *[(name, "rebuild") for name in ("models", "tools", "tool_groups", "skills", "subagents", "extensions")],
        ("models.0.api_base", "rebuild"),
        *[(name, "restart") for name in ("database", "checkpointer", "stream_bridge", "log_level", "weather.x")],
    ],
)
def test_when_a_change_takes_effect(key: str, effect: str) -> None:
    data: dict[str, Any] = {name: {} for name in ("skills", "subagents")} | {
        name: [] for name in ("tools", "tool_groups")
    }
    held = AppConfig.from_mapping(
        {
            **data,
            "memory": {"backend_config": {"max_injection_tokens": 1, "storage_path": "x"}},
            "models": [{"name": "m", "api_base": "h"}],
            "weather": {"x": 1},
        },
        env={},
    )
    assert held.explain(key).takes_effect == effect


def fields(kind: type[Section], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name in kind.model_fields:
        yield (*path, name)


def test_every_field_has_a_description() -> None:
    config = AppConfig.from_mapping({"models": [{"name": "m"}], "checkpointer": {"type": "memory"}}, env={})
    keys = list(fields(AppConfig))
    for name in AppConfig.model_fields:
        value = getattr(config, name)
        keys += fields(type(value), (name,)) if isinstance(value, Section) else []
    keys += fields(type(config.models[0]), ("models", "0"))
    keys += fields(type(config.model_feedback.health), ("model_feedback", "health"))
    assert len(keys) > 120
    assert [key for key in keys if not config.explain(key).description.endswith(".")] == []


def test_nothing_that_is_explained_shows_a_secret() -> None:
    config = AppConfig.from_mapping({**RICH, "credentials": {"plain": SECRET}}, env={})
    for key in ("", "stream_bridge", "stream_bridge.redis_url", "models.0.api_key", "memory", "credentials.plain"):
        if key:
            assert SECRET not in repr(config.explain(key))
            assert SECRET not in str(config.explain(key).value)
    changes = AppConfig().diff(config) + config.diff(AppConfig())
    assert SECRET not in "".join(f"{change.old} {change.new} {change!r}" for change in changes)
    assert {"credentials.plain", "models.0.api_key"} <= {change.key for change in changes}


def test_diff_names_changed_leaves_in_key_order() -> None:
    config = AppConfig.from_mapping({"tools": [{"a": 1}, {"b": 2}], "weather": {"x": 1}, "stop": []}, env={})
    changes = config.diff(
        config.evolve({"weather": {"y": {"z": 2}}, "title": {"max_words": 3}, "tools": [{"a": 1}], "stop": ["x"]})
    )
    assert changes == (
        Change("stop.0", None, "x", "restart"),
        Change("title.max_words", 6, 3, "next-run"),
        Change("tools.1.b", 2, None, "rebuild"),
        Change("weather.y.z", None, 2, "restart"),
    )
    assert config.diff(config) == ()


def test_diff_tells_a_secret_that_changed_without_showing_it() -> None:
    config = AppConfig.from_mapping({"models": [{"name": "m", "api_key": "one"}]}, env={})
    other = AppConfig.from_mapping({"models": [{"name": "m", "api_key": "two"}]}, env={})
    assert config.diff(other) == (Change("models.0.api_key", "***", "***", "rebuild"),)


def test_what_follows_the_database_changes_with_it() -> None:
    changed = AppConfig().diff(AppConfig().evolve({"database": {"backend": "memory"}}))
    assert [change.key for change in changed] == [
        "database.backend",
        "model_feedback.type",
        "store.type",
        "user_thread_mapping.type",
    ]


def test_diff_of_something_else_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="AppConfig"):
        AppConfig().diff({})  # type: ignore[arg-type]  # the point of the test


def leaves(value: Any, path: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], Any]:
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    if not items:
        return {path: value}
    return {leaf: found for key, item in items for leaf, found in leaves(item, (*path, key)).items()}


@given(wholes, wholes)
def test_diff_names_exactly_the_changed_leaves(one: dict[str, Any], other: dict[str, Any]) -> None:
    before, after = (AppConfig.from_mapping(data, env={}) for data in (one, other))
    old, new = (leaves(config.to_mapping(reveal=True)) for config in (before, after))
    gone = object()
    changed = {path for path in old.keys() | new.keys() if old.get(path, gone) != new.get(path, gone)}
    filled = {path[:length] for path in (*old, *new) for length in range(len(path))}
    changed -= {path for path in filled if old.get(path, new.get(path)) in ([], {})}
    named = [change.key for change in before.diff(after)]
    assert named == sorted(".".join(map(str, path)) for path in changed)
    assert (not named) == (before == after)
