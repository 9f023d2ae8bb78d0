"""A model's circuit as all replicas share it, and how it changes: pure rules, with times of the store's clock."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple

from .values import ReleaseOutcome, State


@dataclass(frozen=True, slots=True)
class Circuit:
    """Closed without `open_until`; open until then; half open after it. `lease` is the token of who tries it."""

    reason: str | None = None
    opened_count: int = 0
    open_until: float | None = None
    lease: str | None = None
    lease_until: float = 0.0
    closed_at: float = 0.0

    def dump(self) -> str:
        return json.dumps(asdict(self))


class StoredCircuit(NamedTuple):
    """A circuit with the number of its changes; 0: nobody ever wrote it."""

    version: int
    circuit: Circuit


NEVER_OPENED = StoredCircuit(0, Circuit())


@dataclass(frozen=True, slots=True)
class Opening:
    """What somebody saw at the time `at`. `seconds` is None where the circuit decides; `stretch` is 1 plus jitter."""

    reason: str
    at: float
    seconds: float | None
    stretch: float


class Answer(NamedTuple):
    """A call that the model answered."""

    began_at: float
    ended_at: float

    def moved(self, seconds: float) -> Answer:
        return Answer(self.began_at + seconds, self.ended_at + seconds)


@dataclass(frozen=True, slots=True)
class Policy:
    open_seconds: float
    max_open_seconds: float
    lease_seconds: float
    jitter: float = 0.0

    def opening(self, reason: str, at: float, seconds: float | None = None) -> Opening:
        return Opening(reason, at, seconds, 1.0 + random.random() * self.jitter)  # noqa: S311  # not a secret


def circuit_of(text: str) -> Circuit:
    return circuit_from(json.loads(text))


def circuit_from(values: dict[str, Any]) -> Circuit:
    """What a newer replica wrote besides is left out."""
    return Circuit(**{field.name: values[field.name] for field in fields(Circuit) if field.name in values})


def state_of(circuit: Circuit, now: float) -> State:
    if circuit.open_until is None:
        return "closed"
    return "open" if now < circuit.open_until else "half_open"


def opened(circuit: Circuit, opening: Opening, policy: Policy) -> Circuit:
    """The same opening again changes nothing; one of something older than the last closing neither.

    While the circuit was open already this extends it, and never shortens it; else it is one more time in a row.
    """
    if opening.at <= circuit.closed_at:
        return circuit
    was_open = state_of(circuit, opening.at) == "open"
    count = max(1, circuit.opened_count if was_open else circuit.opened_count + 1)
    seconds = opening.seconds
    if seconds is None:
        seconds = min(policy.open_seconds * count, policy.max_open_seconds)
    until = opening.at + seconds * opening.stretch
    if was_open and circuit.open_until is not None and until <= circuit.open_until:
        return circuit
    return replace(circuit, reason=opening.reason, opened_count=count, open_until=until, lease=None, lease_until=0.0)


def answered(circuit: Circuit, now: float, call: Answer) -> Circuit:
    """Closed by a call that began once the circuit was half open, while nobody tries the model: where no call is routed
    nobody ever asks for leave to.
    """
    is_tried = circuit.lease is not None and now < circuit.lease_until
    if is_tried or circuit.open_until is None or call.began_at < circuit.open_until:
        return circuit
    return Circuit(closed_at=call.ended_at)


def leased(circuit: Circuit, token: str, now: float, policy: Policy) -> Circuit:
    """With the lease in `token`'s hand, where it is half open and nobody has it."""
    taken = circuit.lease is not None and now < circuit.lease_until
    if taken or state_of(circuit, now) != "half_open":
        return circuit
    return replace(circuit, lease=token, lease_until=now + policy.lease_seconds)


def released(circuit: Circuit, token: str, outcome: ReleaseOutcome, opening: Opening, policy: Policy) -> Circuit:
    """Unchanged for a lease that is lost. `opening` is what a failure means, and tells the time."""
    if circuit.lease != token or opening.at >= circuit.lease_until:
        return circuit
    if outcome == "success":
        return Circuit(closed_at=opening.at)
    if outcome == "failure":
        return opened(circuit, replace(opening, reason=circuit.reason or opening.reason), policy)
    return replace(circuit, lease=None, lease_until=0.0)
