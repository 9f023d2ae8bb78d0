"""Lists, cursors, filters and counts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ..threads.base import ThreadMap
from ..threads.paging import Filters, binding, write_cursor
from ._threads_common import HOSTILE_IDS, ThreadMapFixtures, walked

_ORDERS: tuple[dict[str, Any], ...] = tuple(
    {"sort_by": sort_by, "sort_order": sort_order}
    for sort_by in ("updated_at", "created_at")
    for sort_order in ("desc", "asc")
)


async def _ids(threads: ThreadMap, **query: Any) -> list[str]:
    return [record.thread_id for record in (await threads.list("ann", **query)).items]


class ListContract(ThreadMapFixtures):
    async def test_newest_first(self, threads: ThreadMap) -> None:
        for thread_id in ("a", "b", "c"):
            await threads.claim(thread_id, "ann")
        await threads.claim("foreign", "bob")
        await threads.update("a", user_id="ann")
        assert await _ids(threads) == ["a", "c", "b"]
        assert await _ids(threads, sort_order="asc") == ["b", "c", "a"]
        assert await _ids(threads, sort_by="created_at") == ["c", "b", "a"]
        assert await _ids(threads, sort_by="created_at", sort_order="asc") == ["a", "b", "c"]

    @pytest.mark.parametrize("order", _ORDERS, ids=lambda order: "-".join(order.values()))
    async def test_ties_go_by_code_point(self, threads: ThreadMap, order: dict[str, Any]) -> None:
        """One `claim_many` gives all its threads one time."""
        claims = await threads.claim_many(HOSTILE_IDS, "ann")
        assert len({claim.record.created_at for claim in claims if claim.record}) == 1
        expected = sorted(HOSTILE_IDS, reverse=order["sort_order"] == "desc")
        assert await _ids(threads, **order) == expected
        for limit in (1, 3, len(expected)):
            assert await walked(threads, "ann", limit=limit, **order) == expected

    async def test_pages(self, threads: ThreadMap) -> None:
        await threads.claim_many([f"t{number}" for number in range(6)], "ann")
        first = await threads.list("ann", limit=3)
        assert (len(first.items), first.next_cursor is None) == (3, False)
        second = await threads.list("ann", limit=3, cursor=first.next_cursor)
        assert (len(second.items), second.next_cursor) == (3, None)
        assert (await threads.list("ann", limit=6)).next_cursor is None
        assert await _ids(threads, limit=2, cursor=first.next_cursor) == [r.thread_id for r in second.items[:2]]
        assert await _ids(threads, limit=2, offset=3) == [r.thread_id for r in second.items[:2]]
        assert await _ids(threads, offset=2**80) == []
        assert (await threads.list("nobody")).items == ()

    @pytest.mark.parametrize("order", _ORDERS, ids=lambda order: "-".join(order.values()))
    async def test_pages_of_what_matches(self, threads: ThreadMap, order: dict[str, Any]) -> None:
        for number in range(20):
            await threads.claim(
                f"t{number:02}", "ann", status="x" if number % 2 else "idle", metadata={"n": number % 3}
            )
        whole = await _ids(threads, **order)
        ids = [f"t{number:02}" for number in range(3, 15)]
        queries: dict[str, Any] = {
            "status": ({"status": "x"}, lambda number: number % 2 == 1),
            "metadata": ({"metadata": {"n": 0}}, lambda number: number % 3 == 0),
            "ids": ({"ids": [*ids, "missing"]}, lambda number: 3 <= number < 15),
            "all": ({"status": "x", "metadata": {"n": 0}, "ids": ids}, lambda number: number in (3, 9)),
        }
        for query, holds in queries.values():
            expected = [thread_id for thread_id in whole if holds(int(thread_id[1:]))]
            for limit in (1, 3, len(expected), 1000):
                assert await walked(threads, "ann", limit=limit, **query, **order) == expected
            assert await _ids(threads, limit=2, offset=1, **query, **order) == expected[1:3]

    async def test_ids_of_others_are_not_shown(self, threads: ThreadMap) -> None:
        await threads.claim_many(["a", "b"], "ann")
        await threads.claim("hers", "bob")
        await threads.delete("b", user_id="ann")
        assert await _ids(threads, ids=["a", "b", "hers", "missing"]) == ["a"]

    async def test_a_cursor_survives_its_thread(self, threads: ThreadMap) -> None:
        await threads.claim_many(["a", "b", "c", "d"], "ann")
        page = await threads.list("ann", limit=2, sort_order="asc")
        await threads.delete("b", user_id="ann")
        assert await _ids(threads, cursor=page.next_cursor, sort_order="asc") == ["c", "d"]

    async def test_a_cursor_belongs_to_one_list(self, threads: ThreadMap) -> None:
        await threads.claim_many(["a", "b", "c"], "ann", metadata={"k": 1})
        query: dict[str, Any] = {"limit": 1, "status": "idle", "metadata": {"k": 1}, "ids": ["a", "b", "c"]}
        cursor = (await threads.list("ann", **query)).next_cursor
        assert cursor is not None
        assert cursor.isascii()
        more: dict[str, Any] = {**query, "limit": 5}
        assert (await threads.list("ann", cursor=cursor, **more)).items
        others: tuple[dict[str, Any], ...] = (
            {"sort_by": "created_at"},
            {"sort_order": "asc"},
            {"status": None},
            {"metadata": {"k": True}},
            {"metadata": None},
            {"ids": ["a"]},
            {"ids": None},
            {"offset": 1},
        )
        for change in others:
            with pytest.raises(ValueError, match="cursor"):
                await threads.list("ann", cursor=cursor, **query | change)
        with pytest.raises(ValueError, match="cursor"):
            await threads.list("bob", cursor=cursor, **query)
        with pytest.raises(ValueError, match="cursor"):
            await threads.for_tenant("blue").list("ann", cursor=cursor, **query)

    async def test_a_damaged_cursor(self, threads: ThreadMap) -> None:
        await threads.claim_many(["a", "b"], "ann")
        cursor = (await threads.list("ann", limit=1)).next_cursor
        assert cursor is not None
        damaged: list[Any] = [cursor[:cut] for cut in range(len(cursor))]
        damaged += [cursor[:i] + ("A" if cursor[i] != "A" else "B") + cursor[i + 1 :] for i in range(len(cursor))]
        damaged += [cursor + "A", cursor.upper(), f" {cursor}", "ü", 7, b"x"]
        for bad in damaged:
            with pytest.raises(ValueError, match="cursor"):
                await threads.list("ann", cursor=bad)

    @pytest.mark.parametrize(
        "place", [(2**70, "x"), (-(2**70), "x"), ("s", "x"), ([], "x"), (1,), (1, None), (1, "\x00"), (1.5, "a"), None]
    )
    async def test_a_forged_cursor(self, threads: ThreadMap, place: Any) -> None:
        await threads.claim_many(["a", "b"], "ann")
        bound_to = binding("default", "ann", "updated_at", "desc", Filters(None, "{}", None))
        with pytest.raises(ValueError, match=r"cursor|thread_id"):
            await threads.list("ann", cursor=write_cursor(place, bound_to))

    async def test_numbers_are_equal_by_their_digits(self, threads: ThreadMap) -> None:
        await threads.claim("t", "ann", metadata={"k": [1e23, -0.0, 2**53 + 1]})
        assert await threads.count("ann", metadata={"k": [10**23, 0, 2**53 + 1]}) == 1
        assert await threads.count("ann", metadata={"k": [10**23, 0, 2.0**53]}) == 0

    async def test_filters(self, threads: ThreadMap) -> None:
        await threads.claim("one", "ann", status="busy", metadata={"k": 1, "n": None})
        await threads.claim("true", "ann", metadata={"k": True})
        await threads.claim("text", "ann", metadata={"k": "1"})
        await threads.claim("deep", "ann", metadata={"k": {"a": [1, {"b": True}]}, "x": 1})
        await threads.claim("none", "ann")

        async def found(**query: Any) -> list[str]:
            count = await threads.count("ann", **query)
            ids = await _ids(threads, sort_by="created_at", sort_order="asc", **query)
            assert count == len(ids)
            return ids

        assert await found(status="busy") == ["one"]
        assert await found(status="BUSY") == []
        assert await found(metadata={"k": 1}) == ["one"]
        assert await found(metadata={"k": 1.0}) == ["one"]
        assert await found(metadata={"k": True}) == ["true"]
        assert await found(metadata={"k": "1"}) == ["text"]
        assert await found(metadata={"n": None}) == ["one"]
        assert await found(metadata={"missing": None}) == []
        assert await found(metadata={"k": {"a": [1, {"b": True}]}}) == ["deep"]
        assert await found(metadata={"k": {"a": [1, {"b": 1}]}}) == []
        assert await found(metadata={"k": {"a": [1]}}) == []
        assert await found(metadata={"k": {}}) == []
        assert await found(metadata={"x": 1, "k": 1}) == []
        assert await found(metadata={"k": 1, "n": None}, status="busy") == ["one"]
        assert await found(metadata={}) == ["one", "true", "text", "deep", "none"]
        assert await _ids(threads, ids=["none", "one", "missing"], status="busy") == ["one"]
        assert await _ids(threads, ids=[]) == []

    @pytest.mark.parametrize("key", ["a.b", "$where", "", "$.k", "k[0]", "%", "'", '"', "\x01", "ü"], ids=repr)
    async def test_keys_are_literal(self, threads: ThreadMap, key: str) -> None:
        await threads.claim("t", "ann", metadata={key: "v"})
        await threads.claim("other", "ann", metadata={"a": {"b": "v"}, "k": ["v"]})
        assert await _ids(threads, metadata={key: "v"}) == ["t"]
        assert await threads.count("ann", metadata={key: {"$ne": None}}) == 0

    @pytest.mark.parametrize(
        "bad",
        [
            {"limit": 0},
            {"limit": 1001},
            {"limit": True},
            {"limit": 1.0},
            {"offset": -1},
            {"offset": False},
            {"sort_by": "thread_id"},
            {"sort_order": "DESC"},
            {"status": ""},
            {"ids": "text"},
        ],
        ids=repr,
    )
    async def test_bad_queries(self, threads: ThreadMap, bad: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"limit|offset|sort_by|sort_order|status|ids"):
            await threads.list("ann", **bad)

    async def test_a_walk_beside_writers(self, threads: ThreadMap, other: ThreadMap) -> None:
        stays = [f"stays {number:03}" for number in range(60)]
        moves = [f"moves {number:03}" for number in range(60)]
        await threads.claim_many([f for pair in zip(stays, moves, strict=True) for f in pair], "ann")

        async def write() -> None:
            for number, thread_id in enumerate(moves):
                await other.update(thread_id, user_id="ann")
                await other.claim(f"new {number}", "ann")
                if number % 3 == 0:
                    await other.delete(thread_id, user_id="ann")

        by_creation, by_update, _ = await asyncio.gather(
            walked(threads, "ann", beside_writers=True, limit=7, sort_by="created_at", sort_order="asc"),
            walked(threads, "ann", beside_writers=True, limit=7),
            write(),
        )
        lasting = [thread_id for number, thread_id in enumerate(moves) if number % 3]
        assert [seen for seen in by_creation if seen in {*stays, *lasting}] == sorted([*stays, *lasting])
        assert len(set(by_update)) == len(by_update)
        assert set(stays) <= set(by_update)
