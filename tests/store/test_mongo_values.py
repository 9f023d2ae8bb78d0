"""Values as MongoDB's documents."""

from __future__ import annotations

from typing import Any

import bson
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deerflow_replica.store.filters import parse
from deerflow_replica.store.mongo_values import from_stored, prefilter, to_stored

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
NAMES = TEXTS | st.sampled_from(["", "%put", "$", "$ne", "a.b", "%", "%int", "%24", "%2", "_id", "0", "$ref", "$id"])
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_what_is_stored_comes_back(value: dict[str, Any]) -> None:
    document = orjson.dumps(value)
    through = bson.decode(bson.encode({"value": to_stored(document)}))
    assert same(orjson.loads(from_stored(through["value"])), orjson.loads(document))


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_no_name_means_something_to_mongodb(value: dict[str, Any]) -> None:
    assert all(name and "." not in name and "$" not in name for name in names(to_stored(orjson.dumps(value))))


def test_a_plain_value_looks_like_itself() -> None:
    value = {"text": "a.b$", "list": [1, 2.5, None, True], "inner": {"ü": {}}}
    assert without_mark(to_stored(orjson.dumps(value))) == value


def test_a_list_in_a_list_is_wrapped() -> None:
    assert without_mark(to_stored(b'{"a":[1,[2,[]]]}')) == {"a": [1, {"%list": [2, {"%list": []}]}]}


def test_the_deepest_document_is_within_mongodbs_limit() -> None:
    """Of 100 levels, with those around it."""
    stored = to_stored(orjson.dumps({"a": orjson.loads("[" * 45 + "]" * 45)}))
    assert isinstance(stored, dict)
    assert levels(stored) < 95


@pytest.mark.parametrize(
    "value",
    [{"list": [0] * 2**20}, {"text": "x" * (3 * 2**20)}, {"deep": orjson.loads("[" * 50 + "]" * 50)}],
    ids=["many", "long", "deep"],
)
def test_what_bson_may_not_hold_is_a_text(value: dict[str, Any]) -> None:
    document = orjson.dumps(value)
    stored = to_stored(document)
    assert isinstance(stored, str)
    assert orjson.loads(from_stored(stored)) == value


def test_the_largest_document_is_within_bsons_limit() -> None:
    stored = to_stored(orjson.dumps({"a": [0] * (2**20 - 4)}))
    assert isinstance(stored, dict)
    assert len(bson.encode({"value": stored})) < 16 * 2**20


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ({}, []),
        ({"a": "x"}, [{"value.a": "x"}]),
        ({"a.b": None}, [{"value.a%2Eb": None}]),
        ({"": True}, [{"value.%": True}]),
        ({"$and": [{"a": 1}, {"b": {"$eq": 2.5}}]}, [{"value.a": 1}, {"value.b": 2.5}]),
        ({"a": {"$in": ["x", 1]}}, [{"value.a": {"$in": ["x", 1]}}]),
        ({"a": {"$exists": True}}, [{"value.a": {"$exists": True}}]),
        ({"a": {"$gt": "x"}}, [{"$or": [{"value.a": {"$gt": "x"}}, {"value.a": {"$type": "object"}}]}]),
    ],
)
def test_what_mongodb_is_asked(filter: dict[str, Any], found: list[Any]) -> None:
    expected = {"$or": [{"value": {"$type": "string"}}, {"$and": found}]} if found else {}
    assert prefilter(parse(filter)) == expected


@pytest.mark.parametrize(
    "filter",
    [
        {"a": 2**60},
        {"a": {"$gt": float("inf")}},
        {"a": [1]},
        {"a": {"$ne": 1}},
        {"a": {"b": 1}},
        {"a": {"$in": [1, [2]]}},
        {"a": {"$in": list(range(1_000_000))}},
        {"a": "x" * 2**20},
        {"$or": [{"a": 1}, {"b": 2}]},
        {"$not": {"a": 1}},
        {"a": {"$exists": False}},
        {"a": {"$contains": 1}},
    ],
)
def test_what_mongodb_is_not_asked(filter: dict[str, Any]) -> None:
    """It would understand it in its own way."""
    assert prefilter(parse(filter)) == {}


def test_no_two_puts_are_the_same() -> None:
    """FerretDB leaves a document as it is when the values in the new one are the same, and looks at no name."""
    assert to_stored(b'{"a":1}') != to_stored(b'{"a":1}')


def without_mark(stored: Any) -> Any:
    return {name: one for name, one in stored.items() if name != "%put"}


def same(one: Any, other: Any) -> bool:
    """Types and all, and whatever order."""
    return orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)


def levels(stored: Any) -> int:
    if not isinstance(stored, (dict, list)):
        return 0
    return 1 + max(map(levels, stored.values() if isinstance(stored, dict) else stored), default=0)


def names(stored: Any) -> list[str]:
    if isinstance(stored, dict):
        return [*stored, *(name for one in stored.values() for name in names(one))]
    return [name for one in stored for name in names(one)] if isinstance(stored, list) else []
