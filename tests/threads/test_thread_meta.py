"""The map over DeerFlow's own thread metadata: the contract, and what is different."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.memory import InMemoryStore

from deerflow_replica.errors import StoreUnavailableError, VersionConflictError
from deerflow_replica.testing.threads import Build, ThreadMapContract
from deerflow_replica.threads import ANY_USER, ThreadMetaThreadMap
from deerflow_replica.threads.thread_meta_rows import micros_of

pytestmark = pytest.mark.anyio

STAND_INS = Path(__file__).parents[1] / "stand_ins"


@pytest.fixture
def deerflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module with DeerFlow's stores; nothing of it is loaded before the test, nor after it."""
    monkeypatch.syspath_prepend(STAND_INS)
    kept = _forgotten()
    yield importlib.import_module("deerflow.persistence.thread_meta")
    _forgotten()
    sys.modules.update(kept)


def _forgotten() -> dict[str, Any]:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "deerflow"}


@pytest.fixture(params=["sql", "langgraph"])
def store(request: pytest.FixtureRequest, deerflow: Any, tmp_path: Path) -> Iterator[Any]:
    if request.param == "langgraph":
        yield deerflow.MemoryThreadMetaStore(InMemoryStore())
        return
    with closing(deerflow.ThreadMetaRepository(tmp_path / "deerflow.db")) as store:
        yield store


@pytest.fixture
async def threads(store: Any) -> AsyncIterator[ThreadMetaThreadMap]:
    async with ThreadMetaThreadMap(store) as threads:
        yield threads


@pytest.fixture
async def shared(store: Any) -> AsyncIterator[ThreadMetaThreadMap]:
    async with ThreadMetaThreadMap(store, unowned="shared") as threads:
        yield threads


class _Contract(ThreadMapContract):
    @pytest.fixture
    def build(self, store: Any) -> Build:
        return partial(ThreadMetaThreadMap, store)


# No tombstones, no expiry, one tenant; versions that are times; one order; the loop of the store alone.
_DIFFERENT = (
    "test_a_stranger_learns_nothing",
    "test_to_hold_a_thread_is_to_claim_it",
    "test_access",
    "test_delete_leaves_a_tombstone",
    "test_a_tombstone_ends",
    "test_no_tombstone",
    "test_no_delete_removes_what_was_claimed_after_it",
    "test_a_sweep_drops_old_tombstones",
    "test_a_thread_expires",
    "test_a_default_ttl",
    "test_touching_renews",
    "test_the_longest_ttl",
    "test_a_busy_thread_does_not_expire",
    "test_sweeps_add_up",
    "test_bad_settings",
    "test_tenants_are_apart",
    "test_bad_tenants",
    "test_tenants_share_nothing",
    "test_tenants_are_swept_apart",
    "test_the_first_claim_makes_the_thread",
    "test_an_own_thread_is_granted_and_left_alone",
    "test_transfer",
    "test_fields",
    "test_a_touch",
    "test_touch_is_an_update_without_fields",
    "test_versions",
    "test_one_compare_and_set_wins",
    "test_concurrent_merges_all_survive",
    "test_newest_first",
    "test_ties_go_by_code_point",
    "test_a_cursor_survives_its_thread",
    "test_a_cursor_belongs_to_one_list",
    "test_filters",
    "test_a_walk_beside_writers",
    "test_a_thread_that_expired_is_deleted_as_of_then",
    "test_pages_leave_out_what_has_expired",
    "test_an_update_that_touches_nothing",
    "test_what_is_removed_goes_last",
    "test_pages_of_what_matches",
    "test_ids_of_others_are_not_shown",
    "test_any_loop_and_any_thread",
    "test_a_sync_call_on_the_loop_that_opened_the_map",
)
TestContract = type("TestContract", (_Contract,), dict.fromkeys(_DIFFERENT))


def test_what_is_different_is_in_the_contract() -> None:
    assert all(callable(getattr(ThreadMapContract, name)) for name in _DIFFERENT)


async def test_a_claim_is_a_row_of_deerflows(threads: ThreadMetaThreadMap, store: Any) -> None:
    claim = await threads.claim("t", "ann", assistant_id="a", display_name="Plans", status="busy", metadata={"a": [1]})
    assert claim.created
    assert claim.record is not None
    row = await store.get("t", user_id="ann")
    assert {name: row[name] for name in ("assistant_id", "display_name", "status", "metadata", "user_id")} == {
        "assistant_id": "a",
        "display_name": "Plans",
        "status": "busy",
        "metadata": {"a": [1]},
        "user_id": "ann",
    }
    assert claim.record.updated_at == datetime.fromisoformat(row["updated_at"])
    assert claim.record.version == micros_of(row["updated_at"])
    assert await threads.claim("t", "ann", metadata={"b": 1}) == type(claim)("t", True, False, claim.record)
    refused = await threads.claim("t", "bob")
    assert (refused.granted, refused.record) == (False, None)
    assert await threads.hold("t", "ann")
    assert not await threads.hold("t", "bob")
    assert await threads.hold("u", "bob")


async def test_a_thread_that_deerflow_made(threads: ThreadMetaThreadMap, store: Any) -> None:
    await store.create("t", user_id="ann", metadata={"a": 1})
    assert await threads.owner_of("t") == "ann"
    assert not await threads.hold("t", "bob")
    assert [record.metadata for record in (await threads.list("ann")).items] == [{"a": 1}]


async def test_deleted_is_as_if_it_never_was(threads: ThreadMetaThreadMap) -> None:
    await threads.claim("t", "ann")
    assert not await threads.delete("t", user_id="bob")
    assert await threads.delete("t", user_id="ann")
    assert not await threads.delete("t", user_id="ann")
    assert await threads.check_access("t", None, require_existing=False)
    assert (await threads.claim("t", "bob")).created
    assert await threads.sweep() == 0


async def test_updates(threads: ThreadMetaThreadMap, store: Any) -> None:
    await threads.claim("t", "ann", display_name="x", metadata={"a": 1, "b": 2, "n": None})
    before = await threads.get("t", user_id="ann")
    assert before is not None
    after = await threads.update("t", user_id="ann", display_name="y", status="busy", metadata={"a": True})
    assert after is not None
    assert (after.display_name, after.status, after.metadata) == ("y", "busy", {"a": True, "b": 2, "n": None})
    assert after.updated_at > before.updated_at
    assert after == await threads.get("t", user_id="ann")
    removed = await threads.update("t", user_id="ann", remove_metadata=["a", "missing"], touch=False)
    assert removed is not None
    assert (removed.metadata, removed.updated_at) == ({"a": None, "b": 2, "n": None}, after.updated_at)
    replaced = await threads.update("t", user_id=ANY_USER, metadata={"c": 3}, replace_metadata=True, display_name=None)
    assert replaced is not None
    assert replaced.metadata == {"a": None, "b": None, "n": None, "c": 3}
    assert replaced.display_name is None
    assert await threads.touch("t", user_id="ann")
    assert not await threads.touch("t", user_id="bob")
    assert await threads.update("t", user_id="bob", status="x") is None
    touched = await threads.get("t", user_id="ann")
    assert touched is not None
    assert touched.updated_at > replaced.updated_at
    assert (await store.get("t", user_id=None))["status"] == "busy"


async def test_versions_are_times(threads: ThreadMetaThreadMap) -> None:
    record = (await threads.claim("t", "ann")).record
    assert record is not None
    after = await threads.update("t", user_id="ann", status="one", if_version=record.version)
    assert after is not None
    assert after.version > record.version
    with pytest.raises(VersionConflictError) as conflict:
        await threads.update("t", user_id="ann", status="two", if_version=record.version)
    assert conflict.value.current == after
    assert not await threads.transfer("t", "ann", "bob", if_version=record.version)


async def test_transfer(threads: ThreadMetaThreadMap) -> None:
    await threads.claim("t", "ann")
    assert not await threads.transfer("t", "bob", "cat")
    assert await threads.transfer("t", "ann", "ann")
    assert await threads.transfer("t", "ann", "bob")
    assert await threads.owner_of("t") == "bob"
    assert [await threads.count(user) for user in ("ann", "bob")] == [0, 1]


async def test_what_deerflow_cannot_do(threads: ThreadMetaThreadMap) -> None:
    await threads.claim("t", "ann")
    for call in (
        threads.claim("n", "ann", ttl_seconds=5),
        threads.update("t", user_id="ann", ttl_seconds=5),
        threads.update("missing", user_id="ann", ttl_seconds=5),
        threads.update("t", user_id="ann", assistant_id="other"),
        threads.list("ann", sort_by="created_at"),
        threads.list("ann", sort_order="asc"),
        threads.list("ann", ids=["t"]),
    ):
        with pytest.raises(ValueError, match=r"ttl_seconds|assistant_id|sort_by|ids"):
            await call
    assert await threads.owner_of("n") is None
    assert threads.for_tenant("default").tenant == "default"
    with pytest.raises(ValueError, match="tenant"):
        threads.for_tenant("blue")


async def test_pages(threads: ThreadMetaThreadMap, store: Any) -> None:
    for number in range(12):
        await store.create(f"t{number:02}", user_id="ann", metadata={"even": number % 2 == 0})
    await store.create("hers", user_id="bob")
    whole = [row["thread_id"] for row in await store.search(user_id="ann")]
    queries: tuple[dict[str, Any], ...] = ({}, {"metadata": {"even": True}})
    for query in queries:
        wanted = [thread_id for thread_id in whole if not query or int(thread_id[1:]) % 2 == 0]
        seen, cursor = list[str](), None
        while True:
            page = await threads.list("ann", limit=4, cursor=cursor, **query)
            seen += [record.thread_id for record in page.items]
            if (cursor := page.next_cursor) is None:
                break
        assert seen == wanted
        assert await threads.count("ann", **query) == len(wanted)
        assert [r.thread_id for r in (await threads.list("ann", limit=2, offset=3, **query)).items] == wanted[3:5]
    with pytest.raises(ValueError, match="cursor"):
        await threads.list("bob", cursor=(await threads.list("ann", limit=4)).next_cursor)


async def test_deerflow_lists_what_is_pinned_first(deerflow: Any, tmp_path: Path) -> None:
    with closing(deerflow.ThreadMetaRepository(tmp_path / "deerflow.db")) as store:
        async with ThreadMetaThreadMap(store) as threads:
            for thread_id in ("a", "b", "c"):
                await threads.claim(thread_id, "ann")
            await threads.update("a", user_id="ann", metadata={"pinned": True}, touch=False)
            assert [record.thread_id for record in (await threads.list("ann")).items] == ["a", "c", "b"]


async def test_rows_of_nobody_are_hidden(threads: ThreadMetaThreadMap, store: Any) -> None:
    await store.create("old", user_id=None)
    assert await threads.owners_of(["old", "missing"]) == {"old": None}
    assert await threads.owner_of("old") is None
    refused = await threads.claim("old", "ann")
    assert (refused.granted, refused.record) == (False, None)
    assert not await threads.hold("old", "ann")
    assert await threads.get("old", user_id="ann") is None
    for required in (True, False):
        assert not await threads.check_access("old", "ann", require_existing=required)
        assert not await threads.check_access("old", None, require_existing=required)
    seen = await threads.get("old", user_id=ANY_USER)
    assert seen is not None
    assert seen.user_id is None
    assert await threads.update("old", user_id=ANY_USER, status="x") is None
    assert not await threads.delete("old", user_id=ANY_USER)
    assert (await store.get("old", user_id=None))["user_id"] is None


async def test_rows_of_nobody_are_shared(shared: ThreadMetaThreadMap, store: Any) -> None:
    await store.create("old", user_id=None, metadata={"a": 1})
    for user in ("ann", "bob"):
        claim = await shared.claim("old", user)
        assert (claim.granted, claim.created) == (True, False)
        assert claim.record is not None
        assert claim.record.user_id is None
        assert await shared.hold("old", user)
        assert await shared.get("old", user_id=user) == claim.record
        assert await shared.check_access("old", user)
        assert await shared.count(user) == 0
    assert not await shared.check_access("old", None)
    assert await shared.update("old", user_id="ann", status="x") is None
    assert not await shared.transfer("old", "ann", "bob")
    assert await shared.owners_of(["old"]) == {"old": None}
    await shared.claim("hers", "bob")
    assert await shared.get("hers", user_id="ann") is None
    assert not await shared.check_access("hers", "ann")


async def test_a_create_that_fails_for_a_row_that_is_there(threads: ThreadMetaThreadMap, store: Any) -> None:
    """Another process made it between the look and the create."""
    get, made = store.get, list[Any]()

    async def late(thread_id: str, **keywords: Any) -> Any:
        found = await get(thread_id, **keywords)
        if found is None and not made:
            made.append(await store.create(thread_id, user_id="bob"))
        return found

    store.get = late
    if type(store).__name__ == "ThreadMetaRepository":
        assert not (await threads.claim("t", "ann")).granted
        assert await threads.owner_of("t") == "bob"
    else:  # it overwrites
        assert (await threads.claim("t", "ann")).granted


async def test_a_store_that_is_away(threads: ThreadMetaThreadMap, store: Any) -> None:
    await threads.claim("t", "ann")

    async def fail(*args: Any, **keywords: Any) -> Any:
        raise ConnectionError("no server")

    store.create = fail
    with pytest.raises(StoreUnavailableError):
        await threads.claim("n", "ann")
    store.get = store.search = fail
    for call in (threads.owner_of("t"), threads.list("ann"), threads.touch("t", user_id="ann"), threads.hold("t", "b")):
        with pytest.raises(StoreUnavailableError, match="ConnectionError") as raised:
            await call
        assert isinstance(raised.value.__cause__, ConnectionError)


async def test_all_maps_over_one_store_take_turns(deerflow: Any) -> None:
    """Of a store that overwrites on a second create, with a database that takes its time."""

    class Slow(InMemoryStore):
        async def aget(self, *args: Any, **keywords: Any) -> Any:
            found = await super().aget(*args, **keywords)
            await asyncio.sleep(0)
            return found

    store = deerflow.MemoryThreadMetaStore(Slow())
    async with ThreadMetaThreadMap(store) as one, ThreadMetaThreadMap(store) as two:
        claims = await asyncio.gather(*((one, two)[i % 2].claim("t", f"u{i}") for i in range(10)))
        assert sum(claim.created for claim in claims) == sum(claim.granted for claim in claims) == 1
        merges = ((one, two)[i % 2].update("t", user_id=ANY_USER, metadata={str(i): i}) for i in range(10))
        assert all(await asyncio.gather(*merges))
        record = await one.get("t", user_id=ANY_USER)
        assert record is not None
        assert len(record.metadata) == 10


async def test_another_loop_is_refused_and_threads_are_served(threads: ThreadMetaThreadMap) -> None:
    await threads.claim("t", "ann")
    assert await asyncio.to_thread(threads.runner.call, threads.owner_of("t")) == "ann"
    with pytest.raises(RuntimeError, match="loop"):
        await asyncio.to_thread(lambda: asyncio.run(threads.owner_of("t")))


@pytest.mark.parametrize(
    ("told", "micros"),
    [
        ("1970-01-01T00:00:01.000001+00:00", 1_000_001),
        ("1970-01-01T02:00:01+02:00", 1_000_000),
        ("1970-01-01T00:00:01", 1_000_000),
        ("1970-01-01T00:00:01Z", 1_000_000),
        ("1700000000.5", 1_700_000_000_500_000),
        (1_700_000_000, 1_700_000_000_000_000),
        (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=1), 1_000_000),
        ("", 0),
        (None, 0),
        ("nan", 0),
        ("yesterday", 0),
    ],
    ids=repr,
)
def test_times_as_deerflow_has_told_them(told: object, micros: int) -> None:
    assert micros_of(told) == micros
