"""Wait for a condition, with a deadline: tests never sleep for a guessed time."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

_POLL_SECONDS = 0.01


@overload
async def eventually(
    check: Callable[[], Awaitable[T | None]], *, timeout: float = 60.0, what: str = "the condition"
) -> T: ...
@overload
async def eventually(check: Callable[[], T | None], *, timeout: float = 60.0, what: str = "the condition") -> T: ...
async def eventually(check: Callable[[], Any], *, timeout: float = 60.0, what: str = "the condition") -> Any:
    """Call `check` until it returns something true, and return that; `AssertionError` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        outcome = check()
        value = await outcome if inspect.isawaitable(outcome) else outcome
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout} s; last value: {value!r}"
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), _POLL_SECONDS)


def eventually_sync(check: Callable[[], T | None], *, timeout: float = 60.0, what: str = "the condition") -> T:
    """The same without a loop."""
    deadline = time.monotonic() + timeout
    while not (value := check()):
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout} s; last value: {value!r}"
        threading.Event().wait(_POLL_SECONDS)
    return value
