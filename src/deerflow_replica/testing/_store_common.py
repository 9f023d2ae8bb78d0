"""The fixtures that the parts of `StoreContract` share."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import pytest
from langgraph.store.base import BaseStore

from ..store.base import SharedStore
from ._contract import Contract

BuildStore: TypeAlias = Callable[..., SharedStore]
T = TypeVar("T")

HOSTILE_LABELS = (
    "%",
    "_",
    "*",
    "\\",
    "[a]",
    "a%",
    "' OR 1=1 --",
    'quote"',
    "$",
    "{x}",
    " ",
    "UPPER",
    "upper",
    "-",
    "ü",  # one character
    "u\u0308",  # the same letter in two
    "\U0001f98c",
    "\uffff",
    "\x01",
)
HOSTILE_KEYS = (*HOSTILE_LABELS, "", ".", "a.b", "x" * 1024, "é" * 512)
BAD_NAMESPACES: tuple[Any, ...] = (("",), ("a.b",), ("a", ""), ("a\x00",), ("\ud800",), (1,), "ab", None, ("x" * 1025,))
BAD_KEYS: tuple[Any, ...] = ("a\x00b", "\ud800", "x" * 1025, "é" * 513)
BAD_VALUES: tuple[Any, ...] = (
    {"v": float("nan")},
    {"v": float("inf")},
    {"v": [1, -float("inf")]},
    {"v": "a\x00b"},
    {"a\x00": 1},
    {"v": "\ud800"},
    {"v": {1, 2}},
    {"v": b"bytes"},
    {"v": object()},
    {"v": time},
    {1: "one"},
    {"v": {None: 1}},
    {"v": 2**64},
    [1],
    "text",
    7,
)


class StoreFixtures(Contract):
    """The operations are tried through the async methods; those of the sync ones through threads."""

    @pytest.fixture
    def build(self) -> BuildStore:
        """A function that makes one more replica's store on this test's database, with the common keywords it is
        given: `ttl`, and `index` where the backend has one. Not yet set up.
        """
        raise NotImplementedError

    @pytest.fixture
    async def store(self, build: BuildStore) -> AsyncIterator[SharedStore]:
        async with build() as store:
            await store.asetup()
            yield store

    @pytest.fixture
    async def other(self, build: BuildStore, store: SharedStore) -> AsyncIterator[SharedStore]:
        """A second replica."""
        async with build() as other:
            yield other


async def until(check: Callable[[], Awaitable[T]], seconds: float = 60.0) -> T:
    deadline = time.monotonic() + seconds
    while not (outcome := await check()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.005)
    return outcome


async def keys_of(store: BaseStore, *prefix: str, **query: Any) -> list[str]:
    return [item.key for item in await store.asearch(prefix, **query)]


async def fill(store: SharedStore, namespace: tuple[str, ...], *values: dict[str, Any]) -> None:
    """Items "0", "1" ... one after the other."""
    for place, value in enumerate(values):
        await store.aput(namespace, str(place), value)


def in_threads(*work: Callable[[], T]) -> list[T]:
    """All at once, each in a thread of its own; what one raises is raised."""
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(place: int, one: Callable[[], T]) -> None:
        try:
            results[place] = one()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(work)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[place] for place in range(len(work))]
