from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest
from langgraph.store.memory import InMemoryStore

from deerflow_replica import AppConfig
from deerflow_replica.errors import ConfigError, StoreUnavailableError
from deerflow_replica.memory import FileMemoryStorage, StoreMemoryStorage, open_memory_storage
from deerflow_replica.replica import open_replica

pytestmark = pytest.mark.anyio


class OwnStorage:
    """As DeerFlow's: no class of ours, and nothing to close."""

    def __init__(self, memory: Any) -> None:
        self.memory = memory

    def load(self, agent_name: str | None = None, *, user_id: str | None = None) -> dict[str, Any]:
        return {"facts": []}

    reload = load

    def save(self, memory_data: dict[str, Any], agent_name: str | None = None, *, user_id: str | None = None) -> bool:
        return True


class ClosingStorage(OwnStorage):
    """Says on which thread it was closed."""

    closed_on: ClassVar[list[str]] = []

    def close(self) -> None:
        self.closed_on.append(threading.current_thread().name)


async def test_a_storage_that_holds_something_is_closed_off_the_loop() -> None:
    ClosingStorage.closed_on.clear()
    config = AppConfig.from_mapping({"memory": {"storage_class": f"{__name__}:ClosingStorage"}})
    async with open_memory_storage(config):
        assert ClosingStorage.closed_on == []
    assert len(ClosingStorage.closed_on) == 1
    assert ClosingStorage.closed_on != [threading.current_thread().name]


class NoStorage:
    def __init__(self, memory: Any) -> None:
        """Takes the section, and can do nothing."""


async def test_files_lie_where_the_configuration_says(tmp_path: Path) -> None:
    config = AppConfig.from_mapping({"memory": {"backend_config": {"storage_path": str(tmp_path / "m")}}})
    async with open_memory_storage(config) as storage:
        assert isinstance(storage, FileMemoryStorage)
        assert not (tmp_path / "m").exists()
        assert storage.save({"facts": []}, user_id="ann")
        assert (tmp_path / "m" / "users" / "ann" / "memory.json").is_file()
    with pytest.raises(StoreUnavailableError, match="closed"):
        storage.load()


async def test_the_default_folder_follows_deerflow(tmp_path: Path) -> None:
    env = {"DEER_FLOW_HOME": str(tmp_path / "home"), "DEER_FLOW_PROJECT_ROOT": str(tmp_path)}
    for config, folder in (
        (AppConfig.from_mapping({}, env=env), "home"),
        (AppConfig.from_mapping({}, env={"DEER_FLOW_PROJECT_ROOT": str(tmp_path)}), ".deer-flow"),
        (AppConfig.from_mapping({"memory": {"storage_path": "legacy"}}, env=env), "legacy"),
        (AppConfig.from_mapping({"memory": {"storage_path": "memory.json"}}, env=env), "home"),
    ):
        async with open_memory_storage(config) as storage:
            assert isinstance(storage, FileMemoryStorage)
            assert storage.base_dir == tmp_path / folder


@pytest.mark.parametrize("separator", [".", ":"])
async def test_a_storage_class_gets_the_section_only(monkeypatch: pytest.MonkeyPatch, separator: str) -> None:
    config = _with_class(f"test_opening_own{separator}OwnStorage", monkeypatch)
    async with open_memory_storage(config) as storage:
        assert isinstance(storage, OwnStorage)
        assert storage.memory is config.memory


async def test_what_deerflow_constructs_may_be_named_here_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEERFLOW_REPLICA_MEMORY_URL", f"sqlite:///{tmp_path}/memory.db")
    config = AppConfig.from_mapping({"memory": {"storage_class": "deerflow_replica.deerflow.SharedMemoryStorage"}})
    for revision in range(2):
        async with open_memory_storage(config) as storage:
            assert storage.load(user_id="ann")["revision"] == revision
            assert storage.save({"facts": []}, user_id="ann")
        with pytest.raises(StoreUnavailableError, match="closed"):
            storage.load(user_id="ann")


@pytest.mark.parametrize(
    "path", ["OwnStorage", "no_such_module:X", "test_opening_own:Missing", "test_opening_own:NoStorage", "json:dumps.x"]
)
async def test_a_class_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    config = _with_class(path, monkeypatch)
    with pytest.raises(ConfigError, match=r"memory\.storage_class: ") as problem:
        async with open_memory_storage(config):
            pytest.fail("opened")
    assert path in str(problem.value)


async def test_memory_in_the_store_is_in_the_given_one() -> None:
    store = InMemoryStore()
    config = AppConfig.from_mapping({"memory": {"storage": "store"}})
    async with open_memory_storage(config, store=store) as storage:
        assert isinstance(storage, StoreMemoryStorage)
        assert storage.save({"facts": []}, user_id="ann")
    with pytest.raises(StoreUnavailableError, match="closed"):
        storage.load(user_id="ann")
    assert store.get(("deerflow_memory", "ann"), "%none") is not None


async def test_memory_in_the_store_needs_one(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("memory:\n  storage: store\n")
    with pytest.raises(ConfigError, match=r"config\.yaml:2:12 memory\.storage: a store is needed"):
        async with open_memory_storage(AppConfig.from_file(file)):
            pytest.fail("opened")


async def test_a_replica_keeps_its_memory_in_its_store() -> None:
    config = AppConfig.from_mapping({"memory": {"storage": "store"}, "database": {"backend": "memory"}})
    async with open_replica(config) as replica:
        assert isinstance(replica.memory, StoreMemoryStorage)
        assert replica.memory.save({"facts": []}, user_id="ann")
        assert await replica.store.aget(("deerflow_memory", "ann"), "%none") is not None


async def test_two_replicas_remember_the_same(tmp_path: Path) -> None:
    config = AppConfig.from_mapping({"memory": {"storage": "store"}, "database": {"sqlite_dir": str(tmp_path)}})
    async with open_replica(config) as one, open_replica(config) as other:
        mine, theirs = one.memory.load(user_id="ann"), other.memory.load(user_id="ann")
        assert one.memory.save({**mine, "facts": [{"id": "1"}]}, user_id="ann")
        assert other.memory.save({**theirs, "facts": [{"id": "2"}]}, user_id="ann")
        assert [fact["id"] for fact in one.memory.load(user_id="ann")["facts"]] == ["1", "2"]
        assert {result.name: result.ok for result in await one.check()}["memory"]


def _with_class(path: str, monkeypatch: pytest.MonkeyPatch) -> AppConfig:
    import sys
    from types import ModuleType

    module = ModuleType("test_opening_own")
    module.__dict__.update(OwnStorage=OwnStorage, NoStorage=NoStorage)
    monkeypatch.setitem(sys.modules, "test_opening_own", module)
    return AppConfig.from_mapping({"memory": {"storage_class": path}})
