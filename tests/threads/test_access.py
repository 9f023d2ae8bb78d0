"""The one check before a graph is entered."""

from __future__ import annotations

from typing import Any

import pytest

from deerflow_replica import AppConfig, DeerFlowContext
from deerflow_replica.errors import StoreUnavailableError, ThreadOwnershipError
from deerflow_replica.threads import InMemoryThreadMap, claim_for_run

pytestmark = pytest.mark.anyio


@pytest.fixture
def threads() -> InMemoryThreadMap:
    return InMemoryThreadMap()


def context(user_id: str | None, thread_id: str = "t", **section: Any) -> DeerFlowContext:
    return DeerFlowContext(AppConfig().evolve({"user_thread_mapping": section}), thread_id, user_id=user_id)


async def test_a_user_claims_a_new_thread_and_keeps_it(threads: InMemoryThreadMap) -> None:
    await claim_for_run(threads, context("ann"))
    await claim_for_run(threads, context("ann"))
    assert await threads.owner_of("t") == "ann"
    with pytest.raises(ThreadOwnershipError) as refused:
        await claim_for_run(threads, context("bob"))
    assert refused.value.thread_id == "t"


async def test_switched_off(threads: InMemoryThreadMap) -> None:
    await threads.claim("t", "ann")
    await claim_for_run(threads, context("bob", enabled=False))
    await claim_for_run(threads, context("bob", thread_id="n", enabled=False))
    assert await threads.owner_of("n") is None
    with pytest.raises(ThreadOwnershipError):
        await claim_for_run(threads, context("bob", enabled=False), always=True)


@pytest.mark.parametrize("anonymous", ["open", "user", "deny"])
@pytest.mark.parametrize("thread_id", ["new", "live", "deleted", "default's"])
async def test_without_identity(threads: InMemoryThreadMap, anonymous: str, thread_id: str) -> None:
    await threads.claim_many(["live", "deleted"], "ann")
    await threads.delete("deleted", user_id="ann")
    await threads.claim("default's", "default")
    passes = {"open": {"new"}, "user": {"new", "default's"}, "deny": set[str]()}[anonymous]
    check = claim_for_run(threads, context(None, thread_id, anonymous=anonymous))
    if thread_id in passes:
        await check
    else:
        with pytest.raises(ThreadOwnershipError):
            await check
    owner = {"live": "ann", "default's": "default", "new": "default" if anonymous == "user" else None}.get(thread_id)
    assert await threads.owner_of(thread_id) == owner


async def test_it_fails_closed(threads: InMemoryThreadMap) -> None:
    await threads.close()
    for user_id in ("ann", None):
        with pytest.raises(StoreUnavailableError):
            await claim_for_run(threads, context(user_id))


async def test_an_unusable_thread_id_is_refused(threads: InMemoryThreadMap) -> None:
    with pytest.raises(ValueError, match="thread_id"):
        await claim_for_run(threads, context("ann", thread_id="x" * 256))
