"""Claims, access, deletion and transfer."""

from __future__ import annotations

import asyncio
import inspect
from datetime import UTC, timedelta
from typing import Any
from uuid import UUID

import pytest

from ..threads.base import ThreadMap
from ..threads.values import ANY_USER, Claim
from ._threads_common import BAD_IDS, HOSTILE_IDS, Build, ThreadMapFixtures, claimed, until

_REFUSED = Claim("t", False, False, None)


class ClaimContract(ThreadMapFixtures):
    async def test_the_first_claim_makes_the_thread(self, threads: ThreadMap) -> None:
        claim = await threads.claim(
            "t", "ann", assistant_id="agent", display_name="Plans", status="busy", metadata={"a": [1, {"b": None}]}
        )
        assert (claim.thread_id, claim.granted, claim.created) == ("t", True, True)
        record = claim.record
        assert record is not None
        assert (record.thread_id, record.user_id, record.version) == ("t", "ann", 1)
        assert (record.assistant_id, record.display_name, record.status) == ("agent", "Plans", "busy")
        assert record.metadata == {"a": [1, {"b": None}]}
        assert record.created_at == record.updated_at
        assert record.created_at.tzinfo is UTC
        assert record.expires_at is None
        assert await threads.get("t", user_id="ann") == record

    async def test_an_own_thread_is_granted_and_left_alone(self, threads: ThreadMap, other: ThreadMap) -> None:
        first = await threads.claim("t", "ann", metadata={"a": 1})
        again = await other.claim("t", "ann", metadata={"b": 2}, status="busy", ttl_seconds=5)
        assert again == Claim("t", True, False, first.record)
        assert await other.get("t", user_id="ann") == first.record

    async def test_a_stranger_learns_nothing(self, threads: ThreadMap, other: ThreadMap) -> None:
        record = await claimed(threads, "t", "ann")
        assert await other.claim("t", "bob") == _REFUSED
        assert await other.get("t", user_id="bob") is None
        assert await other.update("t", user_id="bob", status="x", if_version=99) is None
        assert await other.delete("t", user_id="bob") is False
        assert await other.transfer("t", "bob", "bob") is False
        assert await other.check_access("t", "bob", require_existing=False) is False
        assert await other.count("bob") == 0
        assert await threads.get("t", user_id="ann") == record
        await threads.delete("t", user_id="ann")
        assert await other.claim("t", "bob") == _REFUSED

    async def test_to_hold_a_thread_is_to_claim_it(self, threads: ThreadMap, other: ThreadMap) -> None:
        assert await threads.hold("t", "ann") is True
        record = await other.get("t", user_id="ann")
        assert record is not None
        assert await other.hold("t", "ann") is True
        assert await other.hold("t", "bob") is False
        assert await other.get("t", user_id="ann") == record
        assert record == (await threads.claim("t", "ann")).record
        await threads.delete("t", user_id="ann")
        assert await other.hold("t", "bob") is False
        assert await other.hold("t", "ann") is True
        assert (await claimed(threads, "t", "ann")).version == 1

    async def test_one_of_many_holders_owns_it(self, threads: ThreadMap, other: ThreadMap) -> None:
        users = [f"user-{number}" for number in range(20)]
        held = await asyncio.gather(*((threads, other)[i % 2].hold("t", user) for i, user in enumerate(users)))
        assert [user for user, holds in zip(users, held, strict=True) if holds] == [await threads.owner_of("t")]

    async def test_one_of_many_claimers_is_created(self, threads: ThreadMap, other: ThreadMap) -> None:
        users = [f"user-{number}" for number in range(20)]
        claims = await asyncio.gather(*((threads, other)[i % 2].claim("t", user) for i, user in enumerate(users)))
        assert sum(claim.created for claim in claims) == sum(claim.granted for claim in claims) == 1
        winner = next(user for user, claim in zip(users, claims, strict=True) if claim.created)
        assert await threads.owner_of("t") == await other.owner_of("t") == winner

    async def test_concurrent_claims_of_one_user_create_once(self, threads: ThreadMap, other: ThreadMap) -> None:
        claims = await asyncio.gather(*((threads, other)[i % 2].claim("t", "ann") for i in range(20)))
        assert all(claim.granted for claim in claims)
        assert sum(claim.created for claim in claims) == 1

    async def test_claim_many_answers_in_order(self, threads: ThreadMap) -> None:
        await threads.claim("hers", "bob")
        await threads.claim("mine", "ann")
        claims = await threads.claim_many(["new", "hers", "mine", "new"], "ann", metadata={"a": 1})
        assert [claim.thread_id for claim in claims] == ["new", "hers", "mine", "new"]
        assert [claim.granted for claim in claims] == [True, False, True, True]
        assert [claim.created for claim in claims] == [True, False, False, False]
        assert claims[1].record is None
        assert claims[0].record == claims[3].record == await threads.get("new", user_id="ann")
        assert await threads.claim_many([], "ann") == []

    async def test_claim_many_gives_each_its_own_fields(self, threads: ThreadMap, other: ThreadMap) -> None:
        claims = await threads.claim_many(["a", "b"], "ann", status="busy", display_name="x", metadata={"l": []})
        for claim in claims:
            assert claim.record == await other.get(claim.thread_id, user_id="ann")
        assert await threads.update("a", user_id="ann", metadata={"l": [1]})
        untouched = await other.get("b", user_id="ann")
        assert untouched == claims[1].record

    async def test_many_at_once_are_none(self, threads: ThreadMap) -> None:
        assert await threads.owners_of([]) == {}
        assert await threads.owners_of(["missing"]) == {}
        await threads.claim("t", "ann")
        assert await threads.owners_of(iter(["t", "missing", "t"])) == {"t": "ann"}
        very_many = [f"missing {number}" for number in range(10_000)]
        assert await threads.owners_of([*very_many, "t"]) == {"t": "ann"}

    async def test_the_longest_names(self, threads: ThreadMap, other: ThreadMap) -> None:
        fields = {"assistant_id": "ü" * 255, "display_name": "\U0001f98c" * 1024, "status": "ä" * 64}
        record = await claimed(threads, "\U0001f98c" * 255, "ü" * 255, **fields)
        assert {name: getattr(record, name) for name in fields} == fields
        assert (await other.list("ü" * 255)).items == (record,)

    async def test_texts_are_kept_as_they_are(self, threads: ThreadMap, other: ThreadMap) -> None:
        text = " \x01\n\r\x1e\x1f\x7f\"'\\%s{x}\u2028 "
        record = await claimed(
            threads, "t", "ann", assistant_id=text, display_name=text, status=text, metadata={text: text}
        )
        assert (record.assistant_id, record.display_name, record.status, record.metadata) == (
            text,
            text,
            text,
            {text: text},
        )
        assert await other.get("t", user_id="ann") == record
        assert (await other.list("ann", status=text, metadata={text: text})).items == (record,)
        assert await other.owner_of("t") == "ann"
        assert (await other.claim_many(["t"], "ann"))[0].record == record

    async def test_claim_many_takes_a_thousand(self, threads: ThreadMap) -> None:
        ids = [f"t{number}" for number in range(1000)]
        assert all(claim.created for claim in await threads.claim_many(ids, "ann"))
        assert await threads.count("ann") == 1000
        assert await threads.owners_of([*ids, "missing"]) == dict.fromkeys(ids, "ann")
        with pytest.raises(ValueError, match="at most 1000"):
            await threads.claim_many([*ids, "one more"], "ann")

    async def test_overlapping_claim_manys_agree(self, threads: ThreadMap, other: ThreadMap) -> None:
        ids = [f"t{number}" for number in range(200)]
        ann, bob = await asyncio.gather(threads.claim_many(ids, "ann"), other.claim_many(ids[::-1], "bob"))
        assert all(one.created != two.created for one, two in zip(ann, reversed(bob), strict=True))
        assert await threads.count("ann") + await threads.count("bob") == 200

    async def test_one_bad_id_refuses_the_whole_call(self, threads: ThreadMap) -> None:
        with pytest.raises(ValueError, match="thread_id"):
            await threads.claim_many(["good", "bad\n"], "ann")
        assert await threads.owner_of("good") is None

    async def test_ids_are_kept_byte_for_byte(self, threads: ThreadMap, other: ThreadMap) -> None:
        for thread_id in HOSTILE_IDS:
            assert (await threads.claim(thread_id, thread_id)).created
        for thread_id in HOSTILE_IDS:
            assert await other.owner_of(thread_id) == thread_id
            assert [record.thread_id for record in (await other.list(thread_id)).items] == [thread_id]
        assert await other.owners_of(HOSTILE_IDS) == {thread_id: thread_id for thread_id in HOSTILE_IDS}

    async def test_a_uuid_is_its_text(self, threads: ThreadMap) -> None:
        thread_id = UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff")
        assert (await threads.claim(thread_id, "ann")).thread_id == str(thread_id)
        assert await threads.owner_of(str(thread_id)) == "ann"

    @pytest.mark.parametrize("bad", BAD_IDS, ids=repr)
    async def test_bad_ids_are_refused(self, threads: ThreadMap, bad: Any) -> None:
        calls = (
            threads.claim(bad, "ann"),
            threads.hold(bad, "ann"),
            threads.claim_many([bad], "ann"),
            threads.owner_of(bad),
            threads.owners_of([bad]),
            threads.get(bad, user_id="ann"),
            threads.update(bad, user_id="ann"),
            threads.transfer(bad, "ann", "bob"),
            threads.delete(bad, user_id="ann"),
            threads.check_access(bad, "ann"),
            threads.list("ann", ids=[bad]),
            threads.claim("t", bad),
            threads.hold("t", bad),
            threads.claim_many(["t"], bad),
            threads.get("t", user_id=bad),
            threads.list(bad),
            threads.count(bad),
            threads.update("t", user_id=bad),
            threads.transfer("t", bad, "bob"),
            threads.transfer("t", "ann", bad),
            threads.delete("t", user_id=bad),
            *([] if bad is None else [threads.check_access("t", bad)]),
        )
        for call in calls:
            with pytest.raises(ValueError, match=r"_id"):
                await call
        assert await threads.owner_of("t") is None

    async def test_any_user_is_for_get_update_and_delete_only(self, threads: ThreadMap) -> None:
        await threads.claim("t", "ann")
        record = await threads.update("t", user_id=ANY_USER, status="seen")
        assert record is not None
        assert record == await threads.get("t", user_id=ANY_USER)
        anyone: Any = ANY_USER
        for call in (
            threads.claim("n", anyone),
            threads.claim_many(["n"], anyone),
            threads.hold("n", anyone),
            threads.list(anyone),
            threads.count(anyone),
            threads.transfer("t", anyone, "bob"),
            threads.transfer("t", "ann", anyone),
            threads.check_access("t", anyone),
        ):
            with pytest.raises(ValueError, match="user_id"):
                await call
        assert await threads.owner_of("n") is None
        assert await threads.delete("t", user_id=ANY_USER) is True

    async def test_a_forgotten_user_is_a_type_error(self, threads: ThreadMap) -> None:
        forgetful: Any = threads
        for method in (forgetful.get, forgetful.update, forgetful.delete):
            with pytest.raises(TypeError):
                await method("t")
            assert inspect.signature(method).parameters["user_id"].kind is inspect.Parameter.KEYWORD_ONLY

    async def test_access(self, threads: ThreadMap) -> None:
        await threads.claim("t", "ann")
        await threads.claim("gone", "ann")
        await threads.delete("gone", user_id="ann")
        strict = {(t, u): await threads.check_access(t, u) for t in ("t", "gone", "new") for u in ("ann", "bob", None)}
        assert [key for key, allowed in strict.items() if allowed] == [("t", "ann")]
        permissive = {
            (t, u): await threads.check_access(t, u, require_existing=False)
            for t in ("t", "gone", "new")
            for u in ("ann", "bob", None)
        }
        allowed = [("t", "ann"), ("gone", "ann"), ("new", "ann"), ("new", "bob"), ("new", None)]
        assert [key for key, granted in permissive.items() if granted] == allowed

    async def test_delete_leaves_a_tombstone(self, threads: ThreadMap, other: ThreadMap) -> None:
        await threads.claim("t", "ann", metadata={"secret": 1}, display_name="x")
        assert await other.delete("t", user_id="ann") is True
        assert await threads.delete("t", user_id="ann") is False
        assert await threads.get("t", user_id="ann") is None
        assert await threads.owner_of("t") is None
        assert await threads.owners_of(["t"]) == {}
        assert await threads.update("t", user_id="ann", status="x") is None
        assert await threads.transfer("t", "ann", "bob") is False
        assert (await threads.list("ann")).items == ()
        assert await threads.count("ann") == 0
        again = await claimed(threads, "t", "ann")
        assert (again.version, dict(again.metadata), again.display_name) == (1, {}, None)

    async def test_a_tombstone_ends(self, build: Build, threads: ThreadMap) -> None:
        async with build(tombstone_seconds=0.1) as brief:
            await brief.claim("t", "ann")
            await brief.delete("t", user_id="ann")

            async def is_free() -> bool:
                return await brief.check_access("t", "bob", require_existing=False)

            await until(is_free)
            assert (await brief.claim("t", "bob")).created

    async def test_no_tombstone(self, build: Build) -> None:
        async with build(tombstone_seconds=0) as threads:
            await threads.claim("t", "ann")
            assert await threads.delete("t", user_id="ann")
            assert not await threads.delete("t", user_id="ann")
            assert await threads.check_access("t", None, require_existing=False)
            assert (await threads.claim("t", "bob")).created

    async def test_no_delete_removes_what_was_claimed_after_it(self, build: Build) -> None:
        """Its second step finds the next owner's thread."""
        async with build(tombstone_seconds=0) as threads:
            await threads.claim("t", "ann")
            await threads._remove("t", "0123456789abcdef")
            assert await threads.owner_of("t") == "ann"
            assert await threads.count("ann") == 1

    async def test_transfer(self, threads: ThreadMap, other: ThreadMap) -> None:
        before = await claimed(threads, "t", "ann", metadata={"a": 1})
        assert await threads.transfer("t", "bob", "cat") is False
        assert await threads.transfer("t", "ann", "bob", if_version=2) is False
        assert await threads.transfer("t", "ann", "ann", if_version=2) is False
        assert await threads.transfer("t", "ann", "ann") is True
        assert await threads.get("t", user_id="ann") == before
        assert await threads.transfer("t", "ann", "bob", if_version=1) is True
        assert await other.get("t", user_id="ann") is None
        after = await other.get("t", user_id="bob")
        assert after is not None
        assert (after.version, after.metadata) == (2, {"a": 1})
        assert (after.created_at, after.updated_at) == (before.created_at, before.updated_at)
        assert [await other.count(user) for user in ("ann", "bob")] == [0, 1]
        assert await other.claim("t", "ann") == _REFUSED
        for order in ("created_at", "updated_at"):
            assert (await other.list("bob", sort_by=order)).items == (after,)
            assert (await other.list("ann", sort_by=order)).items == ()

    async def test_one_of_many_transfers_wins(self, threads: ThreadMap, other: ThreadMap) -> None:
        await threads.claim("t", "ann")
        done = await asyncio.gather(*((threads, other)[i % 2].transfer("t", "ann", f"u{i}") for i in range(10)))
        assert sum(done) == 1
        assert await threads.owner_of("t") == f"u{done.index(True)}"

    async def test_deletes_count_once(self, threads: ThreadMap, other: ThreadMap) -> None:
        await threads.claim("t", "ann")
        done = await asyncio.gather(*((threads, other)[i % 2].delete("t", user_id="ann") for i in range(10)))
        assert sum(done) == 1

    async def test_times_are_the_stores_now(self, threads: ThreadMap) -> None:
        first, second = await claimed(threads, "a", "ann"), await claimed(threads, "b", "ann")
        assert timedelta() <= second.created_at - first.created_at < timedelta(minutes=1)
