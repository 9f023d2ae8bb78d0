"""A user's agents may share the user's summaries, each with facts of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ..errors import VersionConflictError
from ..memory.base import MemoryStorage
from ._memory_common import Build, MemoryFixtures, fact, ids


def summary(document: dict[str, Any]) -> str:
    return str(document["user"]["topOfMind"]["summary"])


def about(text: str) -> dict[str, Any]:
    return {"user": {"topOfMind": {"summary": text, "updatedAt": ""}}}


class SummariesContract(MemoryFixtures):
    @pytest.fixture
    def sharing(self, build: Build) -> Iterator[MemoryStorage]:
        sharing = build(summaries="user")
        assert sharing.save({"facts": [fact("own")], **about("tea")}, user_id="ann")
        yield sharing
        sharing.close()

    @pytest.fixture
    def sharing_too(self, build: Build) -> Iterator[MemoryStorage]:
        sharing = build(summaries="user")
        yield sharing
        sharing.close()

    def test_each_scope_has_its_summaries(self, storage: MemoryStorage) -> None:
        assert storage.save({"facts": [], **about("tea")}, user_id="ann")
        assert storage.save({"facts": [], **about("code")}, "coder", user_id="ann")
        assert summary(storage.load(user_id="ann")) == "tea"
        assert summary(storage.load("coder", user_id="ann")) == "code"

    def test_agents_see_the_users_summaries_and_their_own_facts(
        self, sharing: MemoryStorage, sharing_too: MemoryStorage
    ) -> None:
        for number, agent in enumerate(("coder", "x" * 300)):
            assert sharing.save(
                {**sharing.load(agent, user_id="ann"), "facts": [fact(str(number))]}, agent, user_id="ann"
            )
        for replica in (sharing, sharing_too):
            assert ids(replica.load(user_id="ann")) == ["own"]
            for number, agent in enumerate(("coder", "x" * 300)):
                assert (
                    ids(replica.load(agent, user_id="ann"))
                    == ids(replica.reload(agent, user_id="ann"))
                    == [str(number)]
                )
                assert summary(replica.load(agent, user_id="ann")) == "tea"
            assert replica.peek("coder", user_id="ann") in (None, replica.load("coder", user_id="ann"))
            assert ids(replica.load("planner", user_id="ann")) == []
            assert summary(replica.load("planner", user_id="ann")) == "tea"
            assert ids(replica.load("coder", user_id="bob")) == ids(replica.load("coder")) == []

    @pytest.mark.parametrize("revision", [{}, {"revision": 0}, {"revision": 1}, {"revision": 9}])
    def test_a_save_under_an_agent_changes_its_facts_only(
        self, sharing: MemoryStorage, revision: dict[str, int]
    ) -> None:
        document = {"facts": [fact("1")], **about("coffee"), "mine": 1, "agentFacts": {"coder": []}, **revision}
        assert sharing.save(document, "coder", user_id="ann")
        assert ids(sharing.load("coder", user_id="ann")) == ["1"]
        assert summary(sharing.load("coder", user_id="ann")) == summary(sharing.load(user_id="ann")) == "tea"
        assert "mine" not in sharing.load(user_id="ann")
        assert ids(sharing.load(user_id="ann")) == ["own"]

    def test_the_user_changes_summaries_and_no_agents_facts(self, sharing: MemoryStorage) -> None:
        assert sharing.save({"facts": [fact("1")]}, "coder", user_id="ann")
        assert sharing.save({"facts": [], **about("coffee"), "agentFacts": {}}, user_id="ann")
        assert ids(sharing.load("coder", user_id="ann")) == ["1"]
        assert summary(sharing.load("coder", user_id="ann")) == "coffee"
        assert ids(sharing.load(user_id="ann")) == []

    def test_agents_facts_are_no_part_of_what_a_user_saves(self, sharing: MemoryStorage) -> None:
        assert sharing.save({"facts": [], "agentFacts": {"coder": [fact("1")]}}, user_id="ann")
        assert ids(sharing.load("coder", user_id="ann")) == []
        assert "agentFacts" not in sharing.load(user_id="ann")

    def test_a_change_of_summaries_makes_an_agents_revision_stale(
        self, sharing: MemoryStorage, sharing_too: MemoryStorage
    ) -> None:
        stale = sharing_too.load("coder", user_id="ann")["revision"]
        sharing.apply_changes({"summaries": about("coffee")}, agent_name="planner", user_id="ann")
        assert summary(sharing_too.load(user_id="ann")) == "coffee"
        for changes in ({"summaries": about("milk")}, {"upserts": [fact("1")]}):
            with pytest.raises(VersionConflictError):
                sharing_too.apply_changes(changes, agent_name="coder", user_id="ann", expected_manifest_revision=stale)
        sharing_too.apply_changes(
            {"upserts": [fact("1")], "upsertRevisions": {"1": None}},
            agent_name="coder",
            user_id="ann",
            expected_manifest_revision=stale,
            allow_manifest_rebase=True,
        )
        assert ids(sharing.load("coder", user_id="ann")) == ["1"]
        assert summary(sharing.load("coder", user_id="ann")) == "coffee"

    def test_agents_that_save_at_once_lose_nothing(self, sharing: MemoryStorage, sharing_too: MemoryStorage) -> None:
        assert sharing.save({"facts": [fact("1"), fact("2")]}, "coder", user_id="ann")
        mine, theirs = sharing.load("coder", user_id="ann"), sharing_too.load("coder", user_id="ann")
        assert sharing.save({"facts": [fact("5")]}, "planner", user_id="ann")
        theirs["facts"].append(fact("3"))
        mine["facts"] = [fact("1"), fact("4")]
        assert sharing_too.save(theirs, "coder", user_id="ann")
        assert sharing.save(mine, "coder", user_id="ann")
        assert ids(sharing_too.load("coder", user_id="ann")) == ["1", "3", "4"]
        assert ids(sharing_too.load("planner", user_id="ann")) == ["5"]

    def test_facts_from_before_they_shared_are_kept(self, storage: MemoryStorage, sharing: MemoryStorage) -> None:
        assert storage.save({"facts": [fact("old")], **about("code")}, "coder", user_id="ann")
        mine = sharing.load("coder", user_id="ann")
        assert ids(mine) == ["old"]
        assert summary(mine) == "tea"
        assert sharing.peek("coder", user_id="ann") in (None, mine)
        assert sharing.save({**mine, "facts": [*mine["facts"], fact("new")]}, "coder", user_id="ann")
        assert ids(sharing.load("coder", user_id="ann")) == ["old", "new"]
        assert sharing.save({**mine, "facts": []}, "coder", user_id="ann")
        assert ids(sharing.load("coder", user_id="ann")) == ["new"]

    def test_clear_all_forgets_them_too(self, storage: MemoryStorage, sharing: MemoryStorage) -> None:
        for agent in ("coder", "y" * 300):
            assert storage.save({"facts": [fact("old")]}, agent, user_id="ann")
        assert sharing.save({"facts": [fact("1")]}, "planner", user_id="ann")
        cleared = sharing.clear_all(user_id="ann")
        assert "agentFacts" not in cleared
        assert cleared["facts"] == []
        for name in (None, "coder", "planner", "y" * 300):
            assert ids(sharing.load(name, user_id="ann")) == []
            assert summary(sharing.load(name, user_id="ann")) == ""
