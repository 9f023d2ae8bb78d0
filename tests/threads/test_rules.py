"""The pure rules: a write that is attempted again recognises that its first attempt had arrived. And cursors."""

from __future__ import annotations

import pickle
from base64 import urlsafe_b64encode
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from deerflow_replica.threads import mongo_rows, paging, rules
from deerflow_replica.threads.rules import Changes, NewThread, Row
from deerflow_replica.threads.values import ANY_USER, UNSET, Claim, ThreadPage, ThreadRecord

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


def test_records_are_values() -> None:
    record = rules.record_of(stored())
    assert pickle.loads(pickle.dumps(record)) == record  # noqa: S301  # our own
    assert record == rules.record_of(stored())
    assert not hasattr(record, "__dict__")
    for value, name in (
        (record, "user_id"),
        (Claim("t", True, True, record), "granted"),
        (ThreadPage((), None), "items"),
    ):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)
    with pytest.raises(TypeError):
        ThreadRecord("t", "ann")  # type: ignore[call-arg]  # keywords only
    assert pickle.loads(pickle.dumps(ANY_USER)) is ANY_USER  # noqa: S301  # our own


@pytest.mark.parametrize("expires_at", [None, _NOW - 1, _NOW, _NOW + 1])
@pytest.mark.parametrize("status", ["idle", "busy"])
@pytest.mark.parametrize("deleted_at", [None, _NOW])
def test_mongodb_and_the_rules_agree_on_what_lives(expires_at: int | None, status: str, deleted_at: int | None) -> None:
    row = stored()._replace(expires_at=expires_at, status=status, deleted_at=deleted_at)
    assert mongo_rows.lives(mongo_rows.document_of("default", row), _NOW) == rules.is_live(row, _NOW)


def test_the_moment_of_expiry_and_the_end_of_a_tombstone() -> None:
    row = stored()._replace(expires_at=_NOW + 5)
    assert [rules.is_live(row, _NOW + later) for later in (4, 5, 6)] == [True, False, False]
    assert [rules.binding_owner(row, _NOW + later, 3) for later in (4, 5, 7, 8)] == ["ann", "ann", "ann", None]


def test_the_longest_cursor() -> None:
    place = (2**62, "\U0001f98c" * 255)
    assert paging.read_cursor(paging.write_cursor(place, "x"), "x") == place


def test_a_cursor_that_is_nested_without_end_is_refused_as_any_other() -> None:
    body = urlsafe_b64encode(b"[" * 100_000).decode().rstrip("=")
    with pytest.raises(ValueError, match="cursor"):
        paging.read_cursor(f"{body}.{paging._seal(body, 'x')}", "x")
