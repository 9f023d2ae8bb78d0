"""Whoever loads, edits and saves, in whatever order: every fact ends as its editors left it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deerflow_replica.memory import StoreMemoryStorage
from deerflow_replica.store import SqliteStore

Act = Literal["add", "edit", "delete", "save"]

STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["add", "add", "edit", "delete", "save", "save"]), st.integers(0, 9)),
    max_size=40,
)


class Editor(NamedTuple):
    """A loaded document, and what was done to it since."""

    document: dict[str, Any]
    deleted: set[str]
    edited: set[str]


@pytest.fixture(scope="module")
def store() -> Iterator[SqliteStore]:
    with SqliteStore(":memory:") as store:
        store.setup()
        yield store


@pytest.mark.parametrize("summaries", ["scope", "user"])
def test_no_fact_is_lost_doubled_or_undead(store: SqliteStore, summaries: Any) -> None:
    storage = StoreMemoryStorage(store, summaries=summaries, history=40)

    @settings(max_examples=60)
    @given(STEPS)
    def check(steps: list[tuple[int, Act, int]]) -> None:
        user = uuid.uuid4().hex
        first = {"facts": [{"id": name, "content": f"fact {name}"} for name in "abc"]}
        assert storage.save(first, "coder", user_id=user)
        editors = {name: Editor(storage.load("coder", user_id=user), set(), set()) for name in range(3)}
        added, deleted, edited = set("abc"), set[str](), set[str]()
        for number, (name, act, choice) in enumerate(steps):
            if name not in editors:
                editors[name] = Editor(storage.load("coder", user_id=user), set(), set())
            editor = editors[name]
            if act != "save":
                change(editor, act, f"{number}", choice)
                continue
            assert storage.save(editor.document, "coder", user_id=user)
            added |= {fact["id"] for fact in editor.document["facts"]}
            deleted |= editor.deleted
            edited |= editor.edited
            del editors[name]
        ids = [fact["id"] for fact in storage.reload("coder", user_id=user)["facts"]]
        assert len(ids) == len(set(ids))
        assert added - deleted <= set(ids)
        assert set(ids) <= added - (deleted - edited)

    check()


def change(editor: Editor, act: Act, number: str, choice: int) -> None:
    facts = editor.document["facts"]
    if act == "add":
        facts.append({"id": number, "content": f"fact {number}"})
    elif facts:
        fact = facts[choice % len(facts)]
        if act == "edit":
            fact["content"] += "!"
            editor.edited.add(fact["id"])
        else:
            facts.remove(fact)
            editor.edited.discard(fact["id"])
            editor.deleted.add(fact["id"])
