"""What is loaded and saved, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ..errors import StoreUnavailableError, VersionConflictError
from ..memory.base import MemoryStorage, create_empty_memory
from ._memory_common import SCOPES, MemoryFixtures, fact, ids


class DocumentContract(MemoryFixtures):
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

    def test_what_was_read_is_not_what_a_failed_save_leaves(self, storage: MemoryStorage) -> None:
        assert storage.save({"facts": [fact("1")]})
        document = storage.load()
        document["facts"].append(fact("2"))
        with pytest.raises(VersionConflictError):
            storage.save(document, expected_revision=7)
        assert ids(storage.load()) == ids(storage.reload()) == ["1"]

    @pytest.mark.parametrize(
        "value",
        ["a\0b", "\\u0000", 2**63, -(2**80), 1e300, 0.1, "\U0001f98c\u2028", "", {"": None}, {"$set": {"a.b": 1}}],
    )
    def test_values_come_back_as_they_are(self, storage: MemoryStorage, other: MemoryStorage, value: Any) -> None:
        assert storage.save({"facts": [{"id": "1", "content": "x", "x": value}], "x": value})
        assert storage.save({**storage.load(), "y": value})
        for loaded in (storage.load(), other.load(), other.reload()):
            assert loaded["x"] == loaded["y"] == loaded["facts"][0]["x"] == value

    async def test_an_event_loops_own_thread_may_call(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        for number, replica in enumerate((storage, other)):
            document = replica.load("coder", user_id="ann")
            assert replica.save({**document, "facts": [*document["facts"], fact(str(number))]}, "coder", user_id="ann")
        assert ids(storage.reload("coder", user_id="ann")) == ["0", "1"]
        assert storage.apply_changes({"deletes": ["0"]}, agent_name="coder", user_id="ann")["deletedFactIds"] == ["0"]
        assert other.clear_all(user_id="ann")["facts"] == []

    def test_every_scope_is_its_own(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        for number, scope in enumerate(SCOPES):
            assert storage.save({"facts": [fact(str(number))]}, **scope), scope
        for number, scope in enumerate(SCOPES):
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

    def test_a_closed_storage_serves_nobody(self, storage: MemoryStorage) -> None:
        storage.close()
        storage.close()
        for call in (storage.load, storage.reload, lambda: storage.save({"facts": []})):
            with pytest.raises(StoreUnavailableError, match="closed"):
                call()
