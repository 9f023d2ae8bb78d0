"""The fixtures that the parts of `ThreadMapContract` share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import pytest

from ..threads.base import ThreadMap
from ..threads.values import ThreadRecord
from ._contract import Contract

Build: TypeAlias = Callable[..., ThreadMap]

HOSTILE_IDS = (
    "a:b",
    "{x}",
    "*",
    "%",
    "_",
    "' OR 1=1 --",
    'quote"',
    "back\\slash",
    " leading and trailing ",
    "UPPER",
    "upper",
    "ü",  # one character
    "u\u0308",  # the same letter in two
    "\U0001f98c",
    "\x80",  # the first character after those that are refused
    "\uffff",
    "x" * 255,
)
BAD_IDS: tuple[Any, ...] = ("", "x" * 256, "a\x00b", "a\nb", "\x1f", "a\x7f", "\ud800", None, 7, True, b"t", ["t"])


class ThreadMapFixtures(Contract):
    @pytest.fixture
    def build(self) -> Build:
        """A function that makes one more replica's map on this test's store, with the common keywords it is given."""
        raise NotImplementedError

    @pytest.fixture
    async def threads(self, build: Build) -> AsyncIterator[ThreadMap]:
        async with build() as threads:
            yield threads

    @pytest.fixture
    async def other(self, build: Build, threads: ThreadMap) -> AsyncIterator[ThreadMap]:
        """A second replica."""
        async with build() as other:
            yield other


async def until(check: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.005)


async def claimed(threads: ThreadMap, thread_id: str, user_id: str, **fields: Any) -> ThreadRecord:
    """The record of a claim that must be granted."""
    record = (await threads.claim(thread_id, user_id, **fields)).record
    assert record is not None
    return record


async def walked(threads: ThreadMap, user_id: str, *, beside_writers: bool = False, **query: Any) -> list[str]:
    """The ids of all pages; no page but the only one may be empty, unless what it had is deleted meanwhile."""
    ids: list[str] = []
    cursor = None
    while True:
        page = await threads.list(user_id, cursor=cursor, **query)
        assert page.items or cursor is None or beside_writers, "an empty last page"
        ids += [record.thread_id for record in page.items]
        if page.next_cursor is None:
            return ids
        cursor = page.next_cursor
