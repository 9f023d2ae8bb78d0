"""How long this process may act for its runs: leases on the monotonic clock, renewed together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ..errors import ReplicaError, StoreUnavailableError, StreamUnavailableError
from .registry.base import RunRegistry
from .registry.records import CancelAction, Lease

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 0.25
_INSIST_SECONDS = 0.2

T = TypeVar("T")


class LeaseLostError(ReplicaError):
    """This process may not act for the run any more: nothing may be written."""


@dataclass(eq=False)
class HeldLease:
    """A lease as its holder sees it.

    The deadline counts from before the renewal was sent, on the monotonic clock, which runs on while the process is
    stopped: it is never later than the one that the server keeps.
    """

    lease: Lease
    deadline: float
    on_lost: Callable[[], None]
    on_cancel: Callable[[CancelAction], None]
    is_lost: bool = False

    def check(self) -> None:
        """Raises `LeaseLostError` from the deadline on."""
        if self.is_lost or time.monotonic() >= self.deadline:
            self.lose()
            raise LeaseLostError(f"run {self.lease.run_id!r} is not this process's any more")

    def lose(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            self.on_lost()

    async def insist(self, work: Callable[[], Awaitable[T]]) -> T:
        """Try until it works or the lease is gone: a server that is away must not fail a run."""
        while True:
            self.check()
            try:
                return await work()
            except (StreamUnavailableError, StoreUnavailableError) as error:
                _LOG.warning("run %s waits: %s", self.lease.run_id, error)
            await asyncio.sleep(_INSIST_SECONDS)

    @property
    def remaining_seconds(self) -> float:
        return 0.0 if self.is_lost else max(0.0, self.deadline - time.monotonic())


class LeaseKeeper:
    """Renews the leases of all runs of this process, in one statement every third of the lease.

    While the database is away it tries again at once; a lease that is about to lapse is given up, not waited for.
    """

    def __init__(self, registry: RunRegistry, *, lease_seconds: float) -> None:
        self._registry = registry
        self._lease_seconds = lease_seconds
        self._margin_seconds = min(1.0, lease_seconds / 5)
        self._held: dict[str, HeldLease] = {}

    def hold(self, held: HeldLease) -> None:
        self._held[held.lease.run_id] = held

    def release(self, held: HeldLease) -> None:
        self._held.pop(held.lease.run_id, None)

    async def keep(self) -> None:
        """Until cancelled."""
        while True:
            answered = await self.renew()
            await asyncio.sleep(self._lease_seconds / 3 if answered else _RETRY_SECONDS)

    async def renew(self) -> bool:
        """Renew everything once. False: the database did not answer."""
        self._give_up_lapsing()
        held = list(self._held.values())
        if not held:
            return True
        sent = time.monotonic()
        try:
            async with asyncio.timeout(min(one.deadline for one in held) - self._margin_seconds - sent):
                answer = await self._registry.renew([one.lease for one in held], lease_seconds=self._lease_seconds)
        except (StoreUnavailableError, TimeoutError) as error:
            _LOG.warning("the leases of %d runs could not be renewed: %s", len(held), error)
            self._give_up_lapsing()
            return False
        for one in held:
            self._apply(one, sent, answer)
        return True

    def _apply(self, one: HeldLease, sent: float, answer: Mapping[str, CancelAction | None]) -> None:
        if one.lease.run_id not in self._held:
            return
        if one.lease.run_id not in answer:
            self._give_up(one)
            return
        one.deadline = sent + self._lease_seconds
        if action := answer[one.lease.run_id]:
            one.on_cancel(action)

    def _give_up_lapsing(self) -> None:
        soon = time.monotonic() + self._margin_seconds
        for one in [one for one in self._held.values() if one.deadline <= soon]:
            self._give_up(one)

    def _give_up(self, one: HeldLease) -> None:
        self.release(one)
        one.lose()
