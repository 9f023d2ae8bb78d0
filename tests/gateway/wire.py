"""What is on the wire: frames, as a client reads them."""

from __future__ import annotations

from typing import Any

import httpx
import orjson

Frame = dict[str, str]


def frames_of(text: str) -> list[Frame]:
    """The frames of a stream's body, without its heartbeats."""
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


def data_of(frame: Frame) -> Any:
    return orjson.loads(frame["data"])


def numbers_of(frames: list[Frame]) -> list[int]:
    """What a counting graph counted."""
    return [data_of(frame)["n"] for frame in frames if frame["event"] == "custom"]


async def joined(client: httpx.AsyncClient, url: str, cursor: str | None = None) -> list[Frame]:
    """All frames of a join, which must be answered with 200."""
    answer = await client.get(url, headers={} if cursor is None else {"last-event-id": cursor})
    assert answer.status_code == 200, answer.text
    return frames_of(answer.text)
