"""PostgresStore behind a pooler that lends its connections for one transaction at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import psycopg
import pytest
from langgraph.store.base import PutOp
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from deerflow_replica.errors import ConfigError
from deerflow_replica.store import PostgresStore
from transaction_pooler import TransactionPooler, startup_message, transaction_pooler

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pooler(postgres_dsn: str) -> AsyncIterator[TransactionPooler]:
    """One connection to the server, whoever comes."""
    server = conninfo_to_dict(postgres_dsn)
    if server.get("password"):
        pytest.skip("the pooler of the tests cannot answer a password request")
    host, port = str(server.get("host") or "127.0.0.1"), int(server.get("port") or 5432)
    startup = startup_message(
        user=str(server.get("user") or "postgres"), database=str(server.get("dbname") or "postgres")
    )
    async with transaction_pooler(host, port, startup) as pooler:
        yield pooler


@pytest.fixture
def dsn(postgres_dsn: str, pooler: TransactionPooler) -> str:
    return make_conninfo(postgres_dsn, host="127.0.0.1", port=pooler.port)


async def test_everything_works_without_prepared_statements(
    dsn: str, pooler: TransactionPooler, postgres_schema: str, has_vectors: bool
) -> None:
    def embed(texts: Sequence[str]) -> list[list[float]]:
        return [[float(len(text)), 1.0] for text in texts]

    keywords: Any = {"schema": postgres_schema, "prepare_threshold": None, "ttl": {"omit_expired": True}}
    if has_vectors:
        keywords["index"] = {"dims": 2, "embed": embed, "fields": ["t"]}
    async with PostgresStore(dsn, **keywords) as one, PostgresStore(dsn, **keywords) as two:
        await asyncio.gather(one.asetup(), two.asetup())
        for turn in range(3):
            for store in (one, two):
                await asyncio.gather(
                    *(store.aput(("a",), str(n), {"t": "x" * n, "turn": turn}, ttl=60) for n in range(10)),
                    *(store.aget(("a",), str(n)) for n in range(10)),
                    *(store.asearch(("a",), filter={"turn": n}) for n in range(5)),
                    *(store.asearch(("a",), query="xxx") for n in range(3)),
                    store.acount(),
                    store.alist_namespaces(),
                )
                await store.abatch([PutOp(("b",), "k", {"t": "y"}), PutOp(("a",), "3", None)])
                await store.aupdate(("sum",), "k", lambda value: {"n": (value or {"n": 0})["n"] + 1})
                await store.asweep_ttl()
        item = await one.aget(("sum",), "k")
        assert item is not None
        assert item.value == {"n": 6}
        assert pooler.clients > 2


async def test_nothing_is_left_on_a_connection(dsn: str, pooler: TransactionPooler, postgres_schema: str) -> None:
    async with PostgresStore(dsn, schema=postgres_schema, prepare_threshold=None) as store:
        await store.asetup()
        await asyncio.gather(*(store.aput(("a",), str(n), {}) for n in range(5)), store.asearch(("a",)))
        await store.asweep_ttl()

    def left() -> list[Any]:
        with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
            questions = (
                "SELECT count(*) FROM pg_prepared_statements",
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
                "SELECT count(*) FROM pg_settings WHERE source = 'session' AND name IN ('search_path', 'timezone')",
                "SELECT count(*) FROM pg_listening_channels()",
            )
            return [connection.execute(question.encode()).fetchone() for question in questions]

    assert await asyncio.to_thread(left) == [(0,)] * 4


async def test_prepared_statements_are_told_to_be_what_is_wrong(dsn: str, postgres_schema: str) -> None:
    """Two clients of one connection meet each other's names."""

    async def read(stores: Sequence[PostgresStore]) -> None:
        for _ in range(5):
            for place, store in enumerate(stores):
                await (store.acount() if place else store.aget(("a",), "k"))

    async with PostgresStore(dsn, schema=postgres_schema) as one, PostgresStore(dsn, schema=postgres_schema) as two:
        await one.asetup()
        with pytest.raises(ConfigError, match="prepare_threshold"):
            await read([one, two])
