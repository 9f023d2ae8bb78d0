"""Counters per model, exact over all replicas.

Counting is arithmetic in this process; a flusher writes it. What is stored is a G-counter: each process writes the
absolute values of its own rows under a growing number, so a write that is repeated, or late, never counts twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
import warnings
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, Literal, Self

from .._sync import AnyLoopLock
from ..errors import StoreUnavailableError
from ._backend import Backend
from ._counts import row_of, totals_of, window_of
from ._fleet import Vote, fleet_counts
from ._flusher import Flusher
from ._followers import Followers, Hear
from ._inputs import check_deltas, check_keys, check_settings, checked_sentiment
from ._ledger import BUCKET_SECONDS, BUCKETS_AHEAD, Ledger, checked_name
from ._runs import CountedRuns
from ._shielded import Shielded
from ._writes import Writes
from .values import Durability, ModelFeedbackRow, ModelTotals, ModelWindow, Outcome, Sentiment

_LOG = logging.getLogger(__name__)
_DEAD_AFTER_SECONDS = 86400.0
_UPKEEP_SECONDS = 3600.0  # how often each replica says that all its rows are alive, and folds those of the dead


class ModelCounters(Backend):
    """Calls, outcomes, tokens, durations and votes by model. Usable from every event loop and thread.

    An async context manager; `setup()` and `close()` do the same by hand and may be repeated. With
    `durability="batched"` counts are written every `flush_interval_seconds`, or once `flush_max_events` wait; a
    process that is killed loses what it had not written. With `"sync"` a call is written before `arecord` returns.
    More than `max_models` names in one process are counted together as `"__other__"`. Open it after a fork, not before.

    Everything but `record` and `local_totals` raises `StoreUnavailableError` while the store is away, and everything
    does after `close`.
    """

    def __init__(
        self,
        *,
        durability: Durability = "batched",
        flush_interval_seconds: float = 1.0,
        flush_max_events: int = 256,
        max_models: int = 256,
        replica_id: str | None = None,
    ) -> None:
        check_settings(durability, flush_interval_seconds, flush_max_events, max_models)
        self.durability: Durability = durability
        self.replica_id = replica_id or uuid.uuid4().hex
        # Never that of an earlier process, even where someone names replicas by hand.
        self._boot_id = f"{self.replica_id}.{uuid.uuid4().hex[:12]}"
        self._ledger = Ledger(max_models=max_models, flush_max_events=flush_max_events)
        self._flush_interval_seconds = flush_interval_seconds
        self._flusher: Flusher | None = None
        self._followers = Followers()
        self._runs = CountedRuns()
        self._opening = AnyLoopLock()
        self._writes = Writes(self._ledger)
        self._shielded = Shielded()
        self._closing: asyncio.Future[None] | None = None
        self._state: Literal["new", "open", "closed"] = "new"

    # Opening and closing

    async def setup(self) -> None:
        """Connect, create what is missing, and start the flusher. Raises `StoreUnavailableError`."""
        async with self._opening:
            if self._state == "open":
                return
            self._require_not_closed()
            await self._open()
            self._state = "open"
            self._flusher = Flusher(
                self._flush_in_background,
                wake=self._ledger.changed,
                interval_seconds=self._flush_interval_seconds,
                name="counters",
                failure="model counts could not be written, they are kept and tried again",
            )
            self._flusher.start()
            self._followers.start()

    async def close(self) -> None:
        """Write what is left and disconnect, also when cancelled meanwhile.

        Raises `StoreUnavailableError`, after logging how many events are lost, when the store is away.
        """
        async with self._opening:
            was_open, self._state = self._state == "open", "closed"
            self._ledger.close()
            if was_open:
                self._closing = asyncio.ensure_future(self._flush_and_shut())
                await asyncio.shield(self._closing)

    async def __aenter__(self) -> Self:
        await self.setup()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if (flusher := getattr(self, "_flusher", None)) is not None and self._state == "open":
            flusher.stop()
            self._followers.stop()
            warnings.warn(f"{type(self).__name__} was not closed", ResourceWarning, source=self, stacklevel=2)

    # Counting

    def record(
        self,
        model_name: str,
        outcome: Outcome,
        *,
        duration_seconds: float | None = None,
        usage: Mapping[str, Any] | None = None,
        error_type: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        """Count one finished model call. No I/O, thread-safe, also while the store is away.

        `usage` is an `AIMessage.usage_metadata`; an answer without it counts as one call without usage, not as zero
        tokens. `error_type` is the kind of a `failure`; what is not one of the five kinds counts as `unknown`.
        `retry_after_seconds` is for `ModelHealth`: how long the model wants to be left alone.
        `ValueError`, and nothing is counted, for an unknown outcome, a name that is not a string of 1 to 256
        characters after stripping, or a duration that is negative or not finite.
        """
        name = self._ledger.record(model_name, outcome, duration_seconds, usage, error_type)
        if self._followers:
            self._followers.tell(name, outcome, duration_seconds, usage, error_type, retry_after_seconds)

    async def arecord(
        self,
        model_name: str,
        outcome: Outcome,
        *,
        duration_seconds: float | None = None,
        usage: Mapping[str, Any] | None = None,
        error_type: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        """`record`; with `durability="sync"` it returns only after the store has it.

        If the store is away it raises `StoreUnavailableError`; the event is counted nevertheless, and written later.
        Cancelling it does not cancel the write.
        """
        self.record(
            model_name,
            outcome,
            duration_seconds=duration_seconds,
            usage=usage,
            error_type=error_type,
            retry_after_seconds=retry_after_seconds,
        )
        if self.durability == "sync":
            await self._shielded.wait(self.flush())

    async def increment(
        self,
        model_name: str,
        *,
        call_count: int = 0,
        success_count: int = 0,
        failure_count: int = 0,
        positive_feedback_count: int = 0,
        negative_feedback_count: int = 0,
    ) -> None:
        """Add numbers to the totals as they are; they enter no window. All zero: nothing happens.

        `ValueError` for what is not a non-negative integer. Written as an `arecord` is.
        """
        deltas = {
            "call_count": call_count,
            "success_count": success_count,
            "failure_count": failure_count,
            "positive_feedback_count": positive_feedback_count,
            "negative_feedback_count": negative_feedback_count,
        }
        check_deltas(deltas)
        self._require_not_closed()
        checked_name(model_name)
        if any(deltas.values()):
            self._ledger.increment(model_name, {name: delta for name, delta in deltas.items() if delta})
            if self.durability == "sync":
                await self._shielded.wait(self.flush())

    async def add_feedback(
        self, model_name: str, sentiment: Sentiment | None, *, thread_id: str, run_id: str, user_id: str
    ) -> bool:
        """Store one user's vote on one run; whether that changed anything.

        There is one vote per (thread, run, user): another sentiment or another model moves it, None removes it.
        `ValueError` for an id that is empty or not a string, and for another sentiment.
        """
        name = checked_name(model_name)
        check_keys(thread_id, run_id, user_id)
        vote = Vote(thread_id, run_id, user_id, name, checked_sentiment(sentiment))
        self._require_open()
        return await self._vote(vote)

    # Writing

    async def flush(self) -> None:
        """Return when everything counted before the call is stored. Raises `StoreUnavailableError`; nothing is lost."""
        self._require_open()
        await self._runner.acall(self._written())

    def flush_sync(self) -> None:
        """`flush` for a caller without an event loop, or on the thread of a busy one."""
        self._require_open()
        self._runner.call(self._written())

    async def compact(self, *, dead_after_seconds: float = _DEAD_AFTER_SECONDS) -> int:
        """Fold the rows that nobody wrote for `dead_after_seconds` into one per model; how many were folded.

        Totals do not change, also when several replicas compact together, and when a replica that was only asleep
        comes back within 30 days. Each replica does this by itself once an hour.
        """
        if dead_after_seconds < 0:
            raise ValueError("dead_after_seconds is not negative")
        self._require_open()
        return await self._fold(dead_after_seconds)

    # Reading

    async def totals(self) -> dict[str, ModelTotals]:
        """The fleet's totals by model, sorted by name, with what this process has not written yet."""
        self._require_open()
        stored = await self._read_rows(0, 0)
        votes = await self._read_votes()
        local = {name: [counts] for name, counts in self._ledger.totals().items()}
        return {
            name: totals_of(name, counts)
            for name, counts in fleet_counts([*stored, *votes], local, self._boot_id).items()
        }

    def local_totals(self) -> dict[str, ModelTotals]:
        """What this process itself has counted, by model, sorted by name; no I/O. Votes are not in it."""
        self._require_not_closed()
        return {name: totals_of(name, counts) for name, counts in sorted(self._ledger.totals().items())}

    async def window(self, seconds: float = 60) -> dict[str, ModelWindow]:
        """What the fleet recorded in the last `seconds` (10 to 900), by model; models without any are absent.

        A call leaves the window at most 10 seconds late, never early. `ValueError` for another length.
        """
        if not 10 <= seconds <= 900:
            raise ValueError(f"a window has 10 to 900 seconds, not {seconds!r}")
        self._require_open()
        now = time.time()
        first, last = int(now - seconds) // BUCKET_SECONDS, int(now) // BUCKET_SECONDS + BUCKETS_AHEAD
        stored = await self._read_rows(first, last)
        counts = fleet_counts(stored, self._ledger.window(first, last), self._boot_id)
        return {name: window_of(name, seconds, found) for name, found in counts.items()}

    async def list_rows(self) -> list[ModelFeedbackRow]:
        """The fleet's totals as plain rows, sorted by name."""
        return [row_of(total) for total in (await self.totals()).values()]

    # For health and exporters

    def _follow(self, hear: Hear, worker: Flusher | None = None) -> None:
        """Call `hear` for every event that is counted; run `worker` for as long as these counters are open."""
        self._followers.add(hear, worker if self._is_shared else None)
        if self._state == "open":
            self._followers.start()

    def _unfollow(self, hear: Hear) -> None:
        self._followers.remove(hear)

    # Inside

    def _written(self, *, everything: bool = False) -> Coroutine[Any, Any, None]:
        """Stores what was counted before this call."""
        return self._writes.until(self._writes.wanted(), self._write, everything=everything)

    def _flush_in_background(self) -> None:
        if time.monotonic() - self._writes.everything_at > _UPKEEP_SECONDS:
            self._runner.call(self._kept_up())
        elif self._writes.missing:
            self._runner.call(self._written())

    async def _kept_up(self) -> None:
        """A row that is written now and then is never taken for dead, however long its model is idle."""
        await self._written(everything=True)
        await self._fold(_DEAD_AFTER_SECONDS)

    async def _flush_and_shut(self) -> None:
        try:
            await self._stop_flusher()
            await self._runner.acall(self._written())
        except BaseException:
            if lost := self._writes.missing:
                _LOG.error("%d events of model counters are lost", lost)
            raise
        finally:
            await self._shut()

    async def _stop_flusher(self) -> None:
        if self._flusher is not None:
            self._flusher.stop()
            self._followers.stop()
            await asyncio.to_thread(self._flusher.join)
            await asyncio.to_thread(self._followers.join)

    def _require_not_closed(self) -> None:
        if self._state == "closed":
            raise StoreUnavailableError("the model counters are closed")

    def _require_open(self) -> None:
        self._require_not_closed()
        if self._state == "new":
            raise StoreUnavailableError("the model counters are not open: use `async with`, or await setup()")
