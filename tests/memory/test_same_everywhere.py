"""Files, a store with versions and one without do the same with whatever two replicas do."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.store.memory import InMemoryStore

from deerflow_replica.errors import VersionConflictError
from deerflow_replica.memory import FileMemoryStorage, MemoryStorage, StoreMemoryStorage
from deerflow_replica.store import SqliteStore

AGENTS = (None, "coder")
FACTS = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["tea", "TEA ", "milk"]), max_size=3)
TIME = "2026-01-01T00:00:00Z"


class Step(NamedTuple):
    replica: int
    agent: str | None
    act: str
    facts: dict[str, str]
    number: int


STEPS = st.lists(
    st.builds(
        Step,
        st.integers(0, 1),
        st.sampled_from(AGENTS),
        st.sampled_from(["remember", "remember", "save", "save", "replace", "strict", "change", "clear"]),
        FACTS,
        st.integers(0, 4),
    ),
    max_size=12,
)


class Pair:
    """Two replicas on one place, and the documents that they remember."""

    def __init__(self, build: Callable[[], MemoryStorage]) -> None:
        self.replicas = (build(), build())
        self.remembered: dict[tuple[int, str | None], dict[str, Any]] = {}

    def do(self, step: Step) -> object:
        try:
            return getattr(self, f"_{step.act}")(self.replicas[step.replica], step)
        except VersionConflictError as conflict:
            return conflict.current

    def _remember(self, storage: MemoryStorage, step: Step) -> object:
        self.remembered[step.replica, step.agent] = storage.load(step.agent, user_id="ann")
        return None

    def _save(self, storage: MemoryStorage, step: Step) -> object:
        seen = self.remembered.get((step.replica, step.agent), {"revision": 0})
        document = {**seen, "facts": facts(step), "user": {"topOfMind": {"summary": str(step.number)}}}
        return storage.save(document, step.agent, user_id="ann")

    def _replace(self, storage: MemoryStorage, step: Step) -> object:
        return storage.save({"facts": facts(step), "mine": step.number}, step.agent, user_id="ann")

    def _strict(self, storage: MemoryStorage, step: Step) -> object:
        return storage.save({"facts": facts(step)}, step.agent, user_id="ann", expected_revision=step.number)

    def _change(self, storage: MemoryStorage, step: Step) -> object:
        changes = {"upserts": facts(step), "deletes": sorted(set("abcd") - set(step.facts))[: step.number]}
        result = storage.apply_changes(changes, agent_name=step.agent, user_id="ann")
        return result["revision"], result["deletedFactIds"]

    def _clear(self, storage: MemoryStorage, step: Step) -> object:
        return storage.clear_all(user_id="ann")["revision"]

    def documents(self) -> list[dict[str, Any]]:
        """What both replicas see of all scopes."""
        seen = [replica.load(agent, user_id="ann") for replica, agent in product(self.replicas, AGENTS)]
        return [{**document, "lastUpdated": ""} for document in seen]


def facts(step: Step) -> list[dict[str, Any]]:
    return [{"id": name, "content": text, "confidence": 0.5, "createdAt": TIME} for name, text in step.facts.items()]


@settings(max_examples=30)
@given(STEPS, st.sampled_from(["scope", "user"]))
def test_all_backends_do_the_same(steps: list[Step], summaries: Any) -> None:
    with TemporaryDirectory() as folder, SqliteStore(Path(folder) / "store.db") as store:
        store.setup()
        plain = InMemoryStore()
        options: Any = {"history": 3, "summaries": summaries}
        files = Pair(lambda: FileMemoryStorage(Path(folder) / "files", **options))
        others = [
            Pair(lambda: StoreMemoryStorage(store, **options)),
            Pair(lambda: StoreMemoryStorage(plain, **options)),
        ]
        for step in steps:
            expected = files.do(step)
            assert [other.do(step) for other in others] == [expected, expected]
            documents = files.documents()
            assert [other.documents() for other in others] == [documents, documents]
            assert documents[:2] == documents[2:]
