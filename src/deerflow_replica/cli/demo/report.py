"""What the demo measured, and how it is shown: a table on a terminal, plain text in a pipe, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, what was measured of it, and the limit that it has to keep, both in `unit`."""

    name: str
    promise: str
    measured: float | bool
    limit: float | bool
    ok: bool
    unit: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "measured": self.measured, "limit": self.limit, "ok": self.ok}


@dataclass(frozen=True, slots=True)
class Skipped:
    """A promise that could not be tried here."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that one demo measured, in `seconds` of wall-clock time."""

    mode: Literal["replicas", "single"]
    seconds: float
    checks: tuple[Check, ...]
    skipped: tuple[Skipped, ...] = field(default=())

    @property
    def broken(self) -> tuple[str, ...]:
        return tuple(check.name for check in self.checks if not check.ok)

    def as_json(self) -> str:
        skipped = [{"name": skip.name, "reason": skip.reason} for skip in self.skipped]
        checks = [check.as_json() for check in self.checks]
        return json.dumps(
            {"mode": self.mode, "seconds": round(self.seconds, 3), "checks": checks, "skipped": skipped}, indent=2
        )


class Progress:
    """Tells what the demo is doing: a spinner on a terminal, one line a step in a pipe, nothing beside JSON."""

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self._console = console
        self._quiet = quiet
        self._status: Status | None = None

    @contextmanager
    def shown(self) -> Iterator[Progress]:
        if self._quiet or not self._console.is_terminal:
            yield self
            return
        with self._console.status("starting") as self._status:
            yield self

    def step(self, text: str) -> None:
        if self._quiet:
            return
        self._console.print(f"- {text}", markup=False, highlight=False)
        if self._status is not None:
            self._status.update(text)


def show(console: Console, outcome: Outcome) -> None:
    """The table of promises, what was skipped, and the verdict on the last line."""
    console.print(_table(outcome, boxed=console.is_terminal))
    for skip in outcome.skipped:
        console.print(f"skipped {skip.name}: {skip.reason}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{outcome.seconds:.1f} s", highlight=False)
    verdict, style = ("all promises kept", "bold green") if not outcome.broken else (_broken(outcome), "bold red")
    if outcome.skipped and not outcome.broken:
        verdict = f"{verdict}, {len(outcome.skipped)} skipped"
    console.print(verdict, style=style, markup=False, highlight=False, soft_wrap=True)


def _broken(outcome: Outcome) -> str:
    return f"BROKEN: {', '.join(outcome.broken)}"


def _table(outcome: Outcome, *, boxed: bool) -> Table:
    table = Table(box=box.ROUNDED if boxed else None, pad_edge=boxed)
    table.add_column("promise")
    table.add_column("measured", justify="right")
    table.add_column("limit", justify="right")
    table.add_column("verdict")
    for check in outcome.checks:
        verdict = Text("kept", "green") if check.ok else Text("BROKEN", "bold red")
        table.add_row(check.promise, _shown(check.measured, check.unit), _shown(check.limit, check.unit), verdict)
    return table


def _shown(value: float | bool, unit: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value} {unit}".rstrip()
