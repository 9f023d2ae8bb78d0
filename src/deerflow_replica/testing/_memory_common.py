"""The fixtures that the parts of `MemoryStorageContract` share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from ..memory.base import MemoryStorage
from ._contract import Contract

Build: TypeAlias = Callable[..., MemoryStorage]

SCOPES: tuple[dict[str, Any], ...] = (
    {},
    {"user_id": "ann"},
    {"agent_name": "coder"},
    {"agent_name": "coder", "user_id": "ann"},
    {"user_id": "None"},
    {"user_id": "Ann"},
    {"user_id": "ann@example.org"},
    {"user_id": "ann%40example.org"},
    {"user_id": "../ann"},
    {"user_id": ".."},
    {"user_id": "ann.json"},
    {"user_id": "a/b\\c\0d"},
    {"user_id": "ånn \ud800"},
    {"user_id": "x" * 300},
    {"user_id": "x" * 301},
    {"agent_name": "x" * 300},
    {"agent_name": "x" * 300, "user_id": "agents"},
)


def fact(fact_id: str, content: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": fact_id, "content": content or f"fact {fact_id}", "confidence": 0.5, **more}


def ids(document: dict[str, Any]) -> list[str]:
    return [found["id"] for found in document["facts"]]


class MemoryFixtures(Contract):
    @pytest.fixture
    def build(self) -> Build:
        """A function that makes one more replica's storage on this test's place, with the common keywords it gets."""
        raise NotImplementedError

    @pytest.fixture
    def storage(self, build: Build) -> Iterator[MemoryStorage]:
        storage = build()
        yield storage
        storage.close()

    @pytest.fixture
    def other(self, build: Build) -> Iterator[MemoryStorage]:
        """A second replica."""
        other = build()
        yield other
        other.close()
