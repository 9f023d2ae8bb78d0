"""A configuration as a value: evolving, looking up, and what is derived from what."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given

from deerflow_replica import AppConfig
from deerflow_replica.config.targets import Target, masked, memory_folder, place_of, target_of
from deerflow_replica.errors import ConfigError
from plain_data import wholes

POSTGRES = {"database": {"backend": "postgres", "postgres_url": "postgresql://h/d", "postgres_schema": "app"}}


def test_evolve_merges_mappings_and_replaces_the_rest() -> None:
    config = AppConfig.from_mapping(
        {"memory": {"backend_config": {"a": 1, "b": [1, 2]}}, "tools": [1, 2], "weather": {"a": {"b": 1}}}, env={}
    )
    changed = config.evolve(
        {"memory": {"backend_config": {"b": [3]}, "enabled": False}, "tools": [9], "weather": {"a": {"c": 2}}}
    )
    assert changed.memory.backend_config == {"a": 1, "b": [3]}
    assert changed.memory.enabled is False
    assert changed.get("tools") == (9,)
    assert changed.get("weather") == {"a": {"b": 1, "c": 2}}
    assert config.memory.enabled is True


def test_evolve_to_none_restores_a_section() -> None:
    config = AppConfig.from_mapping({"title": {"max_words": 3}, "checkpointer": {"type": "memory"}}, env={})
    assert config.evolve({"title": None, "checkpointer": None}) == AppConfig()


def test_evolve_resolves_variables_in_the_changes_only() -> None:
    config = AppConfig.from_mapping({"x": "$A", "tools": {"k": 1}}, env={"A": "$B"})
    changed = config.evolve({"tools": {"l": "$C"}}, env={"B": "never", "C": "new"})
    assert changed.get("x") == "$B"
    assert changed.get("tools.l") == "new"


def test_what_a_configuration_holds_is_not_resolved_when_it_moves() -> None:
    config = AppConfig.from_mapping({"x": ["$A"], "y": {"k": "$A"}}, env={"A": "$B"})
    for part in ("x", "y"):
        assert config.evolve({"z": config.get(part)}, env={"B": "never"}).get("z") == config.get(part)


def test_a_variable_that_evolve_cannot_find() -> None:
    with pytest.raises(ConfigError, match=r"title\.max_words: the environment variable N is not set"):
        AppConfig().evolve({"title": {"max_words": "$N"}}, env={})
    changed = AppConfig().evolve({"memory": {"backend_config": {"model": {"key": "$K", "name": "m"}}}}, env={})
    assert changed.memory.backend_config["model"]["name"] == "m"
    with pytest.raises(ConfigError, match=r"memory\.backend_config\.model\.key: .* K is not set"):
        changed.get("memory.backend_config.model.key")


def test_constructors_read_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVEL", "debug")
    monkeypatch.setenv("DEERFLOW_REPLICA__LOG_LEVEL", "error")
    assert AppConfig(log_level="$LEVEL").log_level == "$LEVEL"
    assert AppConfig().log_level == "info"
    assert AppConfig.model_validate({"x": "$LEVEL"}).get("x") == "$LEVEL"
    assert AppConfig().model_copy(update={"log_level": "$LEVEL"}).log_level == "$LEVEL"


def test_unknown_names_are_attributes_where_the_name_is_free() -> None:
    config: Any = AppConfig.from_mapping({"weather": {"a": 1}, "memory": {"max_facts": 3}, "json": 1}, env={})
    assert config.weather == {"a": 1}
    assert config.memory.max_facts == 3
    assert callable(config.json)
    assert config.get("json") == 1
    with pytest.raises(AttributeError):
        _ = config.memory.no_such_name


def test_strict_takes_what_deerflow_has_names_for() -> None:
    data = {
        "models": [{"name": "m", "anything": 1}],
        "extensions": {"anything": {"goes": 1}},
        "tools": [{"name": "web"}],
        "sandbox": {"anything": 1},
        "memory": {"max_facts": 3, "backend_config": {"anything": 1}},
        "mcp_tasks": {},
    }
    assert AppConfig.from_mapping(data, env={}, strict=True).warnings == ()


def test_evolve_is_validated_and_names_the_key() -> None:
    with pytest.raises(ConfigError, match=r"title\.max_words: .* \(got 99\)"):
        AppConfig().evolve({"title": {"max_words": 99}})
    with pytest.raises(ConfigError, match="postgres_url"):
        AppConfig().evolve({"database": {"backend": "postgres"}})
    with pytest.raises(ConfigError, match="a mapping"):
        AppConfig().evolve([])  # type: ignore[arg-type]  # the point of the test


def test_evolve_knows_an_alias_and_its_name_for_the_same() -> None:
    config = AppConfig.from_mapping({"extensions": {"mcpServers": {"a": {"x": 1}}}}, env={})
    for name in ("mcpServers", "mcp_servers"):
        assert config.evolve({"extensions": {name: {"b": {}}}}).extensions.mcp_servers == {"a": {"x": 1}, "b": {}}


def test_an_unset_type_follows_the_database_until_it_is_set() -> None:
    config = AppConfig.from_mapping({**POSTGRES, "store": {"type": "sqlite"}}, env={})
    assert (config.user_thread_mapping.type, config.model_feedback.type, config.store.type) == (
        "postgres",
        "postgres",
        "sqlite",
    )
    memory = config.evolve({"database": {"backend": "memory"}, "user_thread_mapping": {"tenant": "t"}})
    assert (memory.user_thread_mapping.type, memory.store.type) == ("memory", "sqlite")
    copied = config.model_copy(update={"database": memory.database})
    assert copied.model_feedback.type == "memory"
    assert AppConfig(user_thread_mapping=config.user_thread_mapping).user_thread_mapping.type == "sqlite"


def test_get() -> None:
    config = AppConfig.from_mapping({"models": [{"name": "m", "k": {"a.b": 1}}], "x": {1: "one"}}, env={})
    assert config.get("models.0.name") == "m"
    assert config.get(("models", 0, "k", "a.b")) == 1
    assert config.get("x.1") == "one"
    assert config.get("memory") is config.memory
    assert config.get("no.such", None) is None
    for key, meant in (("memory.enabeld", "memory.enabled"), ("moddels", "models")):
        with pytest.raises(KeyError, match=f"did you mean {meant}"):
            config.get(key)
    for key in ("models.7", "models.x", "log_level.0", ""):
        with pytest.raises(KeyError):
            config.get(key)


def test_a_dump_takes_pydantic_s_options() -> None:
    config = AppConfig.from_mapping({"title": {"max_words": 3}, "store": {"type": None}, "x": {"a": None}}, env={})
    assert config.model_dump(exclude_unset=True) == {
        "title": {"max_words": 3},
        "store": {},
        "x": {"a": None},
    }
    assert config.model_dump(exclude_defaults=True, exclude={"store"}) == {"title": {"max_words": 3}, "x": {"a": None}}
    assert config.model_dump(include={"title": {"max_words", "enabled"}}) == {
        "title": {"enabled": True, "max_words": 3}
    }
    assert "max_words" not in config.model_dump(exclude={"title": {"max_words"}})["title"]
    assert config.model_dump(exclude_none=True)["x"] == {}
    assert config.model_dump_json(include={"log_level"}) == '{"log_level":"info"}'


@pytest.mark.parametrize(
    ("given", "shown", "as_json"),
    [
        ({2}, {2}, "[2]"),
        ({(3, (4,))}, {(3, (4,))}, "[[3,[4]]]"),
        ({frozenset({1})}, {frozenset({1})}, "[[1]]"),
        ({(b"y", "redis://:pw@h")}, {(b"y", "redis://:***@h")}, '[["eQ==","redis://:***@h"]]'),
    ],
)
def test_a_set_is_shown_whatever_is_in_it(given: object, shown: object, as_json: str) -> None:
    config = AppConfig.from_mapping({"odd": given}, env={})
    assert config.to_mapping()["odd"] == shown
    assert f'"odd":{as_json}' in config.model_dump_json()
    assert "pw" not in repr(config) + str(config.explain("odd")) + str(AppConfig().diff(config))
    assert AppConfig.from_mapping(config.to_mapping(reveal=True), env={}) == config


def test_the_first_of_equal_names_is_the_model() -> None:
    config = AppConfig.from_mapping({"models": [{"name": "m", "model": "1"}, {"name": "m", "model": "2"}]}, env={})
    model = config.get_model_config("m")
    assert model is not None
    assert model.model == "1"
    assert config.get_model_config("n") is None


def test_a_pickle_carries_no_hash_to_another_process() -> None:
    config = AppConfig.from_mapping({"weather": {"a": ["b", {"c": "d"}]}, "names": {"x", "y"}}, env={})
    code = (
        "import pickle, sys, deerflow_replica as d; c = pickle.load(sys.stdin.buffer);"
        "b = d.AppConfig.from_mapping({'weather': {'a': ['b', {'c': 'd'}]}, 'names': {'y', 'x'}}, env={});"
        "print(c == b, hash(c) == hash(b), c in {b}, c.get('weather') in {b.get('weather')})"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=pickle.dumps(config),
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        )
        assert done.stdout == b"True True True True\n"


def test_targets_of_the_defaults_are_files_under_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = AppConfig()
    ours = Target("sqlite", str(tmp_path / ".deer-flow/data/deerflow_replica.db"), "database.sqlite_dir")
    for section in ("database", "store", "user_thread_mapping", "model_feedback"):
        assert target_of(config, section) == ours
    assert target_of(config, "checkpointer").url == str(tmp_path / ".deer-flow/data/deerflow.db")
    assert target_of(config, "stream_bridge") == Target("memory", "", "stream_bridge.type")
    assert memory_folder(config) == tmp_path / ".deer-flow"


def test_targets_start_at_the_project_root_of_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text("checkpointer: {type: sqlite}\n")
    monkeypatch.chdir(tmp_path)
    config = AppConfig.from_file(env={"DEER_FLOW_HOME": "home"})
    monkeypatch.chdir("/")
    assert target_of(config, "store").url == str(tmp_path / ".deer-flow/data/deerflow_replica.db")
    assert target_of(config, "checkpointer") == Target("sqlite", str(tmp_path / "store.db"), "database.sqlite_dir")
    assert memory_folder(config) == tmp_path / "home"
    again = pickle.loads(pickle.dumps(config)).evolve({"log_level": "debug"})  # noqa: S301 our own bytes
    assert memory_folder(again) == tmp_path / "home"


def test_targets_of_servers_and_who_held_the_url() -> None:
    config = AppConfig.from_mapping(
        {
            **POSTGRES,
            "stream_bridge": {"redis_url": "redis://r"},
            "user_thread_mapping": {"type": "redis"},
            "model_feedback": {"type": "postgres", "connection_string": "postgresql://own", "postgres_schema": "mine"},
            "store": {"type": "mongo", "connection_string": "mongodb://m"},
            "checkpointer": {"type": "postgres", "connection_string": "postgresql://c"},
        },
        env={},
    )
    assert target_of(config, "database") == Target("postgres", "postgresql://h/d", "database.postgres_url", "app")
    assert target_of(config, "user_thread_mapping") == Target("redis", "redis://r", "stream_bridge.redis_url")
    assert target_of(config, "model_feedback") == Target(
        "postgres", "postgresql://own", "model_feedback.connection_string", "mine"
    )
    assert target_of(config, "store") == Target("mongo", "mongodb://m", "store.connection_string")
    assert target_of(config, "checkpointer").key == "checkpointer.connection_string"
    followed = config.evolve({"user_thread_mapping": {"type": "postgres-legacy"}, "checkpointer": None})
    assert target_of(followed, "user_thread_mapping") == Target(
        "postgres", "postgresql://h/d", "database.postgres_url", "app"
    )
    assert target_of(followed, "checkpointer").key == "database.postgres_url"


def test_sqlite_connection_strings() -> None:
    for text, url in (("sqlite:////a/b.db", "/a/b.db"), ("/a/b.db", "/a/b.db"), (":memory:", ":memory:")):
        config = AppConfig.from_mapping({"store": {"type": "sqlite", "connection_string": text}}, env={})
        assert target_of(config, "store").url == url


@pytest.mark.parametrize(
    "data",
    [
        {"user_thread_mapping": {"type": "redis"}},
        {"user_thread_mapping": {"type": "mongo"}},
        {"model_feedback": {"type": "postgres"}},
        {"store": {"type": "mongo"}},
        {"checkpointer": {"type": "postgres"}, **POSTGRES},
    ],
)
def test_a_connection_that_is_nowhere_is_a_problem_at_load(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"connection_string: type .* needs connection_string") as raised:
        AppConfig.from_mapping(data, env={})
    assert len(raised.value.problems) == 1


def test_one_missing_database_url_is_one_problem() -> None:
    with pytest.raises(ConfigError) as raised:
        AppConfig.from_mapping({"database": {"backend": "postgres"}}, env={})
    assert [problem.key for problem in raised.value.problems] == ["database.postgres_url"]


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("stream_bridge:\n  type: redis\n  redis_url: redis://:pw@h\n")
    config = AppConfig.from_file(env={})
    assert place_of(config, "stream_bridge.redis_url") == "config.yaml:3:14"
    assert place_of(config, "database.postgres_url") is None
    assert place_of(AppConfig(), "stream_bridge.redis_url") is None
    assert place_of(config.evolve({"stream_bridge": {"redis_url": "redis://i"}}), "stream_bridge.redis_url") is None
    assert masked(target_of(config, "stream_bridge").url) == "redis://:***@h"
    assert "pw" not in repr(target_of(config, "stream_bridge"))


@given(wholes)
def test_plain_data_round_trips(data: dict[str, Any]) -> None:
    config = AppConfig.from_mapping(data, env={})
    assert AppConfig.from_mapping(config.to_mapping(reveal=True), env={}) == config
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 our own bytes
    assert hash(AppConfig(**data)) == hash(config)
    for name, value in data.items():
        if name in ("weather", "tools"):
            assert config.to_mapping(reveal=True)[name] == value


@given(wholes)
def test_yaml_and_a_mapping_load_alike(data: dict[str, Any]) -> None:
    from deerflow_replica.config.documents import read_yaml

    text = yaml.safe_dump(data, allow_unicode=True)
    assert read_yaml(text, "x").data == yaml.safe_load(text) == data
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(text, encoding="utf-8")
        assert AppConfig.from_file(path, env={}) == AppConfig.from_mapping(data, env={})


def merged(base: Any, changes: Any) -> Any:
    if isinstance(base, dict) and isinstance(changes, dict):
        return {**base, **{key: merged(base[key], item) if key in base else item for key, item in changes.items()}}
    return changes


@given(wholes, wholes)
def test_evolve_equals_loading_the_merged_mapping(base: dict[str, Any], changes: dict[str, Any]) -> None:
    evolved = AppConfig.from_mapping(base, env={}).evolve(changes, env={})
    assert evolved == AppConfig.from_mapping(merged(base, changes), env={})
