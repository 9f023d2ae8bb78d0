"""What the page about stores shows works as it stands there."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from deerflow_replica.errors import VersionConflictError
from deerflow_replica.store import PostgresStore
from pages import blocks

pytestmark = pytest.mark.anyio


@pytest.mark.usefixtures("vectors")
async def test_the_page(postgres_dsn: str, postgres_schema: str) -> None:
    names: dict[str, Any] = {"user_id": "ann@example.org", "namespace": ("a",), "key": "k", "value": {"n": 1}}
    names["embed"] = lambda texts: [[1.0] * 1536 for _ in texts]
    names["change"] = lambda value: {"n": (value or {"n": 0})["n"] + 1}
    first, second, *others = blocks("store.md", {'"postgresql://..."': f"{postgres_dsn!r}, schema={postgres_schema!r}"})
    await run(first, names)
    async with PostgresStore(postgres_dsn, schema=postgres_schema) as names["store"]:
        assert await names["store"].acount(("users",)) == 2
        await names["store"].aput(("a",), "k", {"n": 0})
        with pytest.raises(VersionConflictError):  # deleted by a version that the line before has replaced
            await run(second, names)
    for block in others:
        await run(block, names)
    assert [item.value["content"] for item in names["found"]] == ["likes tea"]
    assert names["found"][0].score is not None
    assert names["MyStore"]("somewhere").ttl_config == {}
    assert "TestMyStore" in names


async def run(block: Any, names: dict[str, Any]) -> None:
    outcome = eval(block, names)  # noqa: S307  # our own page
    if inspect.isawaitable(outcome):
        await outcome
