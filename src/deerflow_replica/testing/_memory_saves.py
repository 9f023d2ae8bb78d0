"""Which save replaces, which follows, and which is merged."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from ..errors import VersionConflictError
from ..memory.base import MemoryStorage
from ._memory_common import Build, MemoryFixtures, fact, ids


class SaveContract(MemoryFixtures):
    def test_expected_revision_is_strict(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        assert storage.save({"facts": [fact("1")]}, expected_revision=0)
        with pytest.raises(VersionConflictError) as conflict:
            other.save({"facts": [fact("2")]}, expected_revision=0)
        assert (conflict.value.current, conflict.value.kind) == (1, "manifest")  # type: ignore[attr-defined]  # memory's own
        assert ids(storage.load()) == ["1"]
        assert other.save({"facts": [fact("2")], "revision": 0}, expected_revision=1)
        assert ids(storage.load()) == ["2"]

    def test_what_was_seen_before_does_not_decide(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        assert storage.save({"facts": [fact("1")]})
        assert other.save({**other.load(), "facts": [fact("2")]})
        with pytest.raises(VersionConflictError):
            storage.save({"facts": []}, expected_revision=1)
        assert other.save({**other.load(), "facts": [fact("3")]})
        assert storage.save({"facts": [fact("4")]}, expected_revision=3)
        assert other.save({"facts": [fact("5")]})
        assert storage.save({"facts": [fact("6")]})
        assert ids(other.load()) == ["6"]
        assert other.load()["revision"] == 6

    @pytest.mark.parametrize("revision", [-1, True, "1", 1.0])
    def test_an_expected_revision_that_cannot_be(self, storage: MemoryStorage, revision: Any) -> None:
        with pytest.raises(ValueError, match="revision"):
            storage.save({"facts": []}, expected_revision=revision)

    def test_without_revision_the_document_is_replaced(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        assert storage.save({"facts": [fact("1")], "mine": 1})
        assert other.save({"facts": [fact("2")]})
        loaded = storage.load()
        assert ids(loaded) == ["2"]
        assert "mine" not in loaded
        assert loaded["revision"] == 2

    def test_two_that_save_at_once_lose_nothing(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        assert storage.save({"facts": [fact("1"), fact("2")]})
        mine, theirs = storage.load(), other.load()
        theirs["facts"].append(fact("3"))
        mine["facts"] = [fact("1"), fact("4")]
        assert other.save(theirs)
        assert storage.save(mine)
        assert ids(other.load()) == ["1", "3", "4"]
        assert other.load()["revision"] == 3

    def test_a_delete_meets_an_edit(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        assert storage.save({"facts": [fact("1"), fact("2")]})
        mine, theirs = storage.load(), other.load()
        theirs["facts"] = [fact("1", "edited by them")]
        mine["facts"] = [fact("2", "edited by us")]
        assert other.save(theirs)
        assert storage.save(mine)
        assert {found["content"] for found in storage.load()["facts"]} == {"edited by them", "edited by us"}

    def test_a_delete_still_merges_twenty_saves_later(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        assert storage.save({"facts": [fact("doomed")]})
        mine = storage.load()
        self._save_often(other, 20)
        assert storage.save({**mine, "facts": [fact("mine")]})
        assert set(ids(storage.load())) == {"mine", *map(str, range(20))}

    def test_thirty_saves_later_nothing_is_deleted(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        assert storage.save({"facts": [fact("spared")]})
        mine = storage.load()
        self._save_often(other, 30)
        assert storage.save({**mine, "facts": [fact("mine")]})
        assert set(ids(storage.load())) == {"spared", "mine", *map(str, range(30))}

    def _save_often(self, storage: MemoryStorage, times: int) -> None:
        for number in range(times):
            document = storage.load()
            document["facts"].append(fact(str(number)))
            assert storage.save(document)

    def test_a_revision_from_the_future_deletes_nothing(self, storage: MemoryStorage) -> None:
        assert storage.save({"facts": [fact("1")]})
        assert storage.save({"facts": [fact("2")], "revision": 99})
        assert ids(storage.load()) == ["1", "2"]
        assert storage.load()["revision"] == 2

    @pytest.fixture
    def restless_threads(self) -> Iterator[None]:
        """Threads take turns as often as they can: what is not one step comes apart."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        yield
        sys.setswitchinterval(before)

    @pytest.mark.usefixtures("restless_threads")
    def test_threads_lose_nothing(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        together = Barrier(8)

        def add(number: int) -> None:
            replica = storage if number % 2 else other
            document = replica.load(user_id="ann")
            document["facts"].append(fact(str(number)))
            together.wait(60)
            assert replica.save(document, user_id="ann")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(add, range(40)))
        assert set(ids(storage.load(user_id="ann"))) == set(map(str, range(40)))
        assert storage.load(user_id="ann")["revision"] == 40

    @pytest.mark.parametrize("history", [0, 2])
    def test_without_the_revision_it_grew_from_nothing_is_deleted(self, build: Build, history: int) -> None:
        storage = build(history=history)
        assert storage.save({"facts": [fact("spared")]})
        mine = storage.load()
        self._save_often(storage, history + 1)
        assert storage.save({**mine, "facts": []})
        assert ids(storage.load())[0] == "spared"
        storage.close()

    def test_max_facts_bounds_a_merge(self, build: Build) -> None:
        storage = build(max_facts=2)
        assert storage.save({"facts": [fact("1", confidence=0.1)]})
        mine = storage.load()
        assert storage.save({**mine, "facts": [*mine["facts"], fact("2", confidence=0.9)]})
        assert storage.save({**mine, "facts": [*mine["facts"], fact("3", confidence=0.8)]})
        assert ids(storage.load()) == ["2", "3"]
        storage.close()

    @pytest.mark.parametrize("settings", [{"history": -1}, {"max_facts": -1}, {"summaries": "agent"}])
    def test_settings_that_cannot_be(self, build: Build, settings: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="must"):
            build(**settings)
