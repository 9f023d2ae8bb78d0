"""The table of the merge, case by case, and its laws."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deerflow_replica.memory import create_empty_memory, merge_memory
from deerflow_replica.memory.merge import fold

Fact = dict[str, Any]
Document = dict[str, Any]

HUGE = 10**400
"""An integer that is no float."""

OLD, NEW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00+00:00"


def fact(content: str, updated: str = OLD, **more: Any) -> Fact:
    return {"id": "1", "content": content, "updatedAt": updated, **more}


BASE, EDITED, EDITED_LATER = fact("base"), fact("edited"), fact("edited too", NEW)


@pytest.mark.parametrize(
    ("theirs", "ours", "merged"),
    [
        (BASE, BASE, BASE),
        (EDITED, BASE, EDITED),
        (None, BASE, None),
        (BASE, EDITED, EDITED),
        (EDITED, EDITED_LATER, EDITED_LATER),
        (EDITED_LATER, EDITED, EDITED_LATER),
        (EDITED, fact("tie"), fact("tie")),
        (None, EDITED, EDITED),
        (BASE, None, None),
        (EDITED, None, EDITED),
        (None, None, None),
    ],
)
def test_a_fact_that_was_there(theirs: Fact | None, ours: Fact | None, merged: Fact | None) -> None:
    found = merge_memory(_with(BASE), _with(theirs), _with(ours))
    assert found["facts"] == ([merged] if merged else [])


@pytest.mark.parametrize(
    ("theirs", "ours", "merged"),
    [
        ({"createdAt": OLD}, {"createdAt": NEW}, "ours"),
        ({"createdAt": NEW}, {"createdAt": OLD}, "theirs"),
        ({"updatedAt": "soon", "createdAt": NEW}, {"createdAt": OLD}, "theirs"),
        ({"updatedAt": "2026-01-01T05:00:00+05:00"}, {"updatedAt": "2025-12-31T23:59:00Z"}, "theirs"),
        ({"updatedAt": ""}, {}, "ours"),
        ({"updatedAt": "2026-01-01T00:00:00"}, {"updatedAt": OLD}, "ours"),
    ],
)
def test_of_two_additions_with_one_id_the_later_wins(theirs: Fact, ours: Fact, merged: str) -> None:
    facts = ({"id": "1", "content": "theirs", **theirs}, {"id": "1", "content": "ours", **ours})
    assert [found["content"] for found in merge_memory(None, *map(_with, facts))["facts"]] == [merged]


def test_two_additions_with_one_content_become_one() -> None:
    theirs = {"id": "a", "content": "Likes  Tea", "confidence": 0.4}
    ours = {"id": "b", "content": "likes tea ", "confidence": 0.9}
    assert merge_memory(None, _with(theirs), _with(ours))["facts"] == [{**theirs, "confidence": 0.9}]
    assert merge_memory(None, _with(ours), _with(theirs))["facts"] == [ours]


def test_two_facts_without_content_are_not_twins() -> None:
    assert len(merge_memory(None, _with({"id": "a"}), _with({"id": "b"}))["facts"]) == 2


def test_a_fact_without_id_is_known_by_its_content() -> None:
    base, ours = {"content": "Tea"}, {"content": "tea", "confidence": 1}
    assert merge_memory(_with(base), _with(base), _with(ours))["facts"] == [ours]
    assert merge_memory(_with(base), _with(base), _with(None))["facts"] == []


def test_the_order_is_theirs_then_our_additions() -> None:
    facts = {name: {"id": name, "content": name} for name in "abcdef"}
    found = merge_memory(
        {"facts": [facts["a"], facts["b"]]},
        {"facts": [facts["c"], facts["b"], facts["a"], facts["d"]]},
        {"facts": [facts["e"], facts["a"], facts["f"], facts["b"]]},
    )
    assert [fact["id"] for fact in found["facts"]] == list("cbadef")


def test_sections_and_unknown_keys_are_merged_one_by_one() -> None:
    base = {"user": {"workContext": _section("a"), "topOfMind": _section("b")}, "mine": 1, "gone": 1, "both": 1}
    theirs = {
        "user": {"workContext": _section("theirs", NEW), "topOfMind": _section("b")},
        "mine": 1,
        "gone": 1,
        "both": 2,
    }
    ours = {"user": {"workContext": _section("ours"), "topOfMind": _section("c")}, "mine": 2, "both": 3, "new": 1}
    assert merge_memory(base, theirs, ours) == {
        "user": {"workContext": _section("theirs", NEW), "topOfMind": _section("c")},
        "mine": 2,
        "both": 3,
        "new": 1,
    }


def test_of_two_changes_of_a_section_ours_wins_a_tie() -> None:
    documents = [{"history": {"recentMonths": _section(text)}} for text in ("base", "theirs", "ours")]
    assert merge_memory(*documents) == documents[2]
    assert merge_memory(None, *documents[1:]) == documents[2]


def test_max_facts_drops_the_least_sure_then_the_oldest() -> None:
    facts = [
        {"id": "1", "confidence": 0.5, "createdAt": NEW},
        {"id": "2", "confidence": 0.5, "createdAt": OLD},
        {"id": "3", "confidence": 0.9, "createdAt": OLD},
        {"id": "4"},
    ]
    kept = [[fact["id"] for fact in merge_memory(None, {"facts": facts}, {}, max_facts=n)["facts"]] for n in range(5)]
    assert kept == [[], ["3"], ["1", "3"], ["1", "2", "3"], ["1", "2", "3", "4"]]


# laws

_IDS = st.sampled_from([None, "1", "2", "3", "4", "5"])
_CONTENTS = st.sampled_from(["tea", "Tea ", "coffee", "milk", None])
_TIMES = st.sampled_from([None, "", OLD, NEW, "not a time"])


def _facts() -> st.SearchStrategy[list[Fact]]:
    each = st.fixed_dictionaries(
        {"content": _CONTENTS},
        optional={"id": _IDS, "updatedAt": _TIMES, "createdAt": _TIMES, "confidence": st.sampled_from([0.1, 0.5, 1])},
    )
    return st.lists(each, max_size=6).map(_one_per_id)


def _one_per_id(facts: list[Fact]) -> list[Fact]:
    known = {fact.get("id") or f"at {place}": fact for place, fact in enumerate(facts)}
    return list(known.values())


_SECTIONS = st.dictionaries(
    st.sampled_from(["workContext", "topOfMind"]),
    st.fixed_dictionaries({"summary": st.sampled_from(["", "a", "b"]), "updatedAt": _TIMES}),
)
_DOCUMENTS = st.fixed_dictionaries(
    {"facts": _facts()},
    optional={"user": _SECTIONS, "history": _SECTIONS, "mine": st.integers(0, 2), "revision": st.integers(0, 3)},
)


@given(_DOCUMENTS, _DOCUMENTS)
def test_with_one_side_unchanged_the_other_is_the_result(base: Document, changed: Document) -> None:
    assert _unordered(merge_memory(base, base, changed)) == _unordered(changed)
    assert merge_memory(base, changed, base) == changed


@given(_DOCUMENTS, _DOCUMENTS, _DOCUMENTS)
def test_no_addition_is_lost(base: Document, theirs: Document, ours: Document) -> None:
    merged = merge_memory(base, theirs, ours)
    there = {fold(fact["content"]) for fact in merged["facts"]} | {fact.get("id") for fact in merged["facts"]}
    known = {fact.get("id") or fold(fact["content"]) for fact in base["facts"]}
    for fact in [*theirs["facts"], *ours["facts"]]:
        if (fact.get("id") or fold(fact["content"])) not in known:
            assert fold(fact["content"]) in there or fact.get("id") in there


@given(_DOCUMENTS, _DOCUMENTS)
def test_without_base_nothing_is_deleted(theirs: Document, ours: Document) -> None:
    merged = merge_memory(None, theirs, ours)
    ids = {fact.get("id") for fact in merged["facts"]}
    assert {fold(fact["content"]) for fact in merged["facts"]} >= {
        fold(fact["content"]) for fact in [*theirs["facts"], *ours["facts"]] if fact.get("id") not in ids
    }
    assert set(merged) == set(theirs) | set(ours)


@given(_DOCUMENTS, _DOCUMENTS, _DOCUMENTS)
def test_merging_again_changes_nothing(base: Document, theirs: Document, ours: Document) -> None:
    merged = merge_memory(base, theirs, ours)
    assert _unordered(merge_memory(base, ours, ours)) == _unordered(ours)
    assert merge_memory(base, merged, merged) == merged
    assert merge_memory(theirs, merged, theirs) == merged


@given(_DOCUMENTS, _DOCUMENTS, _DOCUMENTS, st.none() | st.integers(0, 4))
def test_arguments_stay_and_results_are_private(
    base: Document, theirs: Document, ours: Document, max_facts: int | None
) -> None:
    before = copy.deepcopy((base, theirs, ours))
    merged = merge_memory(base, theirs, ours, max_facts=max_facts)
    for fact in merged["facts"]:
        fact["content"] = "changed"
    merged.setdefault("user", {})["workContext"] = "changed"
    assert (base, theirs, ours) == before
    assert max_facts is None or len(merged["facts"]) <= max_facts


def test_two_empty_documents() -> None:
    empty = create_empty_memory()
    assert merge_memory(None, empty, empty) == empty


def _with(fact: Fact | None) -> Document:
    return {"facts": [fact] if fact else []}


def _section(summary: str, updated: str = OLD) -> dict[str, str]:
    return {"summary": summary, "updatedAt": updated}


def _unordered(document: Document) -> Document:
    return {**document, "facts": sorted(document["facts"], key=repr)}


def test_a_confidence_that_is_no_float_ranks_all_the_same() -> None:
    weak, strong = {"id": "w", "content": "x", "confidence": -HUGE}, {"id": "s", "content": "X", "confidence": HUGE}
    assert merge_memory(None, {"facts": [weak]}, {"facts": [strong]})["facts"] == [{**weak, "confidence": HUGE}]
    other = {"id": "o", "content": "other", "confidence": 0.9}
    assert merge_memory(None, {"facts": [strong]}, {"facts": [other]}, max_facts=1)["facts"] == [strong]
