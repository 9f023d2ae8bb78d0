"""What every backend of a thread map has: its settings, its life, and the small hooks that it fills in."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Self, TypeVar

from .._sync import AnyLoopLock, Runner
from ..errors import StoreUnavailableError
from . import rules, validation
from .paging import Filters, Query
from .rules import Inserted, NewThread, Row, Rule

T = TypeVar("T")


class ThreadBackend(ABC):
    """Set up once, closed once, seen by any number of tenants."""

    runner: Runner
    """Runs this map's coroutines for a sync caller: `threads.runner.call(threads.claim(...))`."""

    def __init__(
        self,
        *,
        tenant: str = "default",
        ttl_seconds: float | None = None,
        tombstone_seconds: float = 2_592_000.0,
        operation_timeout_seconds: float = 10.0,
    ) -> None:
        """`ttl_seconds`: how long a new thread lives unless its claim says otherwise; None: for ever.
        `tombstone_seconds`: how long a deleted id stays closed to everyone but its former owner.
        """
        self._tenant = validation.tenant_name(tenant)
        self._ttl = validation.optional_micros("ttl_seconds", ttl_seconds)
        self._tombstone = validation.micros("tombstone_seconds", tombstone_seconds, zero=True)
        self._timeout_seconds = validation.micros("operation_timeout_seconds", operation_timeout_seconds) / 1_000_000
        self._root: ThreadBackend = self
        self._setup_lock = AnyLoopLock()
        self._is_open = False
        self._is_closed = False

    @property
    def tenant(self) -> str:
        """The name space of ids and users that this map sees."""
        return self._tenant

    async def __aenter__(self) -> Self:
        await self.setup()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def setup(self) -> None:
        """Connect and create what the backend needs. Idempotent; any number of replicas may do it together."""
        root = self._root
        async with root._setup_lock:
            root._check_not_closed()
            if not root._is_open:
                await root._open()
                root._is_open = True

    async def close(self) -> None:
        """Close what this map opened. Idempotent. Closing a tenant's view closes nothing."""
        if self._root is not self:
            return
        async with self._setup_lock:
            self._is_closed = True
            if self._is_open:
                self._is_open = False
                await self._close()

    def for_tenant(self, tenant: str) -> Self:
        """A view of another tenant on the same connections."""
        view = copy.copy(self)
        view._tenant = validation.tenant_name(tenant)
        return view

    # What a backend fills in. Every hook sees this map's tenant only, live rows and tombstones alike, checked input.

    @abstractmethod
    async def _open(self) -> None:
        """Connect and create tables."""

    @abstractmethod
    async def _close(self) -> None:
        """Undo `_open`."""

    @abstractmethod
    async def _read(self, keys: Sequence[str]) -> tuple[int, dict[str, Row]]:
        """The store's clock (or anything, where no row exists) and the rows that exist, in one round trip."""

    @abstractmethod
    async def _insert(self, keys: Sequence[str], new: NewThread) -> Inserted:
        """Insert `new` under each key that has no row. Never replaces."""

    @abstractmethod
    async def _change(self, key: str, rule: Rule[T]) -> T:
        """Read one row, ask the rule, store its outcome: in one atomic step. What the rule raises is raised."""

    @abstractmethod
    async def _remove(self, key: str, change: str) -> None:
        """Remove the tombstone that the write `change` made, if it is still there."""

    @abstractmethod
    async def _page(self, query: Query) -> list[Row]:
        """The live rows of a query, in its order."""

    @abstractmethod
    async def _count(self, user_id: str, filters: Filters) -> int:
        """How many live rows match; `filters.ids` is None."""

    @abstractmethod
    async def _sweep(self, limit: int, change: str) -> int:
        """Bury up to `limit` expired rows as of their expiry, drop old tombstones; the number of buried rows."""

    async def _owners(self, keys: Sequence[str]) -> dict[str, str]:
        """Who owns each of them that lives; for a backend to do without reading all the rest."""
        now, rows = await self._read(keys)
        return {key: row.user_id for key, row in rows.items() if rules.is_live(row, now)}

    async def _read_or_insert(self, keys: Sequence[str], new: NewThread) -> tuple[int, dict[str, Row], Inserted]:
        """What `_read` tells, and what was inserted where there was no row; for a backend to do in one round trip."""
        now, rows = await self._read(keys)
        return now, rows, await self._insert_missing(keys, new, rows)

    async def _insert_missing(self, keys: Sequence[str], new: NewThread, rows: Mapping[str, Row]) -> Inserted:
        missing = [key for key in keys if key not in rows]
        return await self._insert(missing, new) if missing else Inserted(0, set())

    def _check_open(self) -> None:
        root = self._root
        if root._is_closed:
            root._check_not_closed()
        if not root._is_open:
            raise StoreUnavailableError("the thread map is not open: use `async with`, or call setup() first")

    def _check_not_closed(self) -> None:
        if self._is_closed:
            raise StoreUnavailableError("the thread map is closed")
