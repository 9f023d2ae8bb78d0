"""Server-sent events without a framework: one item as bytes, and the cursor out of a request's headers.

The format is the HTML standard's (section 9.2, "Server-sent events").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import orjson

from .base import END_SENTINEL, HEARTBEAT_SENTINEL, StreamEvent, StreamGap
from .payload import encode_payload

_HEARTBEAT = b": heartbeat\n\n"
_END = b"event: end\ndata: null\n\n"

Headers = Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]] | Iterable[tuple[str, str]]


def encode_sse(item: StreamEvent | StreamGap) -> bytes:
    """One frame for anything that `subscribe` yields; the data of an event are the bytes that were stored.

    Heartbeat, end and gap have no `id:`: they must not move the reader's cursor.
    """
    if item is HEARTBEAT_SENTINEL:
        return _HEARTBEAT
    if item is END_SENTINEL:
        return _END
    if isinstance(item, StreamGap):
        return _gap(item)
    cached: bytes | None = item.__dict__.get("_frame")
    if cached is None:
        cached = item.__dict__["_frame"] = _frame(item)
    return cached


def parse_last_event_id(headers: Headers) -> str | None:
    """The `Last-Event-ID` header of a mapping or of ASGI pairs, any case, stripped; None if absent or blank.

    Not validated: `subscribe` has a rule for every text.
    """
    pairs = cast("Iterable[tuple[str | bytes, str | bytes]]", _pairs(headers))
    for name, value in pairs:
        if _text(name).lower() == "last-event-id":
            return _text(value).strip() or None
    return None


def _frame(item: StreamEvent) -> bytes:
    data = item.stored
    if data is None:
        data = encode_payload(item.data, run_id="", event=item.event)
    identity = f"id: {item.id}\n" if item.id else ""
    return b"event: %b\ndata: %b\n%b\n" % (item.event.encode(), data, identity.encode())


def _gap(gap: StreamGap) -> bytes:
    body = {
        "code": "stream_replay_gap",
        "requested_event_id": gap.requested_event_id,
        "earliest_available_event_id": gap.earliest_available_event_id,
        "latest_available_event_id": gap.latest_available_event_id,
        "recovery": "reload_durable_state",
    }
    return b"event: gap\ndata: %b\n\n" % orjson.dumps(body)


def _pairs(headers: Headers) -> Iterable[object]:
    return headers.items() if isinstance(headers, Mapping) else headers


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
