"""What a joining client asks for by its `Last-Event-ID`, and what it is given: a pure rule."""

from __future__ import annotations

from typing import Literal

from ..stream.cursor import parse_cursor

Plan = Literal["nothing", "now", "all", "gap", "after"]


def plan(last_event_id: str | None, *, over: bool, retained: bool) -> Plan:
    """How a join is answered. `over`: the run has ended; `retained`: its stream is still there.

    `nothing`: empty and at once; `now`: only what comes; `all`: from the first event, or a gap; `gap`: that history is
    gone; `after`: what follows the id, or a gap.
    """
    gone = over and not retained
    if last_event_id == "-1":
        return "nothing" if gone else "all"
    match parse_cursor(last_event_id).after:
        case "nothing" | "invalid":
            return "nothing" if over else "now"
        case "start":
            return "gap" if gone else "all"
        case _:
            return "gap" if gone else "after"
