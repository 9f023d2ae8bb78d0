"""Servers, fresh names in them, and what every test run has in common.

`POSTGRES_DSN`, `REDIS_URL` and `MONGO_URL` point the tests at servers of yours; without them private ones are started,
that for MongoDB where there is Go to build it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fresh_places import fresh_prefix, fresh_schema
from threads_left import NewThreads, new_threads_since_now

# One example more or less slow says nothing about the code; in CI the same examples run every time.
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, max_examples=40)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session", autouse=True)
def no_process_stays() -> Iterator[None]:
    """A test that left a process behind fails the run. The first fixture, so the last to be torn down."""
    yield
    left = [f"{pid}: {command}" for pid, command in child_processes() if "multiprocessing" not in command]
    assert not left, f"processes left behind by tests: {left}"


def child_processes() -> Iterator[tuple[int, str]]:
    """Where /proc tells."""
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text().split():
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            yield int(pid), command.strip()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """A PostgreSQL for the whole run; take `postgres_schema` for a place of your own in it."""
    if dsn := os.environ.get("POSTGRES_DSN"):
        yield dsn
        return
    from deerflow_replica._drivers.embedded import EmbeddedPostgres

    with EmbeddedPostgres(settings={"max_connections": 300}) as server:
        yield server.dsn


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis or Valkey for the whole run; take `key_prefix` for keys of your own in it."""
    if url := os.environ.get("REDIS_URL"):
        yield url
        return
    from deerflow_replica._drivers.embedded import EmbeddedValkey

    with EmbeddedValkey() as server:
        yield server.url


@pytest.fixture(scope="session")
def mongo_url() -> Iterator[str]:
    """A MongoDB, or what speaks its protocol, for the whole run; take `mongo_database` for a place of your own."""
    if url := os.environ.get("MONGO_URL"):
        yield url
        return
    from mongo_server import CannotBuildError, FerretDB

    try:
        server = FerretDB()
    except CannotBuildError as error:
        pytest.skip(str(error))
    with server:
        yield server.url


@pytest.fixture
def mongo_database(mongo_url: str) -> Iterator[str]:
    """The name of a database that no other test uses; dropped after the test."""
    from pymongo import MongoClient

    name = f"test_{uuid.uuid4().hex[:12]}"
    yield name
    with MongoClient[dict[str, object]](mongo_url) as client:
        client.drop_database(name)


@pytest.fixture
def postgres_schema(postgres_dsn: str) -> Iterator[str]:
    """The name of a new, empty schema; dropped after the test."""
    with fresh_schema(postgres_dsn) as name:
        yield name


@pytest.fixture
def key_prefix(redis_url: str) -> Iterator[str]:
    """A prefix that no other test uses; its keys are removed after the test."""
    with fresh_prefix(redis_url) as prefix:
        yield prefix


@pytest.fixture
def new_threads() -> NewThreads:
    return new_threads_since_now()
