"""The contract of every `MemoryStorage` that keeps whole documents with revisions."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ..errors import StoreUnavailableError, VersionConflictError
from ..memory.base import MemoryStorage, create_empty_memory

_SCOPES: tuple[dict[str, Any], ...] = (
    {},
    {"user_id": "ann"},
    {"agent_name": "coder"},
    {"agent_name": "coder", "user_id": "ann"},
    {"user_id": "None"},
    {"user_id": "Ann"},
    {"user_id": "ann@example.org"},
    {"user_id": "ann%40example.org"},
    {"user_id": "../ann"},
    {"user_id": ".."},
    {"user_id": "ann.json"},
    {"user_id": "a/b\\c\0d"},
    {"user_id": "ånn \ud800"},
    {"user_id": "x" * 300},
    {"user_id": "x" * 301},
    {"agent_name": "x" * 300},
    {"agent_name": "x" * 300, "user_id": "agents"},
)


def fact(fact_id: str, content: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": fact_id, "content": content or f"fact {fact_id}", "confidence": 0.5, **more}


def ids(document: dict[str, Any]) -> list[str]:
    return [found["id"] for found in document["facts"]]


class MemoryStorageContract:
    """Subclass it and provide `storage`, and `other`: a second object over the same place, a replica of its own."""

    @pytest.fixture
    def storage(self) -> Iterator[MemoryStorage]:
        raise NotImplementedError

    @pytest.fixture
    def other(self) -> Iterator[MemoryStorage]:
        raise NotImplementedError

    # what is loaded and saved

    def test_nothing_saved_is_the_empty_document(self, storage: MemoryStorage) -> None:
        document = storage.load("coder", user_id="ann")
        assert {**document, "lastUpdated": ""} == {**create_empty_memory(), "lastUpdated": ""}
        assert document["revision"] == 0
        assert storage.reload("coder", user_id="ann")["facts"] == []

    def test_what_was_saved_is_loaded_by_everyone(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        document = create_empty_memory() | {"facts": [fact("1", "tea <b>")], "mine": {"x": [1, 2.5, None, True, "ü"]}}
        assert storage.save(document, user_id="ann") is True
        for loaded in (storage.load(user_id="ann"), other.load(user_id="ann"), other.reload(user_id="ann")):
            assert {**loaded, "lastUpdated": document["lastUpdated"], "revision": 0} == document
            assert loaded["revision"] == 1
            assert loaded["lastUpdated"] > document["lastUpdated"]

    def test_a_document_without_sections_stays_without_them(self, storage: MemoryStorage) -> None:
        assert storage.save({"facts": []})
        assert set(storage.load()) == {"facts", "lastUpdated", "revision"}

    def test_a_load_sees_the_save_of_another(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        for number in range(5):
            writer, reader = (storage, other) if number % 2 else (other, storage)
            assert writer.save({**writer.load(), "facts": [fact(str(number))]})
            assert ids(reader.load()) == [str(number)]
            assert reader.load()["revision"] == number + 1

    def test_a_peek_is_never_old(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        """It may tell nothing at all, but not something else than `load`."""
        assert not storage.peek(user_id="ann")
        for number in range(5):
            writer, reader = (storage, other) if number % 2 else (other, storage)
            assert writer.save({**writer.load(user_id="ann"), "facts": [fact(str(number))]}, user_id="ann")
            assert reader.peek(user_id="ann") in (None, other.load(user_id="ann"))
            assert reader.load(user_id="ann")["revision"] == number + 1
            assert reader.peek(user_id="ann") in (None, other.load(user_id="ann"))
            assert not reader.peek()

    def test_documents_are_private_copies(self, storage: MemoryStorage) -> None:
        document = {"facts": [fact("1")], "user": {"workContext": {"summary": "a", "updatedAt": ""}}}
        before = copy.deepcopy(document)
        assert storage.save(document)
        assert document == before
        document["facts"].append("broken")  # type: ignore[attr-defined]  # on purpose
        storage.load()["facts"][0]["content"] = "changed"
        storage.load()["user"]["workContext"]["summary"] = "changed"
        assert {**storage.load(), "revision": 0, "lastUpdated": ""} == {**before, "revision": 0, "lastUpdated": ""}

    def test_every_scope_is_its_own(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        for number, scope in enumerate(_SCOPES):
            assert storage.save({"facts": [fact(str(number))]}, **scope), scope
        for number, scope in enumerate(_SCOPES):
            assert ids(other.load(**scope)) == [str(number)], scope

    @pytest.mark.parametrize("agent", ["", "a b", "../x", "a_b", "a.b", "ä", "a\n", 7])
    def test_an_agent_name_that_cannot_be(self, storage: MemoryStorage, agent: Any) -> None:
        self._refuses(storage, agent_name=agent)

    @pytest.mark.parametrize("user", ["", 7, b"ann"])
    def test_a_user_id_that_cannot_be(self, storage: MemoryStorage, user: Any) -> None:
        self._refuses(storage, user_id=user)

    def _refuses(self, storage: MemoryStorage, **scope: Any) -> None:
        for call in (storage.load, storage.peek, storage.reload, lambda **scope: storage.save({"facts": []}, **scope)):
            with pytest.raises(ValueError, match="must"):
                call(**scope)

    @pytest.mark.parametrize(
        "document",
        [
            None,
            [],
            {"facts": None},
            {"facts": {}},
            {"facts": ["a"]},
            {"facts": [{"id": "1"}, {"id": "1"}]},
            {"facts": [{"id": 1}, {"id": "1"}]},
            {"x": object()},
            {"x": float("nan")},
            {"x": {1: 2}},
            {"x": "\ud800"},
            {"x": {1, 2}},
            {"revision": "1"},
            {"revision": -1},
            {"revision": True},
            {"revision": None},
        ],
    )
    def test_what_is_no_document_is_refused(self, storage: MemoryStorage, document: Any) -> None:
        with pytest.raises(ValueError, match="mem"):
            storage.save(document)
        assert storage.load()["revision"] == 0

    def test_a_document_that_contains_itself_is_refused(self, storage: MemoryStorage) -> None:
        document: dict[str, Any] = {"facts": []}
        document["x"] = document
        with pytest.raises(ValueError, match="contain itself"):
            storage.save(document)

    # which save is which

    def test_expected_revision_is_strict(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        assert storage.save({"facts": [fact("1")]}, expected_revision=0)
        with pytest.raises(VersionConflictError) as conflict:
            other.save({"facts": [fact("2")]}, expected_revision=0)
        assert conflict.value.current == 1
        assert ids(storage.load()) == ["1"]
        assert other.save({"facts": [fact("2")], "revision": 0}, expected_revision=1)
        assert ids(storage.load()) == ["2"]

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

    def test_threads_lose_nothing(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        def add(number: int) -> None:
            replica = storage if number % 2 else other
            document = replica.load(user_id="ann")
            document["facts"].append(fact(str(number)))
            assert replica.save(document, user_id="ann")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(add, range(40)))
        assert set(ids(storage.load(user_id="ann"))) == set(map(str, range(40)))
        assert storage.load(user_id="ann")["revision"] == 40

    # single facts

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

    # clearing and closing

    def test_clear_all_empties_one_users_documents(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        for scope in _SCOPES:
            assert storage.save({"facts": [fact("1")]}, **scope)
        cleared = other.clear_all(user_id="ann")
        assert cleared["facts"] == []
        assert cleared["revision"] == 2
        for scope in _SCOPES:
            assert ids(storage.load(**scope)) == ([] if scope.get("user_id") == "ann" else ["1"]), scope

    def test_clear_all_without_a_user_empties_the_agents(self, storage: MemoryStorage) -> None:
        for scope in _SCOPES:
            assert storage.save({"facts": [fact("1")]}, **scope)
        storage.clear_all()
        for scope in _SCOPES:
            assert ids(storage.load(**scope)) == (["1"] if "user_id" in scope else []), scope

    def test_a_fact_added_over_a_clear_stays_alone(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        assert storage.save({"facts": [fact("old")]}, user_id="ann")
        mine = storage.load(user_id="ann")
        other.clear_all(user_id="ann")
        mine["facts"].append(fact("new"))
        assert storage.save(mine, user_id="ann")
        assert ids(storage.load(user_id="ann")) == ["new"]

    def test_a_closed_storage_serves_nobody(self, storage: MemoryStorage) -> None:
        storage.close()
        storage.close()
        for call in (storage.load, storage.reload, lambda: storage.save({"facts": []})):
            with pytest.raises(StoreUnavailableError, match="closed"):
                call()
