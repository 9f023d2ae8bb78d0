"""Random histories of assistants: the in-process rows are the oracle of the databases'."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from anyio.from_thread import start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st

from deerflow_replica.runs.registry.assistants import (
    AssistantChanges,
    AssistantFilter,
    AssistantRow,
    Assistants,
    NewAssistant,
)
from deerflow_replica.runs.registry.inmemory import InMemoryRunRegistry
from deerflow_replica.runs.registry.postgres import PostgresRunRegistry
from deerflow_replica.runs.registry.sqlite import SqliteRunRegistry

NEVER = datetime(2000, 1, 1, tzinfo=UTC)

ids = st.sampled_from("abc")
users = st.sampled_from(["u", "u", "u", None])
names = st.sampled_from(["x", "X", "ß", "SS", "Ä", "%", "\U0001f98c", "\uffff"])
scalars = st.sampled_from([None, True, 1, 1.0, 0.5, "1", "", "é", [1, [True]], {"k": None}, {"k": {"j": 1}}, [], {}])
documents = st.dictionaries(st.sampled_from(["k", "'"]), scalars, max_size=2)
parts: st.SearchStrategy[dict[str, Any]] = st.just({}) | documents

news = st.builds(
    NewAssistant, assistant_id=ids, graph_id=names, user_id=users, name=names, metadata=documents, context=documents
)
changes = st.builds(
    AssistantChanges,
    graph_id=st.none() | names,
    name=st.none() | names,
    config=st.none() | documents,
    context=st.none() | documents,
    metadata=st.none() | documents,
)
wanted = st.builds(AssistantFilter, user_id=users, graph_id=st.none(), name=st.none() | names, metadata=parts)
orders = st.fixed_dictionaries(
    {
        "sort_by": st.sampled_from(["assistant_id", "graph_id", "name", "created_at"]),
        "sort_order": st.sampled_from(["asc", "desc"]),
        "limit": st.integers(1, 3),
        "offset": st.integers(0, 1),
    }
)
owned = st.builds(lambda user_id: {"user_id": user_id}, users)
calls = st.one_of(
    st.tuples(st.just("create"), st.tuples(news), st.just({})),
    st.tuples(st.just("update"), st.tuples(ids, changes), owned),
    st.tuples(st.just("get"), st.tuples(ids), owned),
    st.tuples(st.just("delete"), st.tuples(ids), owned),
    st.tuples(st.just("search"), st.tuples(wanted), orders),
    st.tuples(st.just("count"), st.tuples(wanted), st.just({})),
)
Call = tuple[str, tuple[Any, ...], dict[str, Any]]


def _timeless(answer: Any) -> Any:
    if isinstance(answer, tuple):
        return [_timeless(one) for one in answer]
    if isinstance(answer, AssistantRow):
        return replace(answer, created_at=NEVER, updated_at=NEVER)
    return answer


async def _emptied(assistants: Assistants) -> None:
    for user_id in ("u", None):
        for row in await assistants.search(AssistantFilter(user_id=user_id)):
            await assistants.delete(row.assistant_id, user_id=user_id)


@settings(max_examples=40)
@given(made=st.lists(news, min_size=3, max_size=6), history=st.lists(calls, min_size=10, max_size=25))
def _same(opened: Any, made: list[NewAssistant], history: list[Call]) -> None:
    """`opened` is a portal to the loop of the databases, and their registries."""
    portal, registries = opened
    oracle = InMemoryRunRegistry()

    async def compare() -> None:
        for registry in registries:
            await _emptied(registry.assistants)
        async with oracle:
            for method, arguments, keywords in [*(("create", (new,), {}) for new in made), *history]:
                expected, *answers = [
                    _timeless(await getattr(registry.assistants, method)(*arguments, **keywords))
                    for registry in (oracle, *registries)
                ]
                for answer in answers:
                    assert answer == expected, (method, arguments, keywords)

    portal.call(compare)


def test_the_databases_answer_as_the_oracle(tmp_path: Path, postgres_dsn: str, postgres_schema: str) -> None:
    with start_blocking_portal() as portal:
        sqlite = SqliteRunRegistry(tmp_path / "registry.db")
        postgres = PostgresRunRegistry(postgres_dsn, schema=postgres_schema)
        with (
            portal.wrap_async_context_manager(sqlite),
            portal.wrap_async_context_manager(postgres),
        ):
            _same((portal, (sqlite, postgres)))
