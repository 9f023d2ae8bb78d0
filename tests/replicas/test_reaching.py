"""Servers that are down, wrong or slow when a replica starts; several first starts at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from deerflow_replica.config import AppConfig
from deerflow_replica.errors import StoreUnavailableError, StreamUnavailableError
from deerflow_replica.replica import open_replica
from deerflow_replica.testing._contract import for_one_of
from ports import free_port
from runs.graphs import one, steps
from waiting import eventually

pytestmark = pytest.mark.anyio

IN_MEMORY: dict[str, Any] = {"database": {"backend": "memory"}}
PASSWORD = "hunter2-secret"  # noqa: S105  # nobody's


@pytest.fixture
def closed_port() -> int:
    return free_port()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextlib.asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    tasks, threads, sockets = asyncio.all_tasks(), set(threading.enumerate()), _sockets()
    yield
    assert asyncio.all_tasks() == tasks
    assert [one for one in set(threading.enumerate()) - threads if not one.name.startswith("asyncio_")] == []
    await eventually(lambda: _sockets() <= sockets, what="closing of every socket")  # next turns of the loop


def _sockets() -> int:
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += str(entry.readlink()).startswith("socket:")
    return found


def postgres(port: int) -> str:
    return f"postgresql://someone:{PASSWORD}@127.0.0.1:{port}/nothing"


def sections_naming(port: int) -> list[tuple[str, str, dict[str, Any]]]:
    """Each section that can name a server: its name, the key that holds the URL, and the configuration."""
    dsn = postgres(port)
    return [
        ("database", "database.postgres_url", {"database": {"backend": "postgres", "postgres_url": dsn}}),
        *(
            (name, f"{name}.connection_string", {**IN_MEMORY, name: {"type": "postgres", "connection_string": dsn}})
            for name in ("checkpointer", "store", "user_thread_mapping", "model_feedback")
        ),
    ]


@pytest.mark.parametrize("section", [name for name, _, _ in sections_naming(1)])
async def test_database_that_is_down_is_named(section: str, closed_port: int) -> None:
    ((key, data),) = [(key, data) for name, key, data in sections_naming(closed_port) if name == section]
    began = time.monotonic()
    async with nothing_left():
        with pytest.raises(StoreUnavailableError) as caught:
            async with open_replica(AppConfig.from_mapping(data)):
                pass
    assert time.monotonic() - began < 20
    lines = str(caught.value).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{key}: cannot reach postgresql://someone:***@127.0.0.1:{closed_port}/nothing: ")
    assert PASSWORD not in str(caught.value)
    assert type(caught.value.__cause__).__module__.startswith("psycopg")


@pytest.mark.parametrize("is_silent", [False, True])
async def test_a_mongodb_that_is_away_is_named(is_silent: bool, closed_port: int, silent_port: int) -> None:
    url = f"mongodb://someone:{PASSWORD}@127.0.0.1:{silent_port if is_silent else closed_port}/"

    async def says_what_is_wrong(seconds: float) -> bool:
        data = {
            **IN_MEMORY,
            "store": {"type": "mongo", "connection_string": url},
            "replica": {"connect_timeout_seconds": seconds},
        }
        began = time.monotonic()
        async with nothing_left():
            with pytest.raises(StoreUnavailableError) as caught:
                async with open_replica(AppConfig.from_mapping(data)):
                    pass
        took = time.monotonic() - began
        (line,) = str(caught.value).splitlines()
        assert line.startswith(f"store.connection_string: cannot reach {url.replace(PASSWORD, '***')}: ")
        reason = line.partition(f"{url.replace(PASSWORD, '***')}: ")[2]
        return reason.startswith("127.0.0.1:") and "configured timeouts" not in reason and took < 2 * seconds

    assert await for_one_of((2.0, 10.0), says_what_is_wrong)


@pytest.mark.parametrize("is_silent", [False, True])
async def test_a_redis_of_threads_that_is_away_is_named(is_silent: bool, closed_port: int, silent_port: int) -> None:
    url = f"redis://:{PASSWORD}@127.0.0.1:{silent_port if is_silent else closed_port}/0"
    threads = {"type": "redis", "connection_string": url}
    data = {**IN_MEMORY, "user_thread_mapping": threads, "replica": {"connect_timeout_seconds": 2}}
    began = time.monotonic()
    async with nothing_left():
        with pytest.raises(StoreUnavailableError) as caught:
            async with open_replica(AppConfig.from_mapping(data)):
                pass
    assert time.monotonic() - began < 20
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"user_thread_mapping.connection_string: cannot reach {url.replace(PASSWORD, '***')}: ")


@pytest.mark.parametrize("kind", ["redis", "mongo"])
async def test_a_replica_with_its_threads_elsewhere(kind: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("redis_url" if kind == "redis" else "mongo_url")
    places = (
        {"redis_key_prefix": request.getfixturevalue("key_prefix")}
        if kind == "redis"
        else {"mongo_database": request.getfixturevalue("mongo_database")}
    )
    config = AppConfig.from_mapping(
        {**IN_MEMORY, "user_thread_mapping": {"type": kind, "connection_string": url, **places}}
    )
    async with nothing_left(), open_replica(config) as replica, open_replica(config) as other:
        assert await replica.threads.hold("t", "ann")
        assert not await other.threads.hold("t", "bob")
        checked = {result.section: result for result in await replica.check()}
        assert checked["user_thread_mapping"].ok
        assert checked["user_thread_mapping"].detail.startswith(kind)


async def test_a_replica_with_its_store_in_mongodb(mongo_url: str, mongo_database: str) -> None:
    store = {"type": "mongo", "connection_string": mongo_url, "mongo_database": mongo_database}
    config = AppConfig.from_mapping({**IN_MEMORY, "store": store})
    async with nothing_left(), open_replica(config) as replica:
        await replica.store.aput(("n",), "k", {"v": 1})
        assert all(result.ok for result in await replica.check())
        async with open_replica(config) as other:
            item = await other.store.aget(("n",), "k")
            assert item is not None
            assert item.value == {"v": 1}


async def test_bridge_comes_first_and_each_server_has_one_line(closed_port: int, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        f"""\
database:
  backend: postgres
  postgres_url: {postgres(closed_port)}
stream_bridge:
  type: redis
  redis_url: redis://:{PASSWORD}@127.0.0.1:{closed_port}/0
""",
        encoding="utf-8",
    )
    async with nothing_left():
        with pytest.raises(StreamUnavailableError) as caught:
            async with open_replica(AppConfig.from_file(file)):
                pass
    bridge, database = str(caught.value).splitlines()
    assert bridge.startswith(
        f"{file}:6:14 stream_bridge.redis_url: cannot reach redis://:***@127.0.0.1:{closed_port}/0: "
    )
    assert database.startswith(f"{file}:3:17 database.postgres_url: cannot reach postgresql://someone:***@127.0.0.1:")
    assert PASSWORD not in str(caught.value)
    assert type(caught.value.__cause__).__module__.startswith("redis")


async def test_servers_that_do_not_answer_are_given_up_together(silent_port: int) -> None:
    data = {
        "database": {"backend": "postgres", "postgres_url": postgres(silent_port)},
        "stream_bridge": {"type": "redis", "redis_url": f"redis://127.0.0.1:{silent_port}/0"},
        "replica": {"connect_timeout_seconds": 0.5},
    }
    began = time.monotonic()
    async with nothing_left():
        with pytest.raises(StreamUnavailableError) as caught:
            async with open_replica(AppConfig.from_mapping(data)):
                pass
    assert time.monotonic() - began < 20
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "stream_bridge.redis_url",
        "database.postgres_url",
    ]
    assert "0.5 seconds" in str(caught.value)


async def test_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    data = {"database": {"backend": "sqlite", "sqlite_dir": str(tmp_path / "file")}}
    async with nothing_left():
        with pytest.raises(StoreUnavailableError, match=r"database\.sqlite_dir: cannot use "):
            async with open_replica(AppConfig.from_mapping(data)):
                pass


async def test_what_was_opened_is_closed_when_another_server_is_down(redis_url: str, closed_port: int) -> None:
    data = {
        "database": {"backend": "postgres", "postgres_url": postgres(closed_port)},
        "stream_bridge": {"type": "redis", "redis_url": redis_url},
    }
    async with nothing_left():
        with pytest.raises(StoreUnavailableError):
            async with open_replica(AppConfig.from_mapping(data)):
                pass


async def test_nothing_is_left_of_a_replica_on_servers(
    postgres_dsn: str, postgres_schema: str, redis_url: str, key_prefix: str, tmp_path: Path
) -> None:
    config = AppConfig.from_mapping(
        {
            "database": {"backend": "postgres", "postgres_url": postgres_dsn, "postgres_schema": postgres_schema},
            "stream_bridge": {"type": "redis", "redis_url": redis_url, "key_prefix": key_prefix},
            "memory": {"backend_config": {"storage_path": str(tmp_path)}},
        }
    )
    async with nothing_left(), open_replica(config) as replica:
        run = await replica.start_run(steps(one, checkpointer=replica.checkpointer), {}, thread_id="t", user_id="u")
        assert await run.wait() == "success"
        await replica.store.aput(("n",), "k", {"v": 1})
        assert all(result.ok for result in await replica.check())


async def test_six_first_starts_on_an_empty_schema(postgres_dsn: str, postgres_schema: str) -> None:
    data = {
        "database": {"backend": "postgres", "postgres_url": postgres_dsn, "postgres_schema": postgres_schema},
        "replica": {"connect_timeout_seconds": 60},
    }

    async def start(number: int) -> str:
        async with open_replica(AppConfig.from_mapping(data)) as replica:
            graph = steps(one, checkpointer=replica.checkpointer)
            run = await replica.start_run(graph, {}, thread_id=f"t{number}", user_id="u")
            return await run.wait()

    assert await asyncio.gather(*(start(number) for number in range(6))) == ["success"] * 6


async def test_six_first_starts_on_an_empty_folder(tmp_path: Path) -> None:
    data = {"database": {"backend": "sqlite", "sqlite_dir": str(tmp_path / "new" / "folder")}}

    async def start(number: int) -> str:
        async with open_replica(AppConfig.from_mapping(data)) as replica:
            graph = steps(one, checkpointer=replica.checkpointer)
            run = await replica.start_run(graph, {}, thread_id=f"t{number}", user_id="u")
            return await run.wait()

    assert await asyncio.gather(*(start(number) for number in range(6))) == ["success"] * 6
