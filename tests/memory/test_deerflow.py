"""What DeerFlow's own loaders make of `SharedMemoryStorage`, in stand-ins for both of its generations."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import pickle
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest

from deerflow_replica.errors import ConfigError, MemoryCorruptError, StoreUnavailableError, VersionConflictError
from deerflow_replica.memory import MemoryStorage, StoreMemoryStorage

PATH = "deerflow_replica.deerflow.SharedMemoryStorage"
URL = "DEERFLOW_REPLICA_MEMORY_URL"
MAIN = "deerflow.agents.memory.backends.deermem.deermem.core.storage"
RELEASE = "deerflow.agents.memory.storage"

INTERFACE = """
import abc, importlib

class MemoryStorage(abc.ABC):
    @abc.abstractmethod
    def load(self, agent_name=None, *, user_id=None): ...
    @abc.abstractmethod
    def reload(self, agent_name=None, *, user_id=None): ...
    @abc.abstractmethod
    def save(self, memory_data, agent_name=None, *, user_id=None): ...

class Files(MemoryStorage):
    load = reload = save = lambda self: None

def named(path, config):
    module, name = path.rsplit(".", 1)
    found = getattr(importlib.import_module(module), name)
    if not issubclass(found, MemoryStorage):
        raise TypeError(path)
    return found(config)
"""
STRICT = """
DEFAULT_AGENT_BUCKET = "__default__"
class MemoryStorageCorruption(RuntimeError): ...
class MemoryRevisionConflict(RuntimeError): ...
class MemoryManifestRevisionConflict(MemoryRevisionConflict): ...
class MemoryFactRevisionConflict(MemoryRevisionConflict): ...
create = named
"""
LENIENT = """
def create(path, config):
    try:
        return named(path, config)
    except Exception:
        return Files()
"""


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:///{tmp_path}/memory.db"
    monkeypatch.setenv(URL, url)
    return url


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module as a new process would import it."""
    before = sys.modules.get("deerflow_replica.deerflow")
    monkeypatch.delitem(sys.modules, "deerflow_replica.deerflow", raising=False)
    yield
    for name in [name for name in sys.modules if name == "deerflow" or name.startswith("deerflow.")]:
        del sys.modules[name]
    sys.modules.pop("deerflow_replica.deerflow")
    if before is not None:
        sys.modules["deerflow_replica.deerflow"] = before


def installed(name: str, text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = folder / f"{name.replace('.', '/')}.py"
    path.parent.mkdir(parents=True)
    path.write_text(INTERFACE + text)
    monkeypatch.syspath_prepend(folder)
    return importlib.import_module(name)


@pytest.fixture
def main(ours: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return installed(MAIN, STRICT, tmp_path / "main", monkeypatch)


@pytest.fixture
def release(ours: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return installed(RELEASE, LENIENT, tmp_path / "release", monkeypatch)


@pytest.fixture
def alone(ours: None) -> Any:
    """Where there is no DeerFlow."""
    return importlib.import_module("deerflow_replica.deerflow").SharedMemoryStorage


def test_the_release_loads_it(release: ModuleType, url: str) -> None:
    storage = release.create(PATH, object())
    assert isinstance(storage, release.MemoryStorage)
    assert isinstance(storage, MemoryStorage)
    assert storage.save({"facts": [{"id": "1"}], "user": {"a": 1}}, "coder", user_id="ann")
    assert storage.load("coder", user_id="ann")["user"] == {"a": 1}
    assert storage.load(user_id="ann")["facts"] == []
    with pytest.raises(VersionConflictError):
        storage.save({"facts": []}, "coder", user_id="ann", expected_revision=0)
    with pytest.raises(ValueError, match="agent_name"):
        storage.load("__default__")
    storage.close()


def test_main_loads_it(main: ModuleType, url: str) -> None:
    storage, other = main.create(PATH, object()), main.create(PATH, object())
    assert isinstance(storage, main.MemoryStorage)
    changes = {"upserts": [{"id": "1", "content": "tea"}], "summaries": {"user": {"topOfMind": {"summary": "x"}}}}
    storage.apply_changes(changes, agent_name="__default__", user_id="ann")
    assert [fact["id"] for fact in other.load("__default__", user_id="ann")["facts"]] == ["1"]
    assert other.load("coder", user_id="ann")["user"]["topOfMind"]["summary"] == "x"
    assert other.load("coder", user_id="ann")["facts"] == []
    with pytest.raises(ValueError, match="agent_name"):
        storage.load("__other__")
    storage.close()
    other.close()


def test_conflicts_are_deerflows_own(main: ModuleType, url: str) -> None:
    storage = main.create(PATH, object())
    storage.apply_changes({"upserts": [{"id": "1", "content": "tea"}]}, user_id="ann")
    with pytest.raises(main.MemoryManifestRevisionConflict) as manifest:
        storage.save({"facts": []}, user_id="ann", expected_revision=0)
    with pytest.raises(main.MemoryFactRevisionConflict) as fact:
        storage.apply_changes({"upserts": [{"id": "1"}], "upsertRevisions": {"1": None}}, user_id="ann")
    for caught, kind in ((manifest, "manifest"), (fact, "fact")):
        conflict = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  # pickled here
        assert isinstance(conflict, VersionConflictError)
        assert (conflict.kind, conflict.current) == (kind, 1)  # type: ignore[attr-defined]  # memory's own
    assert storage.save({"facts": []}, user_id="ann")
    storage.close()


def test_corruption_is_deerflows_own(main: ModuleType, url: str) -> None:
    from deerflow_replica.store import SqliteStore

    storage = main.create(PATH, object())
    assert storage.save({"facts": []}, user_id="ann")
    with SqliteStore.from_conn_string(url) as store:
        store.put(("deerflow_memory", "ann"), "%none", {"text": "{"})
    with pytest.raises(MemoryCorruptError) as caught:
        storage.load(user_id="ann")
    assert isinstance(caught.value, main.MemoryStorageCorruption)
    assert storage.save({"facts": []}, user_id="ann") is False
    storage.close()


def test_without_deerflow_it_is_ours(alone: Any, url: str) -> None:
    storage = alone(object())
    assert isinstance(storage, StoreMemoryStorage)
    assert storage.save({"facts": [{"id": "1"}]}, user_id="ann")
    assert storage.load(user_id="ann")["facts"] == [{"id": "1"}]
    storage.close()
    storage.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        storage.load(user_id="ann")


@pytest.mark.parametrize(
    "value", ["", "redis://h", "memory.db", "postgresql", "sqlite:memory.db", "sqlite://memory.db"]
)
def test_without_a_url_the_reason_is_in_the_log(
    release: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    monkeypatch.setenv(URL, value)
    assert isinstance(release.create(PATH, object()), release.Files)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert f"memory is not shared between replicas: {URL}" in caplog.text
    with pytest.raises(ConfigError, match=URL):
        release.named(PATH, object())


def test_it_takes_exactly_one_argument(alone: Any, url: str) -> None:
    for arguments in ((), (1, 2)):
        with pytest.raises(TypeError):
            alone(*arguments)


def test_the_constructor_reaches_for_nothing(alone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, f"sqlite:///{tmp_path}/memory.db/below/a/file")
    (tmp_path / "memory.db").write_text("in the way")
    storage = alone(object())
    with pytest.raises(ValueError, match="user_id"):
        storage.load(user_id="")
    for read in (storage.load, storage.reload):
        with pytest.raises(StoreUnavailableError):
            read(user_id="ann")
    assert storage.save({"facts": []}, user_id="ann") is False
    monkeypatch.setenv(URL, f"sqlite:///{tmp_path}/other.db")
    later = alone(object())
    assert not (tmp_path / "other.db").exists()
    assert later.save({"facts": []}, user_id="ann") is True
    assert (tmp_path / "other.db").exists()
    storage.close()
    later.close()


@pytest.mark.parametrize(
    "server", ["postgresql://127.0.0.1:1/x", "mongodb://127.0.0.1:1/x?serverSelectionTimeoutMS=100"]
)
def test_a_server_that_is_not_there_is_no_empty_memory(
    alone: Any, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.setenv(URL, server)
    storage = alone(object())
    with pytest.raises(StoreUnavailableError):
        storage.load(user_id="ann")
    assert storage.save({"facts": []}, user_id="ann") is False
    storage.close()


@pytest.fixture
def own_database(postgres_dsn: str) -> Iterator[str]:
    """The URL of a new database: a storage takes the schema that the package always takes."""
    import psycopg

    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield urlsplit(postgres_dsn)._replace(path=f"/{name}").geturl()
        connection.execute(f"DROP DATABASE {name} (FORCE)".encode())


def test_replicas_share_what_is_in_postgres(alone: Any, own_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, own_database)
    one, other = alone(object()), alone(object())
    for number, storage in enumerate((one, other, one)):
        storage.apply_changes({"upserts": [{"id": str(number), "content": "tea"}]}, user_id="ann")
    assert [fact["id"] for fact in other.load(user_id="ann")["facts"]] == ["0", "1", "2"]
    one.close()
    other.close()


@pytest.mark.anyio
async def test_an_event_loops_own_thread_may_use_and_close_it(alone: Any, url: str) -> None:
    storage = alone(object())
    assert storage.save({"facts": []}, user_id="ann")
    assert storage.load(user_id="ann")["revision"] == 1
    storage.close()


@pytest.mark.skipif(importlib.util.find_spec("deerflow") is None, reason="DeerFlow is not installed")
def test_deerflow_itself_has_one_of_the_interfaces(alone: Any) -> None:
    assert len(alone.__mro__) > len(StoreMemoryStorage.__mro__) + 2
