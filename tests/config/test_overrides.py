"""Single values from the environment, over those of the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from deerflow_replica import AppConfig
from deerflow_replica.config.targets import place_of
from deerflow_replica.errors import ConfigError

FILE = """\
log_level: debug
title: {max_words: 3}
models: [{name: m}]
sandbox: {use: a:B, Nested: {k: 1}}
extensions: {mcpServers: {s: {enabled: true}}}
user_thread_mapping: {future: {k: 1}}
"""


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(FILE)
    return path


def load(**variables: str) -> AppConfig:
    return AppConfig.from_file(env={f"DEERFLOW_REPLICA__{name}": value for name, value in variables.items()})


@pytest.mark.parametrize(("section", "field"), [("TITLE", "TITLE__MAX_CHARS"), ("title", "TITLE__MAX_CHARS")])
def test_a_field_beats_its_section_in_any_case(section: str, field: str) -> None:
    title = load(**{field: "30", section: "{max_words: 9, max_chars: 50}"}).title
    assert (title.max_words, title.max_chars) == (9, 30)


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("LOG_LEVEL", "error", "log_level", "error"),
        ("log_level", "on", "log_level", "on"),
        ("TITLE__MAX_WORDS", "7", "title.max_words", 7),
        ("Title__Enabled", "off", "title.enabled", False),
        ("TITLE__MODEL_NAME", "$NOT", "title.model_name", "$NOT"),
        ("TITLE__MODEL_NAME", "017", "title.model_name", "017"),
        ("USER_THREAD_MAPPING__TYPE", "memory", "user_thread_mapping.type", "memory"),
        ("MEMORY__BACKEND_CONFIG__MODEL__TEMPERATURE", "0.5", "memory.backend_config.model.temperature", 0.5),
        ("MODEL_FEEDBACK__HEALTH__MIN_CALLS", "9", "model_feedback.health.min_calls", 9),
        ("STORE__TTL__DEFAULT_TTL", "4", "store.ttl.default_ttl", 4),
        ("SANDBOX__USE", "c:D", "sandbox.use", "c:D"),
        ("SANDBOX__NESTED__K", "[1, {a: 2}]", "sandbox.Nested.k", (1, {"a": 2})),
        ("SANDBOX__NEW", "1", "sandbox.new", 1),
        ("SUMMARIZATION__ENABLED", "true", "summarization.enabled", True),
        ("EXTENSIONS__MCP_SERVERS__S__ENABLED", "false", "extensions.mcp_servers.s.enabled", False),
        ("EXTENSIONS__MCPSERVERS__S__ENABLED", "false", "extensions.mcp_servers.s.enabled", False),
        ("EXTENSIONS__MIDDLEWARES", "[a:B]", "extensions.middlewares", ("a:B",)),
        ("CHECKPOINTER__TYPE", "memory", "checkpointer.type", "memory"),
        ("USER_THREAD_MAPPING__FUTURE__K", "2", "user_thread_mapping.future.k", 2),
        ("DATABASE__COMMAND_TIMEOUT", "null", "database.command_timeout", None),
    ],
)
def test_an_override_beats_the_file(name: str, text: str, key: str, value: object) -> None:
    config = load(**{name: text})
    assert config.get(key) == value
    assert config.get("models.0.name") == "m"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("WEATHER__X", "1", "WEATHER__X weather.x: unknown name"),
        ("TITLE__MAX_WORDZ", "1", "title.max_wordz: unknown name in .*, did you mean max_words?"),
        ("SANDBAX__X", "1", "sandbax.x: unknown name in .*, did you mean sandbox?"),
        ("MODELS__0__NAME", "x", "MODELS__0__NAME models.0.name: a variable cannot set a part of a list"),
        ("LOG_LEVEL__X", "x", "LOG_LEVEL__X log_level.x: a variable cannot set a part"),
        ("TITLE__", "x", "unknown name"),
        ("", "x", "unknown name"),
        ("TITLE__MAX_WORDS", "99", r"TITLE__MAX_WORDS title\.max_words: .* \(got 99\)"),
        ("TITLE__MAX_WORDS", "[1", "TITLE__MAX_WORDS title.max_words: while parsing"),
        ("SANDBOX__X", "{a: 1, a: 2}", "SANDBOX__X sandbox.x: duplicate key"),
        ("STREAM_BRIDGE__TYPE", "redis", "redis_url"),
    ],
)
def test_a_wrong_override_is_a_problem_that_names_the_variable(name: str, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(**{name: text})


def test_an_override_has_no_place_in_the_file_and_hides_its_text(file: Path) -> None:
    file.write_text("stream_bridge:\n  type: redis\n  redis_url: redis://a\n")
    config = load(STREAM_BRIDGE__REDIS_URL="redis://b", TITLE__MODEL_NAME="hush")
    assert config.stream_bridge.redis_url == "redis://b"
    assert place_of(config, "stream_bridge.redis_url") is None
    assert place_of(config, "stream_bridge.type") == "config.yaml:2:9"
    assert "hush" not in repr(config)


def test_an_override_of_the_type_takes_the_url_from_the_environment() -> None:
    env = {"DEERFLOW_REPLICA__STREAM_BRIDGE__TYPE": "redis", "REDIS_URL": "redis://r"}
    assert AppConfig.from_file(env=env).stream_bridge.redis_url == "redis://r"


def test_mappings_and_changes_take_no_overrides() -> None:
    env = {"DEERFLOW_REPLICA__LOG_LEVEL": "error"}
    assert AppConfig.from_mapping({}, env=env).log_level == "info"
    assert AppConfig().evolve({}, env=env).log_level == "info"
