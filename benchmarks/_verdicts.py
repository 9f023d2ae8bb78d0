"""What a measurement says, and how it is printed."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """`limit`: what `value` has to be at least, or with `at_most` at most; None: for information."""

    text: str
    value: float
    limit: float | None = None
    at_most: bool = False

    @property
    def is_kept(self) -> bool:
        compare = operator.le if self.at_most else operator.ge
        return self.limit is None or compare(self.value, self.limit)

    def shown(self, *, is_judged: bool) -> str:
        line = f"  {self.text:70} {self.value:8.2f}"
        if self.limit is None or not is_judged:
            return line
        bound = "at most" if self.at_most else "at least"
        return f"{line}   {bound} {self.limit:g}   {'kept' if self.is_kept else 'MISSED'}"


def told(verdicts: Iterable[Verdict], *, is_judged: bool) -> bool:
    """Print them as they come; whether all are kept."""
    kept = True
    for verdict in verdicts:
        print(verdict.shown(is_judged=is_judged), flush=True)
        kept &= verdict.is_kept
    return kept
