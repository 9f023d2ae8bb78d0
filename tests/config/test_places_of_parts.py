"""What a part cannot serve is named with the file and line that asked for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from deerflow_replica import AppConfig
from deerflow_replica.config.targets import problem_at
from deerflow_replica.counters import open_model_counters
from deerflow_replica.errors import ConfigError
from deerflow_replica.memory import open_memory_storage
from deerflow_replica.replica import open_replica
from deerflow_replica.threads import open_thread_map

pytestmark = pytest.mark.anyio
NO_STORE = "memory.storage: a store is needed: pass store=, or open a replica"
NO_REDIS = "user_thread_mapping.connection_string: 'redis://h:x' is not a Redis URL: redis://, rediss:// or unix://"
NO_MONGODB = "user_thread_mapping.connection_string: 'mongodb://' is not a MongoDB URL"
NO_COUNTERS = "model_feedback.connection_string: 'mongodb://' is not a MongoDB URL"
NO_MINUTES = "store.ttl.default_ttl: default_ttl must be a number of minutes, not 'soon'"
NO_INTERVAL = "store.ttl.sweep_interval_minutes: sweep_interval_minutes must be greater than 0 and finite, not -1"
NO_EMBEDDER = "store.index: embed must be provided"
NO_PROVIDER = "store.index: Provider 'nobody' is not supported."
NO_PATHS = "store.text_index: text_index.fields must be a list of paths, not 5"
NO_NAME = "{connection_string: 'mongodb://h', mongo_database: a.b, type: mongo}"
NAMES = "'a.b' is no name: 1 to 63 characters, none of /\\. \"$*<>:|?"
NO_URL = "store.connection_string: not a mongodb:// URL"
NO_TEXTS = "store.text_index: a store of type sqlite has none"
Open = Callable[[AppConfig], AbstractAsyncContextManager[Any]]


@pytest.mark.parametrize(
    ("text", "opened", "said"),
    [
        ("user_thread_mapping: {connection_string: 'redis://h:x', type: redis}", open_thread_map, f"1:42 {NO_REDIS}"),
        ("user_thread_mapping: {connection_string: 'mongodb://', type: mongo}", open_thread_map, f"1:42 {NO_MONGODB}"),
        (f"user_thread_mapping: {NO_NAME}", open_thread_map, f"1:73 user_thread_mapping.mongo_database: {NAMES}"),
        ("model_feedback: {connection_string: 'mongodb://', type: mongo}", open_model_counters, f"1:37 {NO_COUNTERS}"),
        ("store: {ttl: {default_ttl: soon}, type: sqlite}", open_replica, f"1:28 {NO_MINUTES}"),
        ("store: {ttl: {sweep_interval_minutes: -1}, type: sqlite}", open_replica, f"1:39 {NO_INTERVAL}"),
        ("store: {index: {dims: 3}, type: sqlite}", open_replica, f"1:16 {NO_EMBEDDER}"),
        ("store: {index: {dims: x, embed: 'nobody:x'}, type: sqlite}", open_replica, f"1:16 {NO_PROVIDER}"),
        ("store: {text_index: {fields: 5}, type: memory}", open_replica, f"1:21 {NO_PATHS}"),
        ("store: {connection_string: 'mongodb://u:ge/heim@h', type: mongo}", open_replica, f"1:28 {NO_URL}"),
        ("store: {text_index: {fields: [a]}, type: sqlite}", open_replica, f"1:21 {NO_TEXTS}"),
        ("memory: {storage: store}", open_memory_storage, f"1:19 {NO_STORE}"),
    ],
)
async def test_what_a_part_cannot_serve(text: str, opened: Open, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"{text}\n")
    config = AppConfig.from_file(path, env={}).evolve({"database": {"backend": "memory"}})
    with pytest.raises(ConfigError) as raised:
        async with opened(config):
            pass
    assert str(raised.value) == f"{path}:{said}"


def test_a_value_that_is_in_no_file_has_no_place() -> None:
    (problem,) = problem_at(AppConfig(), "store.type", "wrong").problems
    assert (problem.key, problem.message, problem.source, problem.line) == ("store.type", "wrong", None, None)
