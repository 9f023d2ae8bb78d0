"""What the assistants of every run registry must do. Subclass it and give it your registry."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ..errors import StoreUnavailableError
from ..runs.registry.assistants import AssistantChanges, AssistantFilter, AssistantRow, Assistants, NewAssistant
from ..runs.registry.base import RunRegistry
from ._runs_common import Build, RunRegistryFixtures

HOSTILE = ("%", "_", "' OR 1=1 --", 'quote"', "back\\slash", "ü", "\U0001f98c", "{x}", "*")


class AssistantsContract(RunRegistryFixtures):
    """Provide the fixture `build`: a function that makes one more replica's registry, each on the same new rows."""

    @pytest.fixture
    def assistants(self, registry: RunRegistry) -> Assistants:
        return registry.assistants

    @pytest.fixture
    def others(self, peer: RunRegistry) -> Assistants:
        """Another replica's."""
        return peer.assistants

    async def create(self, assistants: Assistants, assistant_id: str, **fields: Any) -> AssistantRow:
        row = await assistants.create(NewAssistant(assistant_id=assistant_id, **{"graph_id": "agent", **fields}))
        assert row is not None
        return row

    async def found(self, assistants: Assistants, page: dict[str, Any] | None = None, **wanted: Any) -> list[str]:
        rows = await assistants.search(AssistantFilter(**wanted), **(page or {}))
        return [row.assistant_id for row in rows]

    async def test_a_row_keeps_what_it_was_given(self, assistants: Assistants, others: Assistants) -> None:
        given = {
            "graph_id": "agent",
            "user_id": "u",
            "name": "Ünsere \U0001f98c",
            "description": 'what\' it "does"',
            "config": {"configurable": {"n": [1, 2.5, None, True], "nul": "\x00"}},
            "context": {"deep": {"er": "é"}},
            "metadata": {"k": {"deep": [1]}},
        }
        row = await self.create(assistants, "a", **given)
        assert {name: getattr(row, name) for name in given} == given
        assert row.version == 1
        assert row.created_at == row.updated_at
        assert row.created_at.utcoffset() is not None
        assert await others.get("a", user_id="u") == row

    async def test_what_is_not_given_is_empty(self, assistants: Assistants) -> None:
        row = await self.create(assistants, "a")
        assert (row.user_id, row.name, row.description) == (None, "Untitled", None)
        assert (row.config, row.context, row.metadata) == ({}, {}, {})

    async def test_rows_are_detached(self, assistants: Assistants) -> None:
        metadata = {"k": [1]}
        await self.create(assistants, "a", metadata=metadata)
        metadata["k"].append(2)
        row = await assistants.get("a", user_id=None)
        assert row is not None
        assert row.metadata == {"k": [1]}

    async def test_an_id_is_taken_once_by_whomever(self, assistants: Assistants) -> None:
        row = await self.create(assistants, "a", user_id="u", name="first")
        for user_id in ("u", "v", None):
            new = NewAssistant(assistant_id="a", graph_id="other", user_id=user_id)
            assert await assistants.create(new) is None
        assert await assistants.get("a", user_id="u") == row

    async def test_of_many_that_create_the_same_at_once_one_wins(
        self, assistants: Assistants, others: Assistants
    ) -> None:
        new = [NewAssistant(assistant_id="a", graph_id=f"g{number}") for number in range(20)]
        rows = await asyncio.gather(*((assistants, others)[n % 2].create(one) for n, one in enumerate(new)))
        [won] = [row for row in rows if row is not None]
        assert await others.get("a", user_id=None) == won

    async def test_an_owners_are_there_for_that_owner_alone(self, assistants: Assistants) -> None:
        mine = await self.create(assistants, "mine", user_id="u")
        shared = await self.create(assistants, "shared")
        for stranger in ("v", None):
            assert await assistants.get("mine", user_id=stranger) is None
            assert await assistants.update("mine", AssistantChanges(name="x"), user_id=stranger) is None
            assert not await assistants.delete("mine", user_id=stranger)
            assert "mine" not in await self.found(assistants, user_id=stranger)
        for user_id, own in (("u", ["mine"]), ("v", []), (None, ["shared"])):
            assert await self.found(assistants, user_id=user_id) == own
            assert await assistants.count(AssistantFilter(user_id=user_id)) == len(own)
        assert await assistants.get("shared", user_id="u") is None
        assert await assistants.get("mine", user_id="u") == mine
        assert await assistants.get("shared", user_id=None) == shared

    async def test_a_change_leaves_the_rest_alone(self, assistants: Assistants, others: Assistants) -> None:
        before = await self.create(
            assistants, "a", name="n", config={"tags": ["t"]}, context={"c": 1}, metadata={"old": 1, "both": {"x": 1}}
        )
        row = await assistants.update(
            "a", AssistantChanges(context={"d": 2}, metadata={"both": {"y": 2}, "new": 3}), user_id=None
        )
        assert row is not None
        assert (row.graph_id, row.name, row.description, row.config) == ("agent", "n", None, {"tags": ["t"]})
        assert row.context == {"d": 2}
        assert row.metadata == {"old": 1, "both": {"y": 2}, "new": 3}
        assert (row.version, row.created_at) == (2, before.created_at)
        assert row.updated_at >= before.updated_at
        assert await others.get("a", user_id=None) == row

    async def test_everything_can_be_changed(self, assistants: Assistants) -> None:
        await self.create(assistants, "a", user_id="u", config={"tags": ["t"]}, context={"c": 1})
        changes = AssistantChanges(graph_id="other", name="New", description="d", config={}, context={})
        row = await assistants.update("a", changes, user_id="u")
        assert row is not None
        assert (row.graph_id, row.name, row.description, row.config, row.context) == ("other", "New", "d", {}, {})
        assert row.user_id == "u"
        assert await self.found(assistants, user_id="u", name="new", graph_id="other") == ["a"]

    async def test_no_change_is_lost(self, assistants: Assistants, others: Assistants) -> None:
        await self.create(assistants, "a")
        changes = [AssistantChanges(metadata={str(number): number}) for number in range(20)]
        await asyncio.gather(
            *((assistants, others)[n % 2].update("a", one, user_id=None) for n, one in enumerate(changes))
        )
        row = await assistants.get("a", user_id=None)
        assert row is not None
        assert row.version == 21
        assert row.metadata == {str(number): number for number in range(20)}

    async def test_what_is_deleted_is_gone_and_its_id_free(self, assistants: Assistants) -> None:
        await self.create(assistants, "a", metadata={"old": 1})
        assert await assistants.delete("a", user_id=None)
        assert not await assistants.delete("a", user_id=None)
        assert await assistants.get("a", user_id=None) is None
        assert await assistants.update("a", AssistantChanges(name="x"), user_id=None) is None
        row = await self.create(assistants, "a", user_id="u")
        assert (row.version, row.metadata) == (1, {})

    async def test_search_finds_what_has_everything_given(self, assistants: Assistants) -> None:
        await self.create(assistants, "a", name="Straße 1", metadata={"k": {"x": 1, "y": [1, 2]}, "n": 1})
        await self.create(assistants, "b", graph_id="other", name="STRASSE 2", metadata={"n": True})
        await self.create(assistants, "c", name="ÄRGER", metadata={"n": None})
        order = {"sort_by": "assistant_id", "sort_order": "asc"}
        searches: list[tuple[dict[str, Any], list[str]]] = [
            ({}, ["a", "b", "c"]),
            ({"graph_id": "agent"}, ["a", "c"]),
            ({"graph_id": "agen"}, []),
            ({"name": "strasse"}, ["a", "b"]),
            ({"name": "ärger"}, ["c"]),
            ({"name": ""}, ["a", "b", "c"]),
            ({"metadata": {"k": {"y": [2]}}}, ["a"]),
            ({"metadata": {"n": 1}}, ["a"]),
            ({"metadata": {"n": True}}, ["b"]),
            ({"metadata": {"n": None}}, ["c"]),
            ({"metadata": {"n": 1}, "graph_id": "other"}, []),
        ]
        for wanted, ids in searches:
            assert await self.found(assistants, order, **wanted) == ids, wanted
            assert await assistants.count(AssistantFilter(**wanted)) == len(ids)

    @pytest.mark.parametrize("hostile", HOSTILE)
    async def test_texts_are_only_texts(self, assistants: Assistants, hostile: str) -> None:
        await self.create(assistants, "plain")
        await self.create(assistants, "a", graph_id=hostile, name=f"x{hostile}y", metadata={hostile: hostile})
        searches: list[dict[str, Any]] = [{"graph_id": hostile}, {"name": hostile}, {"metadata": {hostile: hostile}}]
        for wanted in searches:
            assert await self.found(assistants, **wanted) == ["a"]

    @pytest.mark.parametrize("sort_by", ["assistant_id", "graph_id", "name", "created_at", "updated_at"])
    async def test_orders_leave_no_ties(self, assistants: Assistants, sort_by: Any) -> None:
        names = {"d": "b", "a": "a", "c": "Ä", "b": "B", "e": "a", "\U0001f98c": "\uffff", "\uffff": "\U0001f98c"}
        for assistant_id, name in names.items():
            await self.create(assistants, assistant_id, name=name, graph_id=name)
        await assistants.update("a", AssistantChanges(metadata={"k": 1}), user_id=None)
        rows = await assistants.search(AssistantFilter(), sort_by=sort_by, sort_order="asc")
        expected = sorted(rows, key=lambda row: (getattr(row, sort_by), row.assistant_id))
        assert rows == tuple(expected)
        assert len(rows) == len(names)
        backwards = {"sort_by": sort_by, "sort_order": "desc"}
        ids = [row.assistant_id for row in reversed(rows)]
        assert await self.found(assistants, backwards) == ids
        pages = [await self.found(assistants, {**backwards, "limit": 3, "offset": n}) for n in (0, 3, 6, 9)]
        assert [one for page in pages for one in page] == ids

    async def test_newest_first_unless_asked_otherwise(self, assistants: Assistants) -> None:
        for assistant_id in ("b", "a", "c"):
            await self.create(assistants, assistant_id)
        rows = await assistants.search(AssistantFilter())
        assert list(rows) == sorted(rows, key=lambda row: (row.created_at, row.assistant_id), reverse=True)

    @pytest.mark.parametrize(
        "page",
        [{"limit": 0}, {"limit": 1001}, {"offset": -1}, {"sort_by": "user_id"}, {"sort_order": "up"}],
        ids=str,
    )
    async def test_pages_that_cannot_be(self, assistants: Assistants, page: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(page))):
            await assistants.search(AssistantFilter(), **page)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"assistant_id": ""},
            {"assistant_id": "a\0"},
            {"graph_id": ""},
            {"user_id": "u\0"},
            {"name": "\0"},
            {"description": "\0"},
            {"metadata": {"k": "\0"}},
        ],
        ids=str,
    )
    async def test_what_cannot_be_kept_is_refused(self, assistants: Assistants, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            await assistants.create(NewAssistant(**{"assistant_id": "a", "graph_id": "g", **wrong}))
        assert await assistants.get("a", user_id=None) is None

    async def test_a_change_that_cannot_be_kept_is_refused(self, assistants: Assistants) -> None:
        row = await self.create(assistants, "a")
        wrong: list[dict[str, Any]] = [
            {"name": ""},
            {"graph_id": "\0"},
            {"description": "\0"},
            {"metadata": {"\0": 1}},
        ]
        for changes in wrong:
            with pytest.raises(ValueError, match=next(iter(changes))):
                await assistants.update("a", AssistantChanges(**changes), user_id=None)
        assert await assistants.get("a", user_id=None) == row

    async def test_closed_means_unavailable(self, build: Build) -> None:
        async with build() as registry:
            assistants = registry.assistants
            await self.create(assistants, "a")
        with pytest.raises(StoreUnavailableError):
            await assistants.get("a", user_id=None)
        with pytest.raises(StoreUnavailableError):
            await assistants.search(AssistantFilter())
        with pytest.raises(StoreUnavailableError):
            await self.create(assistants, "b")
