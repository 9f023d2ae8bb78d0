"""Which events a join with `stream_mode` gets: by the part of their name before `|`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from urllib.parse import quote

import orjson

from .problems import unprocessable

MODES = ("values", "updates", "custom", "tasks", "checkpoints", "debug", "messages", "messages-tuple")
_ALWAYS = frozenset({"metadata", "error"})


def asked_modes(given: Iterable[str]) -> tuple[str, ...]:
    """The modes of a query: one, repeated, or a JSON array. 422 for one that does not exist."""
    modes = tuple(mode for text in given if text for mode in _listed(text))
    return checked_modes(modes)


def checked_modes(modes: tuple[str, ...]) -> tuple[str, ...]:
    for mode in modes:
        if mode not in MODES:
            raise unprocessable(f"stream_mode: {mode!r} is not one of {', '.join(MODES)}")
    return modes


def event_filter(modes: Collection[str]) -> Callable[[str], bool]:
    """Whether an event of that name belongs to the modes; without modes every event does."""
    if not modes:
        return lambda event: True
    wanted = frozenset("messages" if mode == "messages-tuple" else mode for mode in modes) | _ALWAYS
    return lambda event: event.partition("|")[0].partition("/")[0] in wanted


def query_of(modes: Collection[str]) -> str:
    """The query with which a client comes back to the same join; empty without modes."""
    return f"?stream_mode={quote(orjson.dumps(list(modes)), safe='')}" if modes else ""


def _listed(text: str) -> list[str]:
    if not text.startswith("["):
        return [text]
    try:
        modes = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise unprocessable("stream_mode: not a JSON array") from None
    if not isinstance(modes, list) or not all(isinstance(mode, str) for mode in modes):
        raise unprocessable("stream_mode: not an array of strings")
    return modes
