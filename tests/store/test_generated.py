"""Generated values, filters and calls: every backend finds what the pure reference says, and remembers like a dict."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from langgraph.store.base import PutOp

from deerflow_replica.errors import VersionConflictError
from deerflow_replica.store import MongoStore, PostgresStore, SharedStore, SqliteStore, matches

BACKENDS = ("sqlite", "postgres", "mongodb")
PER_BACKEND = {"sqlite": 100, "postgres": 50, "mongodb": 40}

TEXTS = st.sampled_from(["", "a", "A", "é", "10", "%", "a.b", "'", '"', "\\", "\U0001f98c", "\uffff"])
NAMES = st.sampled_from(["a", "b", "a.b", "", "%", '"'])
NUMBERS = st.sampled_from([0, 1, -1, 1.0, 10, 0.5, 2**53, 2**53 + 1, 2.0**53, 2**63 - 1, -(2**63), 2**64 - 1, 1e300])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
JSON = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(NAMES, SCALARS, max_size=2) | st.just([[1]])
VALUES = st.dictionaries(NAMES, JSON, min_size=1, max_size=3)
OPERANDS = JSON | st.sampled_from([float("inf"), float("nan"), 10**30, -(10**30), "a\0", "\ud800"])


def filters_for(values: list[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Many of them about what is there."""
    there = [one for value in values for one in value.values()]
    operands = st.sampled_from(there) | OPERANDS if there else OPERANDS
    names = st.sampled_from([name for value in values for name in value] or ["a"]) | NAMES
    operation = st.one_of(
        st.dictionaries(
            st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]), operands, min_size=1, max_size=2
        ),
        st.fixed_dictionaries({"$contains": operands}),
        st.dictionaries(st.sampled_from(["$in", "$nin"]), st.lists(operands, max_size=3), min_size=1, max_size=1),
        st.fixed_dictionaries({"$exists": st.booleans()}),
    )
    condition = operands | operation | st.fixed_dictionaries({"$not": operation}) | st.lists(operation, max_size=2)
    plain = st.dictionaries(names, condition, min_size=1, max_size=2)
    logical = st.dictionaries(st.sampled_from(["$and", "$or"]), st.lists(plain, max_size=2), min_size=1, max_size=1)
    return st.one_of(plain, plain, logical, st.fixed_dictionaries({"$not": plain}))


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def store(backend: str, request: pytest.FixtureRequest) -> Iterator[SharedStore]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with built(backend, name, request.getfixturevalue) as store:
        store.setup()
        yield store
    if backend == "postgres":
        _drop_schema(request.getfixturevalue("postgres_dsn"), name)
    if backend == "mongodb":
        _drop_database(request.getfixturevalue("mongo_url"), name)


def built(backend: str, name: str, fixture: Callable[[str], str]) -> SharedStore:
    if backend == "sqlite":
        return SqliteStore(":memory:")
    if backend == "postgres":
        return PostgresStore(fixture("postgres_dsn"), schema=name)
    return MongoStore(fixture("mongo_url"), database=name)


def test_filters_find_what_matches_says(store: SharedStore, backend: str) -> None:
    @settings(max_examples=PER_BACKEND[backend], suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(VALUES, min_size=1, max_size=6), st.data())
    def check(values: list[dict[str, Any]], data: st.DataObject) -> None:
        filters = data.draw(st.lists(filters_for(values), min_size=3, max_size=6))
        namespace = uuid.uuid4().hex
        store.batch([PutOp((namespace,), str(place), value) for place, value in enumerate(values)])
        for filter_ in filters:
            expected = {str(place) for place, value in enumerate(values) if matches(value, filter_)}
            assert {item.key for item in store.search((namespace,), filter=filter_, limit=99)} == expected
            assert store.count((namespace,), filter=filter_) == len(expected)
        store.delete_namespace((namespace,))

    check()


LABELS = st.sampled_from(["a", "a-b", "ab", "b", "é", "%"])
NAMESPACES = st.lists(LABELS, min_size=1, max_size=3).map(tuple)
KEYS = st.sampled_from(["", "k", "l"])


class StoreMachine(RuleBasedStateMachine):
    """One store, and a dict of what should be in it, newest last."""

    store: SharedStore
    places = Bundle("places")

    @initialize()
    def begin(self) -> None:
        self.root = uuid.uuid4().hex
        self.view = self.store.scoped(self.root)
        self.items: dict[tuple[tuple[str, ...], str], dict[str, Any]] = {}
        self.versions: dict[tuple[tuple[str, ...], str], int] = {}

    @rule(target=places, namespace=NAMESPACES, key=KEYS)
    def place(self, namespace: tuple[str, ...], key: str) -> tuple[tuple[str, ...], str]:
        return namespace, key

    @rule(place=places, value=VALUES)
    def put(self, place: tuple[tuple[str, ...], str], value: dict[str, Any]) -> None:
        self.view.put(*place, value)
        self._wrote(place, value)

    @rule(place=places)
    def delete(self, place: tuple[tuple[str, ...], str]) -> None:
        self.view.delete(*place)
        self.items.pop(place, None)

    @rule(place=places, value=VALUES, is_current=st.booleans())
    def put_if(self, place: tuple[tuple[str, ...], str], value: dict[str, Any], is_current: bool) -> None:
        there = self.view.get_versioned(*place)
        current = 0 if there is None else there.version
        if is_current:
            version = self.view.put(*place, value, if_version=current)
            assert version is not None
            self._wrote(place, value)
            assert self.versions[place] == version
            return
        with pytest.raises(VersionConflictError) as caught:
            self.view.put(*place, value, if_version=current + 1)
        assert caught.value.current == current

    @rule(place=places, name=NAMES)
    def update(self, place: tuple[tuple[str, ...], str], name: str) -> None:
        self.view.update(*place, lambda value: {**(value or {}), name: len(value or {})})
        self._wrote(place, {**self.items.get(place, {}), name: len(self.items.get(place, {}))})

    @rule(namespace=NAMESPACES)
    def delete_namespace(self, namespace: tuple[str, ...]) -> None:
        gone = [place for place in self.items if place[0][: len(namespace)] == namespace]
        assert self.view.delete_namespace(namespace) == len(gone)
        for place in gone:
            del self.items[place]

    @rule(namespace=NAMESPACES | st.just(()), data=st.data())
    def search(self, namespace: tuple[str, ...], data: st.DataObject) -> None:
        filter_ = data.draw(filters_for(list(self.items.values())) | st.just({}))
        expected = {
            place
            for place, value in self.items.items()
            if place[0][: len(namespace)] == namespace and matches(value, filter_)
        }
        found = self.view.search(namespace, filter=filter_, limit=99)
        assert {(item.namespace, item.key) for item in found} == expected
        order = sorted(sorted(found, key=lambda item: (item.namespace, item.key)), key=_updated, reverse=True)
        assert [(item.namespace, item.key) for item in found] == [(item.namespace, item.key) for item in order]
        pages = [
            self.view.search(namespace, filter=filter_, limit=2, offset=start) for start in range(0, len(found), 2)
        ]
        assert [item for page in pages for item in page] == found

    @rule(depth=st.none() | st.integers(1, 3))
    def list_namespaces(self, depth: int | None) -> None:
        expected = sorted({namespace[:depth] for namespace, _ in self.items})
        assert self.view.list_namespaces(max_depth=depth) == expected

    @invariant()
    def holds_what_it_should(self) -> None:
        if not hasattr(self, "items"):
            return
        found = {(item.namespace, item.key): item.value for item in self.view.search((), limit=99)}
        assert found == self.items

    def teardown(self) -> None:
        if hasattr(self, "root"):
            self.store.delete_namespace((self.root,))

    def _wrote(self, place: tuple[tuple[str, ...], str], value: dict[str, Any]) -> None:
        """A version is greater than all that the item, and those before it in its place, have had."""
        there = self.view.get_versioned(*place)
        assert there is not None
        assert there.version >= self.versions.get(place, 0)
        self.versions[place] = there.version
        self.items[place] = value


def test_it_remembers_what_a_dict_does(store: SharedStore, backend: str) -> None:
    class Machine(StoreMachine):
        pass

    Machine.store = store
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=PER_BACKEND[backend] // 4, stateful_step_count=15, deadline=None)
    )


def _updated(item: Any) -> Any:
    return item.updated_at


def _drop_schema(dsn: str, name: str) -> None:
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE'.encode())


def _drop_database(url: str, name: str) -> None:
    from pymongo import MongoClient

    with MongoClient[dict[str, Any]](url) as client:
        client.drop_database(name)
