"""Single facts and summaries, each with the revision it was seen at."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ..errors import VersionConflictError
from ..memory.base import MemoryStorage
from ._memory_common import MemoryFixtures, fact, ids


class ChangeContract(MemoryFixtures):
    def test_facts_are_changed_one_by_one(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        result = storage.apply_changes(
            {"upserts": [fact("1"), fact("2")], "upsertRevisions": {"1": None, "2": None}}, agent_name="coder"
        )
        assert result["complete"] is False
        assert [(found["id"], found["revision"]) for found in result["upsertedFacts"]] == [("1", 1), ("2", 1)]
        assert result["revision"] == 1
        result = other.apply_changes(
            {
                "upserts": [fact("1", "new"), fact("3")],
                "upsertRevisions": {"1": 1},
                "deletes": ["2", "9"],
                "deleteRevisions": {"2": 1},
            },
            agent_name="coder",
            expected_manifest_revision=1,
        )
        assert [(found["id"], found["revision"]) for found in result["upsertedFacts"]] == [("1", 2), ("3", 1)]
        assert result["deletedFactIds"] == ["2"]
        assert ids(storage.load("coder")) == ["1", "3"]
        assert storage.load("coder")["lastUpdated"] == result["lastUpdated"]

    def test_what_it_returns_is_private(self, storage: MemoryStorage) -> None:
        storage.apply_changes({"upserts": [fact("1")]})["upsertedFacts"][0]["content"] = "changed"
        assert storage.load()["facts"][0]["content"] == "fact 1"

    def test_what_changes_nothing_is_no_revision(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        storage.apply_changes({"upserts": [fact("1")]})
        assert other.load()["revision"] == 1
        for changes in ({}, {"deletes": ["9"]}, {"upserts": [storage.load()["facts"][0]]}):
            assert storage.apply_changes(changes)["revision"] == other.apply_changes(changes)["revision"] == 1

    def test_a_fact_that_others_added_is_deleted(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        storage.apply_changes({"upserts": [fact("1")]})
        other.apply_changes({"upserts": [fact("2")]})
        assert storage.apply_changes({"deletes": ["2"]})["deletedFactIds"] == ["2"]
        assert ids(other.load()) == ["1"]

    def test_threads_that_change_single_facts_lose_none(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        def add(number: int) -> None:
            replica = storage if number % 2 else other
            replica.apply_changes(
                {"upserts": [fact(str(number))], "upsertRevisions": {str(number): None}},
                user_id="ann",
                expected_manifest_revision=0,
                allow_manifest_rebase=True,
            )

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(add, range(24)))
        assert set(ids(storage.load(user_id="ann"))) == set(map(str, range(24)))

    def test_a_fact_grows_with_its_content_only(self, storage: MemoryStorage) -> None:
        storage.apply_changes({"upserts": [fact("1")]})
        assert storage.apply_changes({"upserts": [fact("1", confidence=0.9)]})["upsertedFacts"][0]["revision"] == 1
        assert storage.apply_changes({"upserts": [fact("1", "other")]})["upsertedFacts"][0]["revision"] == 2

    @pytest.mark.parametrize(
        "changes",
        [
            {"upserts": [fact("1")], "upsertRevisions": {"1": None}},
            {"upserts": [fact("1")], "upsertRevisions": {"1": 2}},
            {"upserts": [fact("9")], "upsertRevisions": {"9": 1}},
            {"upserts": [fact("1", revision=3)]},
            {"deletes": ["1"], "deleteRevisions": {"1": 2}},
        ],
    )
    def test_a_stale_fact_changes_nothing(self, storage: MemoryStorage, changes: dict[str, Any]) -> None:
        storage.apply_changes({"upserts": [fact("1")]})
        with pytest.raises(VersionConflictError) as conflict:
            storage.apply_changes({**changes, "summaries": {"user": {"topOfMind": {"summary": "x"}}}})
        assert conflict.value.kind == "fact"  # type: ignore[attr-defined]  # a detail of memory's conflicts
        assert storage.load()["revision"] == 1

    def test_a_stale_manifest_is_rebased_only_for_point_changes(self, storage: MemoryStorage) -> None:
        storage.apply_changes({"upserts": [fact("1")]})
        point = {"upserts": [fact("2")], "upsertRevisions": {"2": None}}
        for changes in (
            {"upserts": [fact("2")]},
            {"deletes": ["1"]},
            {**point, "summaries": {"user": {"topOfMind": {"summary": "x"}}}},
        ):
            with pytest.raises(VersionConflictError) as conflict:
                storage.apply_changes(changes, expected_manifest_revision=0, allow_manifest_rebase=True)
            assert conflict.value.kind == "manifest"  # type: ignore[attr-defined]  # as above
        with pytest.raises(VersionConflictError):
            storage.apply_changes(point, expected_manifest_revision=0)
        storage.apply_changes(point, expected_manifest_revision=0, allow_manifest_rebase=True)
        assert ids(storage.load()) == ["1", "2"]

    def test_summaries_change_by_section(self, storage: MemoryStorage) -> None:
        storage.apply_changes({"summaries": {"user": {"topOfMind": {"summary": "tea", "updatedAt": "x"}}}})
        assert storage.load()["user"]["topOfMind"]["summary"] == "tea"
        assert storage.load()["user"]["workContext"]["summary"] == ""

    @pytest.mark.parametrize(
        "changes",
        [
            {"upserts": {}},
            {"upserts": ["a"]},
            {"deletes": [1]},
            {"upserts": [fact("1"), fact("1")]},
            {"deletes": ["1", "1"]},
            {"upserts": [fact("1")], "deletes": ["1"]},
            {"upserts": [fact("1")], "upsertRevisions": {"1": 0}},
            {"upsertRevisions": []},
            {"summaries": {"facts": {}}},
            {"summaries": {"user": []}},
        ],
    )
    def test_what_is_no_change_set_is_refused(self, storage: MemoryStorage, changes: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"change_set|revision"):
            storage.apply_changes(changes)
