"""What the demo measured, and how it is shown: a table on a terminal, plain text in a pipe, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.console import Console
from rich.status import Status
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, what was measured of it, and the limit that it has to keep."""

    name: str
    promise: str
    measured: float | bool | str
    limit: float | bool | str
    ok: bool

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
    if console.is_terminal:
        console.print(_table(outcome))
    else:
        for row in _rows(outcome):
            console.print(" | ".join(row), markup=False, highlight=False, soft_wrap=True)
    for skip in outcome.skipped:
        console.print(f"skipped {skip.name}: {skip.reason}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{outcome.seconds:.1f} s", highlight=False)
    verdict = f"BROKEN: {', '.join(outcome.broken)}" if outcome.broken else "all promises kept"
    console.print(verdict, markup=False, highlight=False, soft_wrap=True)


def _table(outcome: Outcome) -> Table:
    header, *rows = _rows(outcome)
    table = Table()
    for title in header:
        table.add_column(title)
    for row, check in zip(rows, outcome.checks, strict=True):
        table.add_row(*row, style=None if check.ok else "bold red")
    return table


def _rows(outcome: Outcome) -> list[tuple[str, str, str, str]]:
    verdicts = [
        (check.promise, str(check.measured), str(check.limit), "kept" if check.ok else "BROKEN")
        for check in outcome.checks
    ]
    return [("promise", "measured", "limit", "verdict"), *verdicts]
