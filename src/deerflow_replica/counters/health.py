"""Which models are ill, known to the whole fleet: one circuit for each model."""

from __future__ import annotations

import asyncio
import math
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from .._sync import InlineRunner, Runner
from ..errors import StoreUnavailableError
from ._circuit import Circuit, Policy, leased, state_of
from ._flusher import Flusher
from ._health_inputs import check_health_settings, check_outcome, checked_names, retry_after
from ._ledger import BUCKET_SECONDS
from ._shared_circuits import Release, SharedCircuits
from ._shielded import Shielded
from ._symptoms import Symptoms, is_against, seconds_to_look_at, speaks_against
from .base import ModelCounters
from .values import CircuitState, Permit, ReleaseOutcome

T = TypeVar("T")

_ANSWERED = ("success", "parse_error")


class ModelHealth:
    """One circuit for each model, shared by all replicas whose counters share a store. Thread-safe.

    It hears what `counters` record. A circuit opens in this process at once, and in the fleet within `refresh_seconds`:
    by `failure_threshold` failures (`transient` or `unknown`) in a row, by a share of `failure_rate` of them among at
    least `min_calls` calls of the fleet in `window_seconds` (10 to 900), by one `rate_limit` (for as long as the server
    said, else `open_seconds`), or by one `auth` (for `max_open_seconds`). It is open for `open_seconds` times the
    openings in a row, at most `max_open_seconds`, and up to a share of `jitter` longer; then half open: one caller in
    the fleet gets a probe, for `lease_seconds` at most. Its success closes the circuit for everyone, and so does, while
    nobody tries the model, a call without leave that began since then and was answered.

    While the store is away, what this process saw decides, and nothing here raises for it. It needs no closing: the
    counters end it, or `close`. `ValueError` for settings that make no sense.
    """

    def __init__(
        self,
        counters: ModelCounters,
        *,
        failure_threshold: int = 5,
        failure_rate: float = 0.5,
        min_calls: int = 20,
        window_seconds: float = 60.0,
        open_seconds: float = 30.0,
        max_open_seconds: float = 300.0,
        jitter: float = 0.1,
        lease_seconds: float = 900.0,
        refresh_seconds: float = 1.0,
    ) -> None:
        check_health_settings(
            counts={"failure_threshold": failure_threshold, "min_calls": min_calls},
            durations={
                "open_seconds": open_seconds,
                "max_open_seconds": max_open_seconds,
                "lease_seconds": lease_seconds,
                "refresh_seconds": refresh_seconds,
            },
            failure_rate=failure_rate,
            jitter=jitter,
            window_seconds=window_seconds,
        )
        self._counters = counters
        self._policy = Policy(open_seconds, max_open_seconds, lease_seconds, jitter)
        self._failure_threshold = failure_threshold
        self._failure_rate = failure_rate
        self._min_calls = min_calls
        self._window_seconds = window_seconds
        self._refresh_seconds = refresh_seconds
        self._symptoms = Symptoms()
        self._circuits = SharedCircuits(counters, self._policy, closed=self._symptoms.answered)
        self._refreshed_at = -math.inf
        self._shielded = Shielded()
        self._news = threading.Event()
        self._hearing = _hearing(self)
        self._refresher = Flusher(
            self._refresh_in_background,
            wake=self._news,
            interval_seconds=refresh_seconds,
            name="health",
            failure="the models' health could not be shared, which is tried again",
        )
        counters._follow(self._hearing, self._refresher)

    # What is known

    def state(self, model_name: str) -> CircuitState:
        """What this process knows; no I/O. A model that nobody saw failing is closed."""
        circuit = self._circuits.of(model_name)
        return CircuitState(
            model_name,
            state_of(circuit, self._circuits.now()),
            circuit.reason,
            circuit.opened_count,
            circuit.open_until,
            self._symptoms.in_a_row(model_name),
        )

    def known_models(self) -> list[str]:
        """The models whose circuits were ever opened, as far as this process knows, sorted."""
        return self._circuits.names()

    async def refresh(self) -> None:
        """Tell the fleet what was seen here, and learn the rest. Goes on without, while the store is away."""
        await self._awaited(self._refresh)

    def refresh_sync(self) -> None:
        """`refresh` for a caller without a loop, or on the thread of another one."""
        self._done(self._refresh)

    async def close(self) -> None:
        """Tell what is left, and hear and share nothing any more; closing the counters ends it, too."""
        self._counters._unfollow(self._hearing)
        self._refresher.stop()
        if self._refresher.is_running:
            await asyncio.to_thread(self._refresher.join)
        if self._circuits.has_news:
            await self.refresh()

    # Leave to call a model

    async def acquire(self, model_name: str) -> Permit | None:
        """Leave to call the model, or None: its circuit is open, or half open and somebody else tries it."""
        if self._is_stale_alone():
            await self._refresh()
        permit, is_decided = self._decided(model_name)
        return permit if is_decided else await self._asked(model_name)

    def acquire_sync(self, model_name: str) -> Permit | None:
        """`acquire` without a loop, or on the thread of a busy one."""
        if self._is_stale_alone():
            self.refresh_sync()
        permit, is_decided = self._decided(model_name)
        return permit if is_decided else self._done(lambda: self._ask(model_name))

    async def choose(self, models: Iterable[str]) -> Permit:
        """Leave to call the first of `models` that is well, or whose probe it gets.

        If there is none, the one that recovers first, `forced`. `ValueError` without any.
        """
        names = checked_names(models)
        for name in names:
            if (permit := await self.acquire(name)) is not None:
                return permit
        return self._forced(names)

    def choose_sync(self, models: Iterable[str]) -> Permit:
        """`choose` without a loop, or on the thread of a busy one."""
        names = checked_names(models)
        return next(filter(None, map(self.acquire_sync, names)), None) or self._forced(names)

    async def release(self, permit: Permit, outcome: ReleaseOutcome) -> None:
        """Say how a probe ended; other permits need no word. Carried through when cancelled.

        `success` closes the circuit for everyone, `failure` opens it longer, `abandoned` lets somebody else try at
        once. A lease that has ended is no longer anyone's, and its release is ignored. `ValueError` for other outcomes.
        """
        if (release := _release(permit, outcome)) is not None:
            await self._shielded.wait(self._awaited(lambda: self._circuits.release(release)))

    def release_sync(self, permit: Permit, outcome: ReleaseOutcome) -> None:
        """`release` without a loop, or on the thread of a busy one."""
        if (release := _release(permit, outcome)) is not None:
            self._done(lambda: self._circuits.release(release))

    def release_soon(self, permit: Permit, outcome: ReleaseOutcome) -> None:
        """`release` for who cannot wait: the next `refresh` does it."""
        if (release := _release(permit, outcome)) is not None:
            self._circuits.release_later(release)
            self._news.set()

    # Hearing

    def _hear(
        self, name: str, outcome: str, seconds: float | None, error_type: str | None, retry_after_seconds: object
    ) -> None:
        if outcome in _ANSWERED:
            self._symptoms.answered(name)
            is_news = seconds is not None and self._circuits.answered(name, seconds)
        else:
            is_news = outcome == "failure" and self._opens(name, error_type, retry_after_seconds)
        if is_news:
            self._news.set()

    def _opens(self, name: str, kind: str | None, retry_after_seconds: object) -> bool:
        if kind == "rate_limit":
            return self._circuits.open(name, "rate_limit", retry_after(retry_after_seconds))
        if kind == "auth":
            return self._circuits.open(name, "auth", self._policy.max_open_seconds)
        if is_against(kind) and self._symptoms.failed(name) >= self._failure_threshold:
            return self._circuits.open(name, "consecutive_failures", if_open=False)
        return False

    # Deciding

    def _decided(self, name: str) -> tuple[Permit | None, bool]:
        """The answer, and whether it is one: a half-open circuit is the store's to give."""
        state = state_of(self._circuits.of(name), self._circuits.now())
        return (Permit(name) if state == "closed" else None), state != "half_open"

    def _forced(self, names: Sequence[str]) -> Permit:
        return Permit(min(names, key=lambda name: _recovers_at(self._circuits.of(name))), forced=True)

    async def _asked(self, name: str) -> Permit | None:
        """A lease that a cancelled caller never got to know of is given back."""
        asking = asyncio.ensure_future(self._awaited(lambda: self._ask(name)))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(self._give_back)
            raise

    def _give_back(self, asking: asyncio.Future[Permit | None]) -> None:
        if not asking.cancelled() and asking.exception() is None and (permit := asking.result()) is not None:
            self.release_soon(permit, "abandoned")

    async def _ask(self, name: str) -> Permit | None:
        token = uuid.uuid4().hex
        circuit = await self._circuits.changed(name, lambda circuit, now: leased(circuit, token, now, self._policy))
        if circuit.lease == token:
            return Permit(name, probe=True, token=token)
        return Permit(name) if circuit.open_until is None else None

    # Sharing

    async def _refresh(self) -> None:
        self._refreshed_at = time.monotonic()
        if self._circuits.can_be_shared:
            try:
                await self._look_at_windows()
            except StoreUnavailableError as error:
                self._circuits.away(error)
            else:
                await self._circuits.share()

    async def _look_at_windows(self) -> None:
        """Of the models that failed here lately: others are looked at where they failed."""
        windows: dict[float, set[str]] = {}
        for name in self._symptoms.lately(self._window_seconds + BUCKET_SECONDS):
            seconds = seconds_to_look_at(self._circuits.of(name), self._circuits.now(), self._window_seconds)
            if seconds is not None:
                windows.setdefault(seconds, set()).add(name)
        for seconds, names in windows.items():
            found = await self._counters.window(seconds)
            for name in names & found.keys():
                if speaks_against(found[name], failure_rate=self._failure_rate, min_calls=self._min_calls):
                    self._circuits.open(name, "failure_rate", if_open=False)

    def _refresh_in_background(self) -> None:
        self._runner.call(self._refresh())

    def _is_stale_alone(self) -> bool:
        """Counters without a server have no refresher either: a look now and then is free."""
        return not self._counters._is_shared and time.monotonic() - self._refreshed_at > self._refresh_seconds

    @property
    def _runner(self) -> Runner:
        """That of counters that are not open would start a thread, and nobody to end it."""
        return self._counters._runner if self._circuits.can_be_shared else InlineRunner()

    async def _awaited(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return await self._runner.acall(work())
        except StoreUnavailableError:  # the counters were closed meanwhile: now nothing in it waits for them
            return await work()

    def _done(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return self._runner.call(work())
        except StoreUnavailableError:
            return InlineRunner().call(work())


def _hearing(health: ModelHealth) -> Callable[..., None]:
    """Holds it weakly: who keeps the counters need not keep their health."""
    found = weakref.ref(health)

    def hear(
        name: str, outcome: str, seconds: float | None, usage: object, error_type: str | None, retry_after: object
    ) -> None:
        if (listener := found()) is not None:
            listener._hear(name, outcome, seconds, error_type, retry_after)

    return hear


def _release(permit: Permit, outcome: ReleaseOutcome) -> Release | None:
    """None for what nobody leased."""
    check_outcome(outcome)
    return None if permit.token is None else Release(permit.model_name, permit.token, outcome)


def _recovers_at(circuit: Circuit) -> float:
    return 0.0 if circuit.open_until is None else circuit.open_until
