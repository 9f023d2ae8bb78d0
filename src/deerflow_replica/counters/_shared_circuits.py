"""The models' circuits as this process knows them, and in the store that all replicas share."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import NamedTuple

from ..errors import StoreUnavailableError
from ._circuit import (
    NEVER_OPENED,
    Answer,
    Circuit,
    Opening,
    Policy,
    StoredCircuit,
    answered,
    opened,
    released,
    state_of,
)
from .base import ModelCounters
from .values import ReleaseOutcome

_LOG = logging.getLogger(__name__)
_UNKNOWN = NEVER_OPENED.circuit

Rule = Callable[[Circuit, float], Circuit]
"""What becomes of a circuit at a time of the store's clock."""


class Release(NamedTuple):
    model_name: str
    token: str
    outcome: ReleaseOutcome


class _ThreadsTurn:
    """Around what never waits: whoever has it is done before a loop would notice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    async def __aenter__(self) -> None:
        self._lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()


class SharedCircuits:
    """Local copies, right at once; `share` takes what was seen here to the store, and brings the rest.

    Thread-safe. While the store is away, or the counters are not open, a change is made here, and told later. `closed`
    is called, under the lock, with the name of each circuit that closes.
    """

    def __init__(self, counters: ModelCounters, policy: Policy, *, closed: Callable[[str], None]) -> None:
        self._counters = counters
        self._policy = policy
        self._closed = closed
        self._lock = threading.Lock()
        self._known: dict[str, Circuit] = {}
        self._openings: dict[str, list[Opening]] = {}  # not yet told
        self._releases: list[Release] = []  # not yet told
        self._answers: dict[str, Answer] = {}  # not yet told
        self._offset = time.time() - time.monotonic()
        self._is_clock_set = False
        self._is_away = False
        # What one is about to tell, another must not learn the opposite of.
        self._turn = asyncio.Lock() if counters._is_shared else _ThreadsTurn()

    # What is known here

    @property
    def can_be_shared(self) -> bool:
        return self._counters._state == "open"

    @property
    def has_news(self) -> bool:
        """Whether there is something that the store was not told."""
        return bool(self._openings or self._releases or self._answers)

    def now(self) -> float:
        """The store's time, as far as it is known."""
        return time.monotonic() + self._offset

    def of(self, name: str) -> Circuit:
        return self._known.get(name, _UNKNOWN)

    def names(self) -> list[str]:
        with self._lock:
            return sorted(self._known)

    # Changes

    def open(self, name: str, reason: str, seconds: float | None = None, *, if_open: bool = True) -> bool:
        """In this process now; whether the fleet should know at once. `if_open`: also where it is open already.

        That it is open longer can wait for the next `share`: a model that refuses everybody would keep the store busy.
        """
        with self._lock:
            now, before = self.now(), self.of(name)
            was_open = state_of(before, now) == "open"
            opening = self._policy.opening(reason, now, seconds)
            after = opened(before, opening, self._policy)
            if after == before or (was_open and not if_open):
                return False
            self._known[name] = after
            waiting = self._openings.setdefault(name, [])
            if was_open and waiting:
                waiting.pop()  # the later one lasts longer, and many may come before the store is told of one
            waiting.append(opening)
            return not was_open

    def answered(self, name: str, seconds: float) -> bool:
        """A call of that length was answered just now; whether there is something to tell."""
        if self.of(name).open_until is None:  # mostly, and then nobody waits
            return False
        with self._lock:
            now, before = self.now(), self.of(name)
            call = Answer(now - seconds, now)
            after = answered(before, now, call)
            if after != before:
                self._keep(name, after)
                self._answers[name] = call
            return after != before

    async def changed(self, name: str, rule: Rule) -> Circuit:
        """The circuit as the rule leaves it: in the store, or here while the store is away."""
        circuit = await self._changed_for_all(name, rule)
        return self._changed_here(name, rule) if circuit is None else circuit

    async def release(self, release: Release) -> None:
        """A lease that the store could not be told of is told later: it would be taken until it ends."""
        circuit = await self._changed_for_all(release.model_name, self._rule_of(release))
        if circuit is None:
            self.release_later(release)
            circuit = self._changed_here(release.model_name, self._rule_of(release))
        if release.outcome == "success" and circuit.open_until is None:
            with self._lock:
                self._openings.pop(release.model_name, None)  # it recovered since

    def release_later(self, release: Release) -> None:
        with self._lock:
            self._releases.append(release)

    # Sharing

    async def share(self) -> None:
        """Goes on without while the store is away."""
        async with self._turn:
            try:
                await self._exchange()
            except StoreUnavailableError as error:
                self.away(error)

    def away(self, error: StoreUnavailableError) -> None:
        if not self._is_away:
            self._is_away = True
            _LOG.warning("the models' health is not shared now, each replica goes by what it sees itself: %s", error)

    async def _exchange(self) -> None:
        if not self._is_clock_set:
            self._set_clock((await self._counters._read_circuits())[0])
        await self._tell()
        self._learn(*await self._counters._read_circuits())
        self._is_away = False

    def _set_clock(self, now: float) -> None:
        """What was seen before the store's time was known was seen by this machine's."""
        with self._lock:
            offset = now - time.monotonic()
            wrong, self._offset, self._is_clock_set = self._offset - offset, offset, True
            for name, openings in self._openings.items():
                self._openings[name] = [replace(opening, at=opening.at - wrong) for opening in openings]
            self._answers = {name: call.moved(-wrong) for name, call in self._answers.items()}
            for name, circuit in self._known.items():
                if circuit.open_until is not None:
                    self._known[name] = replace(circuit, open_until=circuit.open_until - wrong)

    async def _tell(self) -> None:
        """What could not be told belongs to the next time."""
        with self._lock:
            openings, self._openings = self._openings, {}
            releases, self._releases = self._releases, []
            answers, self._answers = self._answers, {}
        try:
            for name in list(openings):
                await self._swapped(name, partial(self._opened, openings=openings[name]))
                del openings[name]
            while releases:
                await self._swapped(releases[0].model_name, self._rule_of(releases[0]))
                del releases[0]
            for name in list(answers):
                await self._swapped(name, partial(answered, call=answers[name]))
                del answers[name]
        finally:
            with self._lock:
                for name, untold in openings.items():
                    self._openings[name] = [*untold, *self._openings.get(name, ())]
                self._releases = [*releases, *self._releases]
                self._answers = {**answers, **self._answers}

    def _learn(self, now: float, stored: dict[str, StoredCircuit]) -> None:
        with self._lock:
            self._offset = now - time.monotonic()
            for name in self._known.keys() | stored.keys():
                circuit = stored.get(name, NEVER_OPENED).circuit
                circuit = self._opened(circuit, now, openings=self._openings.get(name, ()))
                call = self._answers.get(name)
                self._keep(name, circuit if call is None else answered(circuit, now, call))

    async def _changed_for_all(self, name: str, rule: Rule) -> Circuit | None:
        """None where only this process can know of it."""
        if not self.can_be_shared or self._is_away:
            return None
        try:
            return await self._swapped(name, rule)
        except StoreUnavailableError as error:
            self.away(error)
            return None

    async def _swapped(self, name: str, rule: Rule) -> Circuit:
        while True:
            now, circuits = await self._counters._read_circuits()
            version, before = circuits.get(name, NEVER_OPENED)
            after = rule(before, now)
            if after == before or await self._counters._swap_circuit(name, version, after):
                with self._lock:
                    return self._keep(name, after)

    def _changed_here(self, name: str, rule: Rule) -> Circuit:
        with self._lock:
            return self._keep(name, rule(self.of(name), self.now()))

    def _keep(self, name: str, circuit: Circuit) -> Circuit:
        before = self._known.get(name)
        if before is not None or circuit.open_until is not None:
            self._known[name] = circuit
        if before is not None and before.open_until is not None and circuit.open_until is None:
            self._closed(name)
        return circuit

    def _opened(self, circuit: Circuit, now: float, *, openings: Sequence[Opening]) -> Circuit:
        return reduce(lambda found, opening: opened(found, opening, self._policy), openings, circuit)

    def _rule_of(self, release: Release) -> Rule:
        def rule(circuit: Circuit, now: float) -> Circuit:
            opening = self._policy.opening("consecutive_failures", now)
            return released(circuit, release.token, release.outcome, opening, self._policy)

        return rule
