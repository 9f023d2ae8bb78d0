"""The pure rules: a write that is attempted again recognises that its first attempt had arrived."""

from __future__ import annotations

from typing import Any

import pytest

from deerflow_replica.threads import rules
from deerflow_replica.threads.rules import Changes, NewThread, Row
from deerflow_replica.threads.values import UNSET

_NOW = 1_700_000_000_000_000
_NEW = NewThread("ann", None, None, "idle", "{}", None, "first")
_CHANGES = Changes(UNSET, UNSET, "busy", "{}", False, (), UNSET, True, 1, "second")


def stored() -> Row:
    return _NEW.row("t", _NOW)


@pytest.mark.parametrize(
    ("rule", "before"),
    [
        (rules.claim("t", _NEW, 10), None),
        (rules.update("ann", _CHANGES), stored()),
        (rules.touch("ann", "second"), stored()),
        (rules.transfer("ann", "bob", 1, "second"), stored()),
        (rules.delete("ann", "second"), stored()),
    ],
    ids=["claim", "update", "touch", "transfer", "delete"],
)
def test_a_repeated_write_is_one_success(rule: Any, before: Row | None) -> None:
    first = rule(_NOW + 5, before)
    assert first.answer
    assert first.row is not None
    again = rule(_NOW + 7, first.row)
    assert again.answer == first.answer
    assert again.row is None


def test_time_never_runs_backwards() -> None:
    touched = rules.touch("ann", "second")(_NOW - 1000, stored()).row
    assert touched is not None
    assert touched.updated_at == _NOW + 1
