"""Which models are ill, known to the whole fleet: one circuit for each model."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

from .._sync import InlineRunner, Runner
from ..errors import StoreUnavailableError
from ._circuit import NEVER_OPENED, Circuit, Opening, Policy, State, leased, opened, released, state_of
from ._circuit import ReleaseOutcome as ReleaseOutcome
from ._flusher import Flusher
from ._health_inputs import check_health_settings
from ._ledger import BUCKET_SECONDS
from .base import ModelCounters

_LOG = logging.getLogger(__name__)
_AGAINST = ("transient", "unknown")
_ANSWERED = ("success", "parse_error")
_SHORTEST_WINDOW_SECONDS = 10.0
_CLOCKS_DIFFER_SECONDS = 2.0
_LONGEST_RETRY_AFTER_SECONDS = 86400.0  # whatever a server says: after a day it is asked again


@dataclass(frozen=True, slots=True)
class CircuitState:
    """One model's circuit as this process knows it.

    `reason` is `consecutive_failures, failure_rate, rate_limit` or `auth`; `open_until` is in epoch seconds of the
    store's clock; `opened_count` is how often in a row it opened; `consecutive_failures` are those seen here.
    """

    model_name: str
    state: State = "closed"
    reason: str | None = None
    opened_count: int = 0
    open_until: float | None = None
    consecutive_failures: int = 0


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to call a model. `probe`: the only one in the fleet, to be released; `forced`: no model is well."""

    model_name: str
    probe: bool = False
    forced: bool = False
    token: str | None = None


class ModelHealth:
    """One circuit for each model, shared by all replicas whose counters share a store. Thread-safe.

    It hears what `counters` record. A circuit opens in this process at once, and in the fleet within `refresh_seconds`:
    by `failure_threshold` failures (`transient` or `unknown`) in a row, by a share of `failure_rate` of them among at
    least `min_calls` calls of the fleet in `window_seconds` (10 to 900), by one `rate_limit` (for as long as the server
    said, else `open_seconds`), or by one `auth` (for `max_open_seconds`). It is open for `open_seconds` times the
    openings in a row, at most `max_open_seconds`, and up to a share of `jitter` longer; then half open: one caller in
    the fleet gets a probe, for `lease_seconds` at most. Its success closes the circuit for everyone.

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
        self._policy = Policy(open_seconds, max_open_seconds, lease_seconds)
        self._failure_threshold = failure_threshold
        self._failure_rate = failure_rate
        self._min_calls = min_calls
        self._window_seconds = window_seconds
        self._jitter = jitter
        self._refresh_seconds = refresh_seconds
        self._lock = threading.Lock()
        self._circuits: dict[str, Circuit] = {}
        self._in_a_row: dict[str, int] = {}
        self._failed_at: dict[str, float] = {}  # monotonic: the windows of these models are looked at
        self._openings: dict[str, list[Opening]] = {}  # seen here, not yet in the store
        self._releases: list[tuple[Permit, ReleaseOutcome]] = []
        self._offset = time.time() - time.monotonic()
        self._refreshed_at = -math.inf
        self._is_away = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._news = threading.Event()
        self._hearing = _hearing(self)
        self._refresher = Flusher(
            self._refresh_in_background, wake=self._news, interval_seconds=refresh_seconds, name="health"
        )
        counters._follow(self._hearing, self._refresher)

    # What is known

    def state(self, model_name: str) -> CircuitState:
        """What this process knows; no I/O. A model that nobody saw failing is closed."""
        with self._lock:
            circuit = self._circuits.get(model_name, NEVER_OPENED.circuit)
            return CircuitState(
                model_name,
                state_of(circuit, self._now()),
                circuit.reason,
                circuit.opened_count,
                circuit.open_until,
                self._in_a_row.get(model_name, 0),
            )

    def known_models(self) -> list[str]:
        """The models whose circuits were ever opened, as far as this process knows, sorted."""
        with self._lock:
            return sorted(self._circuits)

    async def refresh(self) -> None:
        """Tell the fleet what was seen here, and learn the rest. Goes on without, while the store is away."""
        await self._runner.acall(self._refresh())

    def refresh_sync(self) -> None:
        """`refresh` for a caller without a loop, or on the thread of another one."""
        self._runner.call(self._refresh())

    async def close(self) -> None:
        """Hear and share nothing any more; closing the counters does the same."""
        self._counters._unfollow(self._hearing)
        self._refresher.stop()
        if self._refresher.is_running:
            await asyncio.to_thread(self._refresher.join)

    # Leave to call a model

    async def acquire(self, model_name: str) -> Permit | None:
        """Leave to call the model, or None: its circuit is open, or half open and somebody else tries it."""
        await self._refresh_if_alone()
        permit, is_decided = self._decided(model_name)
        return permit if is_decided else await self._asked(model_name)

    def acquire_sync(self, model_name: str) -> Permit | None:
        """`acquire` without a loop, or on the thread of a busy one."""
        if self._is_stale_alone():
            self.refresh_sync()
        permit, is_decided = self._decided(model_name)
        return permit if is_decided else self._runner.call(self._ask(model_name))

    async def choose(self, models: Iterable[str]) -> Permit:
        """Leave to call the first of `models` that is well, or whose probe it gets.

        If there is none, the one that recovers first, `forced`. `ValueError` without any.
        """
        names = _named(models)
        for name in names:
            if (permit := await self.acquire(name)) is not None:
                return permit
        return self._forced(names)

    def choose_sync(self, models: Iterable[str]) -> Permit:
        """`choose` without a loop, or on the thread of a busy one."""
        names = _named(models)
        return next(filter(None, map(self.acquire_sync, names)), None) or self._forced(names)

    async def release(self, permit: Permit, outcome: ReleaseOutcome) -> None:
        """Say how a probe ended; other permits need no word. Carried through when cancelled.

        `success` closes the circuit for everyone, `failure` opens it longer, `abandoned` lets somebody else try at
        once. A lease that has ended is no longer anyone's, and its release is ignored. `ValueError` for other outcomes.
        """
        _check_outcome(outcome)
        if permit.token is not None:
            await self._shielded(self._runner.acall(self._release(permit, outcome)))

    def release_sync(self, permit: Permit, outcome: ReleaseOutcome) -> None:
        """`release` without a loop, or on the thread of a busy one."""
        _check_outcome(outcome)
        if permit.token is not None:
            self._runner.call(self._release(permit, outcome))

    def release_soon(self, permit: Permit, outcome: ReleaseOutcome) -> None:
        """`release` for who cannot wait: the next `refresh` does it."""
        _check_outcome(outcome)
        if permit.token is not None:
            with self._lock:
                self._releases.append((permit, outcome))
            self._news.set()

    # Hearing

    def _hear(self, name: str, outcome: str, error_type: str | None, retry_after_seconds: object) -> None:
        if outcome in _ANSWERED:
            if name in self._in_a_row:
                with self._lock:
                    self._in_a_row.pop(name, None)
        elif outcome == "failure":
            with self._lock:
                self._hear_failure(name, error_type, retry_after_seconds)

    def _hear_failure(self, name: str, kind: str | None, retry_after_seconds: object) -> None:
        if kind == "rate_limit":
            self._open(name, "rate_limit", _retry_after(retry_after_seconds))
        elif kind == "auth":
            self._open(name, "auth", self._policy.max_open_seconds)
        elif kind != "request":
            self._in_a_row[name] = self._in_a_row.get(name, 0) + 1
            self._failed_at[name] = time.monotonic()
            circuit = self._circuits.get(name, NEVER_OPENED.circuit)
            if self._in_a_row[name] >= self._failure_threshold and state_of(circuit, self._now()) != "open":
                self._open(name, "consecutive_failures")

    def _open(self, name: str, reason: str, seconds: float | None = None) -> None:
        """In this process now; the refresher tells the others. Under the lock."""
        opening = self._opening(reason, seconds)
        before = self._circuits.get(name, NEVER_OPENED.circuit)
        after = opened(before, opening, self._policy)
        if after != before:
            self._circuits[name] = after
            self._openings.setdefault(name, []).append(opening)
            self._news.set()

    def _opening(self, reason: str, seconds: float | None = None, *, at: float | None = None) -> Opening:
        stretch = 1.0 + random.random() * self._jitter  # noqa: S311  # jitter, not a secret
        return Opening(reason, self._now() if at is None else at, seconds, stretch)

    # Deciding

    def _decided(self, name: str) -> tuple[Permit | None, bool]:
        """The answer, and whether it is one: a half-open circuit is the store's to give."""
        with self._lock:
            circuit = self._circuits.get(name)
            state = "closed" if circuit is None else state_of(circuit, self._now())
        return (Permit(name) if state == "closed" else None), state != "half_open"

    def _forced(self, names: Sequence[str]) -> Permit:
        with self._lock:
            known = self._circuits
            return Permit(min(names, key=lambda name: _recovers_at(known.get(name))), forced=True)

    async def _asked(self, name: str) -> Permit | None:
        """A lease that a cancelled caller never got to know of is given back."""
        asking = asyncio.ensure_future(self._runner.acall(self._ask(name)))
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
        circuit = await self._changed(name, lambda circuit, now: leased(circuit, token, now, self._policy))
        if circuit.lease == token:
            return Permit(name, probe=True, token=token)
        return Permit(name) if circuit.open_until is None else None

    async def _release(self, permit: Permit, outcome: ReleaseOutcome) -> None:
        token = permit.token or ""

        def rule(circuit: Circuit, now: float) -> Circuit:
            opening = self._opening("consecutive_failures", at=now)
            return released(circuit, token, outcome, opening, self._policy)

        circuit = await self._changed(permit.model_name, rule)
        if outcome == "success" and circuit.open_until is None:
            self._recovered(permit.model_name)

    # Sharing

    @property
    def _runner(self) -> Runner:
        """That of counters that are not open would start a thread, and nobody to end it."""
        return self._counters._runner if self._can_share else InlineRunner()

    @property
    def _can_share(self) -> bool:
        return self._counters._state == "open"

    async def _changed(self, name: str, rule: Callable[[Circuit, float], Circuit]) -> Circuit:
        """The circuit as the rule leaves it: in the store, or here while the store is away."""
        if self._can_share and not self._is_away:
            try:
                return await self._changed_for_all(name, rule)
            except StoreUnavailableError as error:
                self._away(error)
        with self._lock:
            return self._keep(name, rule(self._circuits.get(name, NEVER_OPENED.circuit), self._now()))

    async def _changed_for_all(self, name: str, rule: Callable[[Circuit, float], Circuit]) -> Circuit:
        while True:
            now, circuits = await self._counters._read_circuits()
            version, before = circuits.get(name, NEVER_OPENED)
            after = rule(before, now)
            if after == before or await self._counters._swap_circuit(name, version, after):
                with self._lock:
                    return self._keep(name, after)

    def _keep(self, name: str, circuit: Circuit) -> Circuit:
        if circuit.open_until is None and name not in self._circuits:
            return circuit
        before, self._circuits[name] = self._circuits.get(name), circuit
        if before is not None and before.open_until is not None and circuit.open_until is None:
            self._in_a_row.pop(name, None)
        return circuit

    async def _refresh(self) -> None:
        self._refreshed_at = time.monotonic()
        if not self._can_share:
            return
        try:
            await self._look_at_windows()
            await self._tell()
            self._learn(*await self._counters._read_circuits())
            self._is_away = False
        except StoreUnavailableError as error:
            self._away(error)

    async def _tell(self) -> None:
        with self._lock:
            openings, self._openings = self._openings, {}
            releases, self._releases = self._releases, []
        try:
            for name in list(openings):
                for opening in openings[name]:
                    await self._changed_for_all(name, partial(self._opened, opening=opening))
                del openings[name]
        finally:
            with self._lock:
                for name, kept in openings.items():
                    self._openings[name] = [*kept, *self._openings.get(name, [])]
        for permit, outcome in releases:
            await self._release(permit, outcome)

    def _opened(self, circuit: Circuit, now: float, *, opening: Opening) -> Circuit:
        return opened(circuit, opening, self._policy)

    def _learn(self, now: float, stored: dict[str, Any]) -> None:
        with self._lock:
            self._offset = now - time.monotonic()
            for name in self._circuits.keys() | stored.keys():
                circuit = stored.get(name, NEVER_OPENED).circuit
                for opening in self._openings.get(name, ()):
                    circuit = opened(circuit, opening, self._policy)
                self._keep(name, circuit)

    def _recovered(self, name: str) -> None:
        with self._lock:
            self._in_a_row.pop(name, None)
            self._openings.pop(name, None)

    async def _look_at_windows(self) -> None:
        """Of the models that failed here lately; of what came after a circuit closed only whole buckets count."""
        for seconds, names in self._windows().items():
            found = await self._counters.window(seconds)
            for name in names & found.keys():
                window = found[name]
                failures = sum(window.failures_by_kind.get(kind, 0) for kind in _AGAINST)
                if window.call_count >= self._min_calls and failures >= self._failure_rate * window.call_count:
                    with self._lock:
                        self._open(name, "failure_rate")

    def _windows(self) -> dict[float, set[str]]:
        windows: dict[float, set[str]] = {}
        with self._lock:
            oldest, now = time.monotonic() - self._window_seconds - BUCKET_SECONDS, self._now()
            self._failed_at = {name: at for name, at in self._failed_at.items() if at > oldest}
            for name in self._failed_at:
                circuit = self._circuits.get(name, NEVER_OPENED.circuit)
                since = now - (circuit.closed_at // BUCKET_SECONDS + 1) * BUCKET_SECONDS - _CLOCKS_DIFFER_SECONDS
                seconds = min(self._window_seconds, since) if circuit.closed_at else self._window_seconds
                if circuit.open_until is None and seconds >= _SHORTEST_WINDOW_SECONDS:
                    windows.setdefault(seconds, set()).add(name)
        return windows

    def _refresh_in_background(self) -> None:
        self._runner.call(self._refresh())

    async def _refresh_if_alone(self) -> None:
        if self._is_stale_alone():
            await self._refresh()

    def _is_stale_alone(self) -> bool:
        """Counters without a server have no refresher either: a look now and then is free."""
        return not self._counters._is_shared and time.monotonic() - self._refreshed_at > self._refresh_seconds

    def _away(self, error: StoreUnavailableError) -> None:
        if not self._is_away:
            self._is_away = True
            _LOG.warning("the models' health is not shared now, each replica goes by what it sees itself: %s", error)

    def _now(self) -> float:
        """The store's time, as far as it is known."""
        return time.monotonic() + self._offset

    async def _shielded(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)


def _hearing(health: ModelHealth) -> Callable[..., None]:
    """Holds it weakly: who keeps the counters need not keep their health."""
    found = weakref.ref(health)

    def hear(
        name: str, outcome: str, duration: object, usage: object, error_type: str | None, retry_after: object
    ) -> None:
        if (listener := found()) is not None:
            listener._hear(name, outcome, error_type, retry_after)

    return hear


def _named(models: Iterable[str]) -> list[str]:
    names = list(models)
    if not names:
        raise ValueError("choose from at least one model")
    return names


def _recovers_at(circuit: Circuit | None) -> float:
    return 0.0 if circuit is None or circuit.open_until is None else circuit.open_until


def _retry_after(seconds: object) -> float | None:
    if isinstance(seconds, (int, float)) and 0 <= seconds < math.inf:
        return float(min(seconds, _LONGEST_RETRY_AFTER_SECONDS))
    return None


def _check_outcome(outcome: str) -> None:
    if outcome not in get_args(ReleaseOutcome):
        raise ValueError(f"a permit is released with {', '.join(get_args(ReleaseOutcome))}, not {outcome!r}")
