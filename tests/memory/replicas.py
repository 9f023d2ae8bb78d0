"""Storages of replicas that share a database, each test with a place of its own in it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from typing import Any

from deerflow_replica.memory import StoreMemoryStorage
from deerflow_replica.store import SharedStore


@contextmanager
def two_stores(make: Callable[[], SharedStore]) -> Iterator[Sequence[SharedStore]]:
    """Two stores on one database, set up."""
    with ExitStack() as stack:
        stores = [stack.enter_context(make()) for _ in range(2)]
        stores[0].setup()
        yield stores


def on_each_in_turn(stores: Sequence[SharedStore]) -> Callable[..., StoreMemoryStorage]:
    """A function that makes one more replica's storage, on the next store."""
    turn, namespace = cycle(stores), ("memory", uuid.uuid4().hex)

    def build(**options: Any) -> StoreMemoryStorage:
        return StoreMemoryStorage(next(turn), namespace=namespace, **options)

    return build
