"""Files to configurations: what is read, from where, and what is said when it is wrong."""

from __future__ import annotations

import contextvars
import logging
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from deerflow_replica import AppConfig
from deerflow_replica.errors import ConfigError, ConfigProblem

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problems(text: str, write: Write, env: dict[str, str] | None = None) -> list[str]:
    write(text)
    with pytest.raises(ConfigError) as raised:
        AppConfig.from_file(env=env or {})
    assert raised.value.__cause__ is None or isinstance(raised.value.__cause__, OSError)
    return str(raised.value).splitlines()


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "null\n", "memory:\nmodels:\ndatabase: null\n", "{}"])
def test_nothing_is_the_defaults(text: str, write: Write) -> None:
    write(text)
    assert AppConfig.from_file(env={}) == AppConfig()


def test_yaml_means_what_safe_load_means(write: Write) -> None:
    write("\ufeffx: {on: off, n: 017, when: 2001-01-02, s: !!set {a, b}, base: &b {k: 1, l: 2}, m: {<<: *b, k: 3}}\n")
    config = AppConfig.from_file(env={})
    assert config.get(("x", True)) is False
    assert config.get("x.n") == 15
    assert config.get("x.s") == frozenset({"a", "b"})
    assert config.get("x.m") == {"k": 3, "l": 2}


def test_problems_all_at_once_in_file_order_with_places(write: Write) -> None:
    text = """\
title:
  max_words: 99
models:
  - name: a
    context_window: -1
  - use: x
stream_bridge:
  type: redis
  max_connections: 2
memory: {mode: wild}
log_level: [1]
"""
    assert problems(text, write) == [
        "config.yaml:2:14 title.max_words: input should be less than or equal to 20 (got 99)",
        "config.yaml:5:21 models.0.context_window: input should be greater than 0 (got -1)",
        "config.yaml:6:5 models.1.name: field required",
        "config.yaml:9:20 stream_bridge.max_connections: input should be greater than or equal to 3 (got 2)",
        "config.yaml:10:16 memory.mode: input should be 'middleware' or 'tool' (got 'wild')",
        "config.yaml:11:12 log_level: input should be a valid string (got [1])",
    ]


def test_a_problem_between_sections_is_found_beside_one_inside_another(write: Write) -> None:
    text = "title: {max_words: 99}\nuser_thread_mapping: {type: redis}\nstore:\n  type: mongo\n"
    assert problems(text, write) == [
        "config.yaml:1:20 title.max_words: input should be less than or equal to 20 (got 99)",
        "config.yaml:2:22 user_thread_mapping.connection_string: type redis needs connection_string, "
        "or stream_bridge.redis_url",
        "config.yaml:4:3 store.connection_string: type mongo needs connection_string",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "config.yaml:3:1 a: duplicate key, first on line 1"),
        ("x:\n  - {k: 1, k: 2}\n", "config.yaml:2:12 x.0.k: duplicate key, first on line 2"),
        ("b: &b {k: 1, k: 2}\nc: {<<: *b}\n", "config.yaml:1:14 b.k: duplicate key, first on line 1"),
        ("a: [1\nb: 2\n", "config.yaml:2:2 while parsing a flow sequence, did not find expected ',' or ']'"),
        ("a: !!python/object:os.system x\n", "config.yaml:1:4 could not determine a constructor"),
        ("a: 1\n---\nb: 2\n", "config.yaml:2:1 expected a single document"),
        ("- 1\n- 2\n", "config.yaml:1:1 the top level should be a mapping"),
        ("x: &x [*x]\n", "config.yaml:1:4 an alias refers to a node that contains it"),
        ("x: &x {<<: *x}\n", "config.yaml:1:4 an alias refers to a node that contains it"),
        ("x: *nowhere\n", "config.yaml:1:4 found undefined alias"),
        ("x: {[1]: 2}\n", "config.yaml:1:5 a key should be a plain value"),
        ("x: 2001-99-99\n", "config.yaml:1:4 not a value of type timestamp"),
        ("x: !!int hunter2\n", "config.yaml:1:4 not a value of type int"),
        ("database: 3\n", "config.yaml:1:11 database: should be a mapping (got 3)"),
        ("models: {}\n", "config.yaml:1:9 models: should be a list (got {})"),
        ("x: {<<: 3}\n", "config.yaml:1:9 a merge key needs a mapping"),
        ("a: 1\nx: " + "[" * 101 + "]" * 101, "config.yaml:2:103 nested more than 100 levels deep"),
        ("1: x\n", "config.yaml:1:1 "),
    ],
)
def test_malformed_files_are_named_with_line_and_column(text: str, expected: str, write: Write) -> None:
    assert problems(text, write)[0].startswith(expected)


NESTED: dict[str, Callable[[int], str]] = {
    "lists": lambda levels: "x: " + "[" * (levels - 1) + "]" * (levels - 1),
    "mappings": lambda levels: "".join(" " * level + f"k{level}:\n" for level in range(levels)),
    "entries": lambda levels: "x:\n  " + "- " * (levels - 2) + "- 1\n",
    "questions": lambda levels: "".join(" " * level + "?\n" for level in range(levels)),
    "both": lambda levels: "".join(" " * level + "k:\n" + " " * level + "-\n" for level in range(levels // 2)),
    "pairs": lambda levels: "x: " + "[a: " * (levels // 2) + "b" + "]" * (levels // 2),
    "old lines": lambda levels: "".join(" " * level + f"k{level}:\x85" for level in range(levels)),
    "after a mark": lambda levels: "--- \nx:\n" + "- " * (levels - 1) + "1\n",
}


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize("levels", [103, 130, 200, 400, 5000])
def test_too_many_levels_of_any_kind_are_refused(kind: str, levels: int, write: Write) -> None:
    text = NESTED[kind](levels)
    if len(text) < 2_000_000:
        assert any(word in problems(text, write)[0] for word in ("levels deep", "a key should be a plain value"))


@pytest.mark.parametrize("kind", [kind for kind in NESTED if kind != "questions"])
def test_almost_as_many_levels_are_read(kind: str, write: Write) -> None:
    write(NESTED[kind](98))
    AppConfig.from_file(env={})


def test_a_hundred_levels_are_read(write: Write) -> None:
    write("x: " + "[" * 99 + "]" * 99)
    config = AppConfig.from_file(env={})
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 our own bytes


def test_aliases_that_expand_without_end_are_refused(write: Write) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "more than 100000 nodes" in problems("\n".join(lines), write)[0]


@pytest.mark.parametrize("link", ["[*a{}]", "{{<<: *a{}}}"])
def test_chains_of_aliases_count_as_levels(link: str, write: Write) -> None:
    lines = ["a0: &a0 {k: 1}"] + [f"a{n}: &a{n} {link.format(n - 1)}" for n in range(1, 3000)]
    assert "nested more than 100 levels deep" in problems("\n".join(lines), write)[0]


def test_a_large_file_is_read(write: Write) -> None:
    write("x:\n" + "".join(f"  k{n}: [1]\n" for n in range(33_000)))
    assert len(AppConfig.from_file(env={}).get("x")) == 33_000


def test_merges_that_expand_without_end_are_refused(write: Write) -> None:
    lines = ["a0: &a0 {k: 1}"] + [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 40)]
    assert "more than 100000 nodes" in problems("\n".join(lines), write)[0]


def test_not_utf8_is_named_with_its_line(write: Write, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigError, match=r"config\.yaml:2:1 not UTF-8"):
        AppConfig.from_file(env={})


def test_a_control_character_is_named(write: Write) -> None:
    assert problems("a: 1\nb: \x00\n", write)[0].startswith("config.yaml:2:")


def test_who_named_the_missing_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^gone\.yaml \(named by path\) cannot be read: No such file") as by_path:
        AppConfig.from_file("gone.yaml", env={})
    assert isinstance(by_path.value.__cause__, FileNotFoundError)
    assert [problem.source for problem in by_path.value.problems] == ["gone.yaml"]
    with pytest.raises(ConfigError, match="named by DEER_FLOW_CONFIG_PATH"):
        AppConfig.from_file(env={"DEER_FLOW_CONFIG_PATH": "gone.yaml"})
    with pytest.raises(ConfigError, match=r"AppConfig\(\)"):
        AppConfig.from_file(env={})
    with pytest.raises(ConfigError, match="DEER_FLOW_PROJECT_ROOT"):
        AppConfig.from_file(env={"DEER_FLOW_PROJECT_ROOT": str(tmp_path / "no")})


def test_which_file_wins(write: Write, tmp_path: Path) -> None:
    write("config_version: 1")
    (tmp_path / "named.yaml").write_text("config_version: 2")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "config.yaml").write_text("config_version: 3")
    env = {"DEER_FLOW_CONFIG_PATH": "named.yaml", "DEER_FLOW_PROJECT_ROOT": str(tmp_path / "root")}
    assert AppConfig.from_file("config.yaml", env=env).config_version == 1
    assert AppConfig.from_file(env=env).config_version == 2
    del env["DEER_FLOW_CONFIG_PATH"]
    assert AppConfig.from_file(env=env).config_version == 3
    assert AppConfig.from_file(env={}).config_version == 1


def test_extensions_are_read_and_the_yaml_wins_key_by_key(write: Write, tmp_path: Path) -> None:
    (tmp_path / "extensions_config.json").write_text(
        '{\n\t"mcpServers": {"s": {"env": {"TOKEN": "$GONE", "PLAIN": "$SET"}}},\n\t"skills": {"k": {}}, "more": 1}'
    )
    write("x: 1")
    extensions = AppConfig.from_file(env={"SET": "yes"}).extensions
    assert extensions.mcp_servers["s"]["env"] == {"TOKEN": "", "PLAIN": "yes"}
    assert extensions.model_extra == {"more": 1}
    write("extensions:\n  mcp_servers: {t: {}}\n  middlewares: ['a:B']\n")
    extensions = AppConfig.from_file(env={}).extensions
    assert extensions.mcp_servers == {"t": {}}
    assert extensions.middlewares == ("a:B",)
    assert extensions.skills == {"k": {}}


def test_a_bad_extensions_file_is_named(write: Write, tmp_path: Path) -> None:
    write("x: 1")
    path = tmp_path / "ext.json"
    path.write_text('{"a": 1,\n "b": }')
    with pytest.raises(ConfigError, match=r"ext\.json:2:7 "):
        AppConfig.from_file(extensions_path="ext.json", env={})
    path.write_text('{"a": 1, "a": 2}')
    with pytest.raises(ConfigError, match=r"ext\.json:1:10 a: duplicate key, first on line 1"):
        AppConfig.from_file(extensions_path="ext.json", env={})
    path.write_text('{"middlewares": [1]}')
    with pytest.raises(ConfigError, match=r"ext\.json:1:18 extensions\.middlewares\.0: "):
        AppConfig.from_file(extensions_path="ext.json", env={})
    with pytest.raises(ConfigError, match="named by DEER_FLOW_EXTENSIONS_CONFIG_PATH"):
        AppConfig.from_file(env={"DEER_FLOW_EXTENSIONS_CONFIG_PATH": "none.json"})


def test_variables(write: Write) -> None:
    write("title: {max_words: $N}\nmodels: [{name: m, api_key: $KEY, cost: $$5, price: a$KEY}]\nx: {$KEY: 1}\n")
    config = AppConfig.from_file(env={"N": "7", "KEY": "k"})
    assert config.title.max_words == 7
    assert config.get("models.0.api_key") == "k"
    assert config.get("models.0.price") == "a$KEY"
    assert config.get(("x", "$KEY")) == 1


def test_an_unset_variable_in_a_field_is_a_problem(write: Write) -> None:
    assert problems("title:\n  max_words: $N\nmodels:\n- name: $M\n", write) == [
        "config.yaml:2:14 title.max_words: the environment variable N is not set",
        "config.yaml:4:9 models.0.name: the environment variable M is not set",
    ]


def test_an_unset_variable_elsewhere_fails_exactly_when_it_is_read(write: Write) -> None:
    write("models:\n- name: m\n  api_key: $KEY\n  k: 1\ntools:\n- a: [1, $B]\n  b: 2\n")
    config = AppConfig.from_file(env={})
    model = config.models[0]
    reads: list[Callable[[], object]] = [
        lambda: config.get("models.0.api_key"),
        lambda: getattr(model, "api_key"),  # noqa: B009 the name is not known to type checkers
        lambda: dict(model.model_extra or {}),
        lambda: list((model.model_extra or {}).items()),
        lambda: (model.model_extra or {})["api_key"],
    ]
    for read in reads:
        with pytest.raises(ConfigError, match=r"config\.yaml:3:12 models\.0\.api_key: .* KEY is not set"):
            read()
    with pytest.raises(ConfigError, match=r"config\.yaml:6:10 tools\.0\.a\.1: .* B is not set"):
        list(config.get("tools.0.a"))
    assert config.get("tools.0.a.0") == 1
    assert config.get("tools.0.b") == 2
    assert "api_key" in (model.model_extra or {})
    assert len(config.get("tools.0.a")) == 2
    assert "$KEY" in repr(config)
    again = pickle.loads(pickle.dumps(config))  # noqa: S301 our own bytes
    assert again == config
    assert hash(again) == hash(config)
    with pytest.raises(ConfigError, match="KEY is not set"):
        config.evolve({"title": {"max_words": 2}}).get("models.0.api_key")


def test_the_environment_is_read_at_load_only(write: Write) -> None:
    write("x: $A")
    env = {"A": "before"}
    config = AppConfig.from_file(env=env)
    env["A"] = "after"
    assert config.get("x") == "before"


def test_where_a_redis_url_comes_from(write: Write) -> None:
    bridge, general = {"DEER_FLOW_STREAM_BRIDGE_REDIS_URL": "redis://b"}, {"REDIS_URL": "redis://r"}
    write("x: 1")
    assert AppConfig.from_file(env=bridge | general).stream_bridge.redis_url == "redis://b"
    assert AppConfig.from_file(env=general).stream_bridge.type == "memory"
    write("stream_bridge: {type: redis}")
    assert AppConfig.from_file(env=bridge | general).stream_bridge.redis_url == "redis://b"
    assert AppConfig.from_file(env=general).stream_bridge.redis_url == "redis://r"
    write("stream_bridge: {type: redis, redis_url: 'redis://own'}")
    assert AppConfig.from_file(env=bridge).stream_bridge.redis_url == "redis://own"
    write("stream_bridge: {type: memory}")
    assert AppConfig.from_file(env=bridge).stream_bridge.type == "memory"
    assert problems("stream_bridge:\n  type: redis\n", write)[0].startswith("config.yaml:2:3 stream_bridge.redis_url: ")
    with pytest.raises(ConfigError, match="redis_url"):
        AppConfig.from_mapping({"stream_bridge": {"type": "redis"}}, env=general)


def test_near_misses_are_told_in_what_is_handed_on_too(write: Write) -> None:
    write("store:\n  ttl: {default_tl: 5}\n  text_index: {langauge: x}\n  index: {dims: 3, embeds: x, zebra: 1}\n")
    assert AppConfig.from_file(env={}).warnings == (
        "config.yaml:2:9 store.ttl.default_tl: unknown name, did you mean default_ttl?",
        "config.yaml:3:16 store.text_index.langauge: unknown name, did you mean language?",
        "config.yaml:4:20 store.index.embeds: unknown name, did you mean embed?",
    )


def test_unknown_names_are_kept_and_near_misses_are_told(write: Write) -> None:
    write("memmory: {}\nweather: {a: 1}\ntools: []\nmemory:\n  enabeld: true\n  max_facts: 3\n  zebra: 1\n")
    config = AppConfig.from_file(env={})
    assert config.unknown_sections == ("memmory", "weather")
    assert config.warnings == (
        "config.yaml:1:1 memmory: unknown name, did you mean memory?",
        "config.yaml:5:3 memory.enabeld: unknown name, did you mean enabled?",
    )
    assert config.get("memory.zebra") == 1
    with pytest.raises(ConfigError) as raised:
        AppConfig.from_file(env={}, strict=True)
    assert [problem.key for problem in raised.value.problems] == [
        "memmory",
        "weather",
        "memory.enabeld",
        "memory.zebra",
    ]


def test_an_unknown_log_level_warns() -> None:
    assert AppConfig(log_level="loud").warnings == ("log_level: unknown level 'loud'",)
    assert AppConfig(log_level="WARNING").warnings == ()


def test_loading_changes_nothing_in_the_world(write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write("memmory: {}\nx: $HOME\nuser_thread_mapping: {type: redis, connection_string: 'redis://x'}\n")
    AppConfig.from_file()
    caplog.set_level(logging.DEBUG)

    def world() -> tuple[object, ...]:
        return (
            dict(os.environ),
            Path.cwd(),
            set(sys.modules),
            list(warnings.filters),
            sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")),
            {variable.name: value for variable, value in contextvars.copy_context().items()},
        )

    before = world()
    AppConfig.from_file()
    assert world() == before
    assert not caplog.records


def test_each_load_reads_the_file_anew(write: Write) -> None:
    write("x: 1")
    first = AppConfig.from_file(env={})
    write("x: 2")
    assert AppConfig.from_file(env={}).get("x") == 2
    assert first.get("x") == 1


def test_loading_every_backend_imports_no_driver(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "database: {backend: postgres, postgres_url: 'postgresql://h/d'}\n"
        "stream_bridge: {type: redis, redis_url: 'redis://h'}\n"
        "store: {type: mongo, connection_string: 'mongodb://h'}\n"
    )
    code = (
        "import sys, deerflow_replica as d; d.AppConfig.from_file('config.yaml', env={});"
        "print([m for m in ('redis', 'psycopg', 'pymongo', 'aiosqlite', 'sqlite3', 'starlette', 'uvicorn',"
        " 'langgraph', 'langchain') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_from_mapping_refuses_what_is_no_mapping() -> None:
    with pytest.raises(ConfigError, match="a mapping, not list"):
        AppConfig.from_mapping([], env={})  # type: ignore[arg-type]  # the point of the test


def test_a_config_error_pickles() -> None:
    error = ConfigError(ConfigProblem("a.b", "wrong", "config.yaml", 1, 2))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 our own bytes
    assert again.problems == error.problems
    assert str(again) == "config.yaml:1:2 a.b: wrong"
