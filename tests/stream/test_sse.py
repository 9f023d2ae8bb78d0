"""Frames and headers of server-sent events."""

from __future__ import annotations

import json

import pytest

from deerflow_replica.stream import (
    END_SENTINEL,
    HEARTBEAT_SENTINEL,
    InMemoryStreamBridge,
    StreamEvent,
    StreamGap,
    encode_sse,
    parse_last_event_id,
)
from deerflow_replica.testing._stream_common import read


def test_control_frames_have_no_id() -> None:
    assert encode_sse(HEARTBEAT_SENTINEL) == b": heartbeat\n\n"
    assert encode_sse(END_SENTINEL) == b"event: end\ndata: null\n\n"
    frame = encode_sse(StreamGap("5-1", None, "6-2"))
    head, data, *rest = frame.split(b"\n")
    assert head == b"event: gap"
    assert rest == [b"", b""]
    assert json.loads(data.removeprefix(b"data: ")) == {
        "code": "stream_replay_gap",
        "requested_event_id": "5-1",
        "earliest_available_event_id": None,
        "latest_available_event_id": "6-2",
        "recovery": "reload_durable_state",
    }


def test_an_event_made_by_hand_is_encoded() -> None:
    assert encode_sse(StreamEvent("5-1", "values", {"a": "é\n"})) == (
        'event: values\ndata: {"a":"é\\n"}\nid: 5-1\n\n'.encode()
    )


@pytest.mark.anyio
async def test_a_stored_event_is_not_decoded_for_its_frame() -> None:
    async with InMemoryStreamBridge() as bridge:
        await bridge.publish("r", "values", {"a": [1.0, "é"]})
        (event,) = await read(bridge, "r", items=1)
    assert isinstance(event, StreamEvent)
    assert encode_sse(event) == f'event: values\ndata: {{"a":[1.0,"é"]}}\nid: {event.id}\n\n'.encode()
    assert "data" not in vars(event)
    assert event == StreamEvent(event.id, "values", {"a": [1.0, "é"]})
    with pytest.raises(AttributeError, match="nothing"):
        event.nothing  # type: ignore[attr-defined]  # noqa: B018  # it must not look like data


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"Last-Event-ID": " 5-1 "}, "5-1"),
        ({"last-event-id": "5-1"}, "5-1"),
        ({"LAST-EVENT-ID": "  "}, None),
        ({"accept": "x"}, None),
        ([(b"accept", b"x"), (b"last-event-id", b"-1")], "-1"),
        ([(b"Last-Event-Id", b"\xe9")], "é"),
        ([], None),
        ({b"last-event-id": b"5-1"}, "5-1"),
    ],
)
def test_the_last_event_id_of_a_request(headers: dict[str, str], found: str | None) -> None:
    assert parse_last_event_id(headers) == found
