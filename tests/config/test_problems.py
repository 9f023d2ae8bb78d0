"""What is said of a wrong configuration."""

from __future__ import annotations

import dataclasses
import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest

from deerflow_replica import AppConfig
from deerflow_replica.errors import ConfigError, ConfigProblem


def test_five_mistakes_are_five_problems_with_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(
        "database:\n"
        "  pool_size: 0\n"
        "models:\n"
        "- use: a:B\n"
        "title: {enabled: yes, enabled: no}\n"
        "memory:\n"
        "  mode: $MODE\n"
        "moddels: []\n"
    )
    with pytest.raises(ConfigError) as raised:
        AppConfig.from_file(env={}, strict=False)
    assert [str(problem) for problem in raised.value.problems] == [
        "config.yaml:2:14 database.pool_size: input should be greater than or equal to 1 (got 0)",
        "config.yaml:4:3 models.0.name: field required",
        "config.yaml:5:23 title.enabled: duplicate key, first on line 5",
        "config.yaml:7:9 memory.mode: the environment variable MODE is not set",
    ]
    Path("config.yaml").write_text(
        "database: {pool_size: 0}\nmodels: [{use: a:B}]\ntitle: {max_words: many}\nmemory: {mode: 5}\nstore: []\n"
    )
    with pytest.raises(ConfigError) as raised:
        AppConfig.from_file(env={})
    places = [(problem.source, problem.line, problem.column, problem.key) for problem in raised.value.problems]
    assert places == [
        ("config.yaml", 1, 23, "database.pool_size"),
        ("config.yaml", 2, 10, "models.0.name"),
        ("config.yaml", 3, 20, "title.max_words"),
        ("config.yaml", 4, 16, "memory.mode"),
        ("config.yaml", 5, 8, "store"),
    ]
    assert str(raised.value).count("\n") == 4
    assert pickle.loads(pickle.dumps(raised.value)).problems == raised.value.problems  # noqa: S301 our own bytes


def test_unknown_names_and_other_mistakes_are_told_together_when_strict(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "moddels: []\nmemory: {enabeld: true, mode: wild}\nx: {a: 1, a: 2}\nmodel_feedback: {health: {a: 1}}"
    )
    with pytest.raises(ConfigError) as raised:
        AppConfig.from_file(path, env={}, strict=True)
    assert [(problem.line, problem.key) for problem in raised.value.problems] == [
        (1, "moddels"),
        (2, "memory.enabeld"),
        (2, "memory.mode"),
        (3, "x"),
        (3, "x.a"),
        (4, "model_feedback.health.a"),
    ]


def test_a_mapping_has_no_file() -> None:
    with pytest.raises(ConfigError) as raised:
        AppConfig.from_mapping({"title": {"max_words": 99}, "database": {"pool_size": 0}}, env={})
    for problem in raised.value.problems:
        assert (problem.source, problem.line, problem.column) == (None, None, None)
    assert str(raised.value.problems[0]).startswith(("title.max_words: ", "database.pool_size: "))


def test_a_problem_is_frozen() -> None:
    problem = ConfigProblem("a", "b")
    with pytest.raises(dataclasses.FrozenInstanceError):
        problem.key = "c"  # type: ignore[misc]  # the point of the test


@pytest.mark.parametrize(
    "value", ["x" * 500, ["y"] * 500, {"k": "z" * 500}, 10**500, -(10**90), b"b" * 500, "ü" * 79, "\n" * 200]
)
def test_the_value_takes_at_most_eighty_characters(value: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        AppConfig.from_mapping({"title": {"max_words": value}}, env={})
    text = str(raised.value)
    _, _, got = text.rpartition(" (got ")
    assert got.endswith(")")
    assert len(got) - 1 <= 80
    assert "\n" not in text


def test_nothing_of_pydantic_shows_in_the_traceback() -> None:
    with pytest.raises(ConfigError) as raised:
        AppConfig.from_mapping({"title": {"max_words": 99}}, env={})
    text = "".join(traceback.format_exception(raised.value))
    assert "ValidationError" not in text
    assert "pydantic.dev" not in text


def test_sizes_deerflow_takes_and_this_package_refuses() -> None:
    for data in (
        {"database": {"pool_size": 0}},
        {"stream_bridge": {"queue_maxsize": 0}},
        {"stream_bridge": {"max_connections": 2}},
        {"stream_bridge": {"type": "redis"}},
    ):
        with pytest.raises(ConfigError):
            AppConfig.from_mapping(data, env={})


@pytest.mark.parametrize(
    "data",
    [
        {"circuit_breaker": {"recovery_timeout_sec": 0}},
        {"database": {"command_timeout": None, "pool_recycle": 1}},
        {"stream_bridge": {"stream_ttl_seconds": 0, "recovered_stream_cleanup_delay_seconds": 0}},
        {"stream_bridge": None, "memory": None, "models": None, "extensions": None, "checkpointer": None},
        {"config_version": "three"},
        {"config_version": None},
        {"config_version": [1]},
        {"config_version": "$UNSET"},
        {"memory": {"storage_class": "a.B", "model_name": None, "max_facts": 5}},
        {"title": {"enabled": "on", "max_words": "7", "max_chars": 60.0}},
        {"extensions": {"mcpServers": None, "skills": None}},
        {"models": [{"name": "m", "context_window": None, "thinking": {"type": "enabled"}}, {"name": "m"}]},
    ],
)
def test_what_deerflow_accepts_is_accepted(data: dict[str, Any]) -> None:
    AppConfig.from_mapping(data, env={})


@pytest.mark.parametrize(
    ("given", "version"), [(33, 33), ("7", 7), (2.9, 2), (True, 1), ("x", 0), (None, 0), (float("inf"), 0), ({}, 0)]
)
def test_the_version_is_read_as_deerflow_reads_it(given: Any, version: int) -> None:
    assert AppConfig.from_mapping({"config_version": given}, env={}).config_version == version


@pytest.mark.parametrize(
    "changes", [{"title": {"max_words": 99}}, {"memory": {"mode": 3}}, {"models": [{}]}, {"checkpointer": {}}]
)
def test_what_a_change_brought_has_no_place_in_the_file(changes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("title: {max_chars: 20}\nmodels: []\n")
    config = AppConfig.from_file(path, env={})
    again = pickle.loads(pickle.dumps(config.evolve({"title": {"enabled": False}})))  # noqa: S301 our own bytes
    for change in (config.evolve, again.evolve, lambda given: config.model_copy(update=given)):
        with pytest.raises(ConfigError) as caught:
            change(changes)
        assert [problem.source for problem in caught.value.problems] == [None]
    assert config.evolve({"titel": {}}).warnings == ("titel: unknown name, did you mean title?",)


def test_both_files_problems_are_said_at_once(tmp_path: Path) -> None:
    main, extensions = tmp_path / "config.yaml", tmp_path / "extensions_config.json"
    main.write_text("title: {max_words: 99}\n")
    extensions.write_text('{"skills": [1],\n "mcpServers": {"a": {"url": 1, "url": 2}}}')
    with pytest.raises(ConfigError) as caught:
        AppConfig.from_file(main, extensions_path=extensions, env={})
    assert [(problem.key, problem.line, problem.column) for problem in caught.value.problems] == [
        ("title.max_words", 1, 20),
        ("extensions.skills", 1, 12),
        ("mcpServers.a.url", 2, 33),
    ]
