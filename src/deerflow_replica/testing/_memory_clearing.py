"""Everything of a user is forgotten at once."""

from __future__ import annotations

from ..memory.base import MemoryStorage
from ._memory_common import SCOPES, MemoryFixtures, fact, ids


class ClearContract(MemoryFixtures):
    def test_clear_all_empties_one_users_documents(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        for scope in SCOPES:
            assert storage.save({"facts": [fact("1")]}, **scope)
        cleared = other.clear_all(user_id="ann")
        assert cleared["facts"] == []
        assert cleared["revision"] == 2
        for scope in SCOPES:
            assert ids(storage.load(**scope)) == ([] if scope.get("user_id") == "ann" else ["1"]), scope

    def test_what_clear_all_returns_is_the_callers(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        assert storage.save({"facts": [fact("1")]})
        storage.clear_all()["facts"].append(fact("2"))
        assert ids(storage.load()) == ids(other.load()) == ids(other.reload()) == []

    def test_clear_all_without_a_user_empties_the_agents(self, storage: MemoryStorage) -> None:
        for scope in SCOPES:
            assert storage.save({"facts": [fact("1")]}, **scope)
        storage.clear_all()
        for scope in SCOPES:
            assert ids(storage.load(**scope)) == (["1"] if "user_id" in scope else []), scope

    def test_a_fact_added_over_a_clear_stays_alone(self, storage: MemoryStorage, other: MemoryStorage) -> None:
        assert storage.save({"facts": [fact("old")]}, user_id="ann")
        mine = storage.load(user_id="ann")
        other.clear_all(user_id="ann")
        mine["facts"].append(fact("new"))
        assert storage.save(mine, user_id="ann")
        assert ids(storage.load(user_id="ann")) == ["new"]
