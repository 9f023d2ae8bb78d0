"""The JSON schema of a configuration file: whatever loads is valid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from deerflow_replica import AppConfig
from deerflow_replica.config import Section
from deerflow_replica.config.agents import ModelConfig
from deerflow_replica.config.storage import CheckpointerConfig, ModelHealthConfig
from deerflow_replica.errors import ConfigError
from rich_config import RICH

CANDIDATES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 5, 7, 15, 60, 300, 10_000, 7.0, 0.5, -0.5, 30.5, 1e300, "", "x", "7", " 7 ", "+15",
    "7.0", "0.5", ".5", "5.", "1e3", "1_000", "-inf", "NaN", "Infinity", "on", "OFF", "Yes", "n", "T", "true", "memory",
    "sqlite", "postgres", "redis", "full", "a:B", "A-b.c", "schema_1", "$VALUE", [], ["a"], ["$VALUE"], [1], {},
    {"k": 1}, {"min_calls": "3"},
    "١", "1__0", "0x10", "2001-01-02", "user", "store", "tool", "batched", "pubsub", "exact",
)  # fmt: skip
URLS = {
    "database": {"postgres_url": "postgresql://h/d"},
    "stream_bridge": {"redis_url": "redis://h"},
    "checkpointer": {"type": "memory", "connection_string": "x"},
    **{name: {"connection_string": "x://y"} for name in ("user_thread_mapping", "model_feedback", "store")},
}


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = AppConfig.model_json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_it_says_which_draft_it_is() -> None:
    assert AppConfig.model_json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def files() -> Iterator[dict[str, Any]]:
    """Each candidate as each section and as each field of it."""
    for name, field in AppConfig.model_fields.items():
        kind = CheckpointerConfig if name == "checkpointer" else field.annotation
        given: dict[str, Any] = URLS.get(name, {})
        yield from ({**URLS, name: candidate} for candidate in CANDIDATES)
        if isinstance(kind, type) and issubclass(kind, Section):
            for key in kind.known_names():
                yield from ({**URLS, name: {**given, key: candidate}} for candidate in CANDIDATES)
    for key in ModelConfig.known_names():
        yield from ({"models": [{"name": "m", key: candidate}]} for candidate in CANDIDATES)
    for key in ModelHealthConfig.known_names():
        yield from ({"model_feedback": {"health": {key: candidate}}} for candidate in CANDIDATES)


def loads(data: dict[str, Any]) -> bool:
    for value in ("7", "true", "memory", "x", "0.5") if "$VALUE" in str(data) else ("",):
        try:
            AppConfig.from_mapping(data, env={"VALUE": value})
        except ConfigError:
            continue
        return True
    return False


def test_what_loads_is_valid(validator: Draft202012Validator) -> None:
    loaded = [data for data in files() if loads(data)]
    assert len(loaded) > 2000
    assert [data for data in loaded if not validator.is_valid(data)] == []


@pytest.mark.parametrize(
    "data",
    [
        {"title": {"max_words": 99}},
        {"title": {"max_words": "many"}},
        {"memory": 3},
        {"memory": {"mode": "wild"}},
        {"models": {}},
        {"models": [{"use": "a:B"}]},
        {"checkpointer": {"connection_string": "x"}},
        {"database": {"postgres_schema": "Big"}},
        {"stream_bridge": {"max_connections": 2}},
        {"extensions": {"mcp_servers": []}},
        {"title": {"enabled": "maybe"}},
        {"model_feedback": {"health": []}},
        {"log_level": 5},
    ],
)
def test_what_is_wrong_is_not_valid(data: dict[str, Any], validator: Draft202012Validator) -> None:
    assert not validator.is_valid(data)
    with pytest.raises(ConfigError):
        AppConfig.from_mapping(data, env={})


def test_null_sections_and_unknown_names_are_valid(validator: Draft202012Validator) -> None:
    assert validator.is_valid(dict.fromkeys(AppConfig.model_fields))
    assert validator.is_valid({"weather": 1, "memory": {"zebra": [None]}, "tools": [{"name": "web"}]})
    assert validator.is_valid({key: value for key, value in RICH.items() if key != "names"})
    assert validator.is_valid({"config_version": "none of them"})


def test_it_describes_what_it_names() -> None:
    definitions = AppConfig.model_json_schema()["$defs"]
    for name, definition in definitions.items():
        assert definition["description"], name
        for key, value in definition["properties"].items():
            assert value["description"].endswith("."), f"{name}.{key}"


def test_other_shapes_of_the_schema_can_still_be_asked_for() -> None:
    assert "mcp_servers" in AppConfig.model_json_schema(by_alias=False)["$defs"]["ExtensionsConfig"]["properties"]
    elsewhere = AppConfig.model_json_schema(ref_template="#/components/{model}")
    assert elsewhere["properties"]["title"]["anyOf"][0]["$ref"] == "#/components/TitleConfig"
    assert elsewhere["$defs"]["ModelFeedbackConfig"]["properties"]["health"]["anyOf"][1] == {"type": "null"}
    assert AppConfig.model_json_schema(mode="serialization")["$schema"]
