"""Updates, versions, bad values, and the life of a map."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any

import pytest

from ..errors import StoreUnavailableError, VersionConflictError
from ..threads.base import ThreadMap
from ..threads.values import ThreadRecord
from ._threads_common import Build, ThreadMapFixtures, claimed


def _cycle() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["itself"] = value
    return value


class UpdateContract(ThreadMapFixtures):
    async def test_fields(self, threads: ThreadMap, other: ThreadMap) -> None:
        before = await claimed(threads, "t", "ann", assistant_id="agent", display_name="x", metadata={"a": 1, "b": {}})
        after = await other.update("t", user_id="ann", display_name="y", status="busy", metadata={"b": None, "c": 3})
        assert after is not None
        assert (after.display_name, after.status, after.assistant_id) == ("y", "busy", "agent")
        assert after.metadata == {"a": 1, "b": None, "c": 3}
        assert (after.version, after.created_at) == (2, before.created_at)
        assert after.updated_at > before.updated_at
        assert await threads.get("t", user_id="ann") == after
        cleared = await threads.update("t", user_id="ann", display_name=None, remove_metadata=["a", "b", "nothing"])
        assert cleared is not None
        assert (cleared.display_name, cleared.metadata) == (None, {"c": 3})
        replaced = await threads.update("t", user_id="ann", metadata={"d": 4}, replace_metadata=True)
        assert replaced is not None
        assert replaced.metadata == {"d": 4}

    async def test_a_touch(self, threads: ThreadMap) -> None:
        record = await claimed(threads, "t", "ann", metadata={"a": 1})
        for version in range(2, 30):
            touched = await threads.update("t", user_id="ann")
            assert touched is not None
            assert touched.updated_at > record.updated_at
            assert (touched.version, touched.metadata) == (version, {"a": 1})
            record = touched
        still = await threads.update("t", user_id="ann", status="s", touch=False)
        assert still is not None
        assert (still.updated_at, still.version) == (record.updated_at, 30)

    async def test_an_update_that_touches_nothing(self, threads: ThreadMap) -> None:
        record = await claimed(threads, "t", "ann", metadata={"a": 1})
        assert await threads.update("t", user_id="ann", touch=False) == replace(record, version=2)

    async def test_what_is_removed_goes_last(self, threads: ThreadMap) -> None:
        await threads.claim("t", "ann", metadata={"a": {"x": 1}, "b": 2})
        merged = await threads.update("t", user_id="ann", metadata={"a": {"y": 1}, "c": 3}, remove_metadata=["b", "c"])
        assert merged is not None
        assert merged.metadata == {"a": {"y": 1}}
        replaced = await threads.update(
            "t", user_id="ann", metadata={"d": 4, "e": 5}, replace_metadata=True, remove_metadata=["e"]
        )
        assert replaced is not None
        assert replaced.metadata == {"d": 4}
        emptied = await threads.update("t", user_id="ann", replace_metadata=True)
        assert emptied is not None
        assert emptied.metadata == {}

    async def test_touch_is_an_update_without_fields(self, threads: ThreadMap) -> None:
        record = await claimed(threads, "t", "ann", metadata={"a": 1}, ttl_seconds=100)
        assert await threads.touch("t", user_id="bob") is False
        assert await threads.touch("missing", user_id="ann") is False
        assert await threads.get("t", user_id="ann") == record
        assert await threads.touch("t", user_id="ann") is True
        touched = await threads.get("t", user_id="ann")
        assert touched is not None
        assert touched.updated_at > record.updated_at
        assert touched.expires_at is not None
        assert record.expires_at is not None
        assert touched.expires_at > record.expires_at
        assert (touched.version, touched.metadata) == (2, {"a": 1})
        assert (await threads.list("ann")).items == (touched,)

    async def test_an_update_never_makes_a_thread(self, threads: ThreadMap) -> None:
        assert await threads.update("t", user_id="ann", status="x") is None
        assert await threads.check_access("t", "bob", require_existing=False)

    async def test_versions(self, threads: ThreadMap) -> None:
        await threads.claim("t", "ann")
        assert await threads.update("t", user_id="ann", status="one", if_version=1) is not None
        with pytest.raises(VersionConflictError) as conflict:
            await threads.update("t", user_id="ann", status="two", if_version=1)
        current = await threads.get("t", user_id="ann")
        assert conflict.value.current == current
        assert isinstance(current, ThreadRecord)
        assert (current.status, current.version) == ("one", 2)

    async def test_one_compare_and_set_wins(self, threads: ThreadMap, other: ThreadMap) -> None:
        await threads.claim("t", "ann")
        tries = ((threads, other)[i % 2].update("t", user_id="ann", status=str(i), if_version=1) for i in range(10))
        done = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(answer, ThreadRecord) for answer in done) == 1
        assert sum(isinstance(answer, VersionConflictError) for answer in done) == 9

    async def test_concurrent_merges_all_survive(self, threads: ThreadMap, other: ThreadMap) -> None:
        await threads.claim("t", "ann")
        await asyncio.gather(
            *((threads, other)[i % 2].update("t", user_id="ann", metadata={str(i): i}) for i in range(20))
        )
        record = await threads.get("t", user_id="ann")
        assert record is not None
        assert (record.metadata, record.version) == ({str(i): i for i in range(20)}, 21)

    async def test_values_are_detached(self, threads: ThreadMap) -> None:
        given = {"list": [1]}
        record = await claimed(threads, "t", "ann", metadata=given)
        given["list"].append(2)
        record.metadata["list"].append(3)
        stored = await threads.get("t", user_id="ann")
        assert stored is not None
        assert stored.metadata == {"list": [1]}

    async def test_metadata_comes_back_as_it_was(self, threads: ThreadMap) -> None:
        metadata = {
            "z": 1,
            "": "empty",
            "a.b": 1.0,
            "$where": {"$gt": ""},
            "big": 2**70,
            "float": 1e23,
            "tiny": 5e-324,
            "empty": [{}, [], "", None, False],
            "text": 'ü u\u0308 \U0001f98c \x01 \u2028 %s {x} "',
        }
        await threads.claim("t", "ann", metadata=metadata)
        record = await threads.get("t", user_id="ann")
        assert record is not None
        assert record.metadata == metadata
        assert list(record.metadata) == list(metadata)
        assert [type(value) for value in record.metadata.values()] == [type(value) for value in metadata.values()]

    @pytest.mark.parametrize(
        "bad",
        [
            {"a": math.nan},
            {"a": [math.inf]},
            {1: "a"},
            {"a": {None: 1}},
            {"a": "\x00"},
            {"\ud800": 1},
            {"a": b"bytes"},
            {"a": {1, 2}},
            {"a": "x" * 65_536},
            ["a"],
            "text",
            _cycle(),
        ],
        ids=lambda value: repr(value)[:20],
    )
    async def test_bad_metadata(self, threads: ThreadMap, bad: Any) -> None:
        before = await claimed(threads, "t", "ann")
        for call in (
            threads.claim("n", "ann", metadata=bad),
            threads.update("t", user_id="ann", metadata=bad),
            threads.list("ann", metadata=bad),
            threads.count("ann", metadata=bad),
        ):
            with pytest.raises(ValueError, match="metadata"):
                await call
        assert await threads.get("t", user_id="ann") == before
        assert await threads.owner_of("n") is None

    async def test_the_largest_metadata(self, threads: ThreadMap, other: ThreadMap) -> None:
        """Bytes of UTF-8, with the quotes and the braces."""
        largest = {"a": "ü" * ((65_536 - len('{"a":""}')) // 2)}
        await threads.claim("t", "ann", metadata=largest)
        record = await other.get("t", user_id="ann")
        assert record is not None
        assert record.metadata == largest
        with pytest.raises(ValueError, match="65536"):
            await threads.claim("n", "ann", metadata={"a": f"{largest['a']}a"})
        with pytest.raises(ValueError, match="65536"):
            await threads.update("t", user_id="ann", metadata={"b": 1})

    async def test_a_merge_that_grows_too_large(self, threads: ThreadMap) -> None:
        before = await claimed(threads, "t", "ann", metadata={"a": "x" * 40_000})
        with pytest.raises(ValueError, match="65536"):
            await threads.update("t", user_id="ann", metadata={"b": "x" * 40_000})
        assert await threads.get("t", user_id="ann") == before
        assert await threads.update("t", user_id="ann", metadata={"b": "x" * 40_000}, remove_metadata=["a"])

    @pytest.mark.parametrize(
        "bad",
        [
            {"status": ""},
            {"status": "x" * 65},
            {"status": "\x00"},
            {"status": None},
            {"assistant_id": "x" * 256},
            {"assistant_id": 7},
            {"display_name": "x" * 1025},
            {"display_name": "\ud800"},
            {"ttl_seconds": 0},
            {"ttl_seconds": -1},
            {"ttl_seconds": math.inf},
            {"ttl_seconds": math.nan},
            {"ttl_seconds": True},
            {"ttl_seconds": "1"},
        ],
        ids=lambda value: repr(value)[:30],
    )
    async def test_bad_values(self, threads: ThreadMap, bad: dict[str, Any]) -> None:
        await threads.claim("t", "ann")
        for call in (threads.claim("n", "ann", **bad), threads.update("t", user_id="ann", **bad)):
            with pytest.raises(ValueError, match=next(iter(bad))):
                await call
        assert await threads.owner_of("n") is None

    async def test_bad_versions_and_keys(self, threads: ThreadMap) -> None:
        wrong: Any
        for wrong in (True, 1.0, "1"):
            with pytest.raises(ValueError, match="if_version"):
                await threads.update("t", user_id="ann", if_version=wrong)
        for wrong in ("key", [1], ["\x00"]):
            with pytest.raises(ValueError, match="key"):
                await threads.update("t", user_id="ann", remove_metadata=wrong)

    @pytest.mark.parametrize("bad", [{"ttl_seconds": 0}, {"tombstone_seconds": -1}, {"tombstone_seconds": math.inf}])
    def test_bad_settings(self, build: Build, bad: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(bad))):
            build(**bad)

    # life

    async def test_set_up_and_close_are_idempotent(self, build: Build) -> None:
        threads = build()
        await asyncio.gather(threads.setup(), threads.setup())
        await threads.claim("t", "ann")
        await threads.close()
        await threads.close()
        view = threads.for_tenant("default")
        for call in (threads.owner_of("t"), threads.claim("t", "ann"), threads.list("ann"), view.owner_of("t")):
            with pytest.raises(StoreUnavailableError, match="closed"):
                await call
        with pytest.raises(StoreUnavailableError, match="closed"):
            await threads.sweep()

    async def test_any_loop_and_any_thread(self, threads: ThreadMap) -> None:
        def from_another_loop() -> str | None:
            async def work() -> str | None:
                await threads.claim("there", "ann")
                return await threads.owner_of("there")

            return asyncio.run(work())

        assert await asyncio.to_thread(from_another_loop) == "ann"
        assert await asyncio.to_thread(threads.runner.call, threads.owner_of("there")) == "ann"

    async def test_a_sync_call_on_the_loop_that_opened_the_map(self, threads: ThreadMap) -> None:
        assert threads.runner.call(threads.claim("t", "ann")).created
        assert threads.runner.call(threads.owner_of("t")) == "ann"

    async def test_cancelled_calls_leak_nothing(self, threads: ThreadMap) -> None:
        for round_ in range(10):
            tasks = [asyncio.ensure_future(threads.claim(f"t{round_} {number}", "ann")) for number in range(8)]
            for _ in range(round_):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert (await threads.claim("after", "ann")).created
        everything = (await threads.list("ann", limit=1000)).items
        assert len(everything) == await threads.count("ann")
