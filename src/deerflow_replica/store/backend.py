"""What a database has to do for a store: nine hooks, all async, on the event loop that opened it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..errors import StoreUnavailableError
from .values import Conflict, OnConflict, Place, Read, Restored, Write, Written


class Backend(ABC):
    """One store's database as one event loop reaches it.

    Everything that arrives is checked and encoded. `live` says that what has expired is not there: it is not found,
    and a put over it creates. The clock is the database's. A hook raises `StoreUnavailableError` when the database is
    away, `ConfigError` when nobody has called `setup()`, and `ValueError` for what the database refuses to hold;
    idempotent hooks repeat themselves once when a connection is found dead.
    """

    slots = 1
    """How many calls of the hooks may run at the same time."""

    @abstractmethod
    async def open(self) -> None:
        """Connect. No DDL."""

    @abstractmethod
    async def close(self) -> None:
        """Undo `open`, also one that failed halfway."""

    @abstractmethod
    async def set_up(self, *, create_schema: bool) -> None:
        """Create or migrate. Idempotent, and safe for any number of replicas at once."""

    @abstractmethod
    async def run(self, reads: Sequence[Read], writes: Sequence[Write], *, live: bool) -> list[Any]:
        """The answers of the reads, in their order, and then all writes or none.

        The reads see nothing of the writes. The writes are unconditional, no two of one place, sorted by place.
        """

    def begin(
        self,
        reads: Sequence[Read],
        writes: Sequence[Write],
        *,
        live: bool,
        done: Callable[[list[Any] | StoreUnavailableError | None], None],
    ) -> bool:
        """`run`, begun at once and without a task, where the backend can. False: it cannot, and nothing is begun.

        Later, on the loop, `done` gets the answers, the error, or None when `run` has to do it after all.
        """
        return False

    @abstractmethod
    async def write_if(self, write: Write, *, live: bool) -> Written | Conflict:
        """A conditional write, in one atomic step. Never repeated blindly."""

    @abstractmethod
    async def touch(self, places: Sequence[Place]) -> None:
        """Restart the items' own time to live. Leaves alone what has none or has expired. Sorted by place."""

    @abstractmethod
    async def delete_namespace(self, prefix: str, *, live: bool) -> int:
        """Delete everything at or below a namespace: how many items (only live ones count when `live`)."""

    @abstractmethod
    async def sweep(self, limit: int) -> int | None:
        """Delete up to `limit` expired items: how many; None while another replica sweeps."""

    @abstractmethod
    async def restore(self, items: Sequence[Restored], *, on_conflict: OnConflict) -> int:
        """Store items with their own stamps, sorted by place: how many. `newer`: where `updated_at` is later."""


def by_place(writes: Iterable[Write]) -> list[Write]:
    """The last write of each place, sorted by place."""
    last = {write.place: write for write in writes}
    return [last[place] for place in sorted(last)] if len(last) > 1 else list(last.values())
