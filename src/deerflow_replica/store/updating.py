"""Read, change, write: again when somebody else wrote meanwhile."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeAlias, TypeVar

import orjson

from ..errors import VersionConflictError
from .conditions import are_equal
from .values import Row

T = TypeVar("T")
Change: TypeAlias = Mapping[str, Any] | None
UpdateFunction: TypeAlias = Callable[[dict[str, Any] | None], Change | Awaitable[Change]]

_FIRST_PAUSE_SECONDS = 0.001
_LONGEST_PAUSE_SECONDS = 0.1


async def updated(
    do: Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]],
    read: Callable[[], Coroutine[Any, Any, Row | None]],
    write: Callable[[Change, int], Coroutine[Any, Any, T]],
    fn: UpdateFunction,
    max_attempts: int,
) -> Row | T | None:
    """The row that was equal already, or what `write` made of the new value.

    `do` awaits each step, or blocks until it is done: so a plain `fn` runs where the caller is.
    """
    for attempt in range(1, max_attempts + 1):
        row: Row | None = await do(read())
        value = fn(None if row is None else orjson.loads(row.document))
        if inspect.isawaitable(value):
            value = await do(_awaited(value))
        if _is_unchanged(row, value):
            return row
        try:
            return await do(write(value, 0 if row is None else row.version))  # type: ignore[no-any-return]  # it is T
        except VersionConflictError:
            if attempt == max_attempts:
                raise
        await do(asyncio.sleep(random.uniform(0, _pause(attempt))))  # noqa: S311  # jitter, not a secret
    raise AssertionError("max_attempts is at least 1")


def _is_unchanged(row: Row | None, value: Change) -> bool:
    if row is None or value is None:
        return row is None and value is None
    return are_equal(value, orjson.loads(row.document))


def _pause(attempt: int) -> float:
    return min(_FIRST_PAUSE_SECONDS * 2.0 ** min(attempt, 16), _LONGEST_PAUSE_SECONDS)


async def _awaited(value: Awaitable[T]) -> T:
    return await value
