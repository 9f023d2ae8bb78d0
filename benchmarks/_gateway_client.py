"""A client that costs little: it reads streams as they come and looks at nothing but numbers and moments."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, cast

import httpx
import orjson

_NUMBERED = re.compile(rb'data: ?\{"n":(\d+),"t":([\d.]+)\}')
_HEAD = re.compile(rb"\r\n(content-location|location): ([^\r]+)", re.IGNORECASE)


@dataclass(eq=False)
class EventReader(asyncio.Protocol):
    """One request and its stream. `delays`: seconds from saying a number to having it."""

    request: bytes
    status: int = 0
    place: str = ""
    first_at: float = 0.0
    last_at: float = 0.0
    next_number: int = 0
    lost: int = 0
    doubled: int = 0
    error: bytes = b""
    error_at: float = 0.0
    delays: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sent_at = 0.0
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.sent_at = monotonic()
        cast(asyncio.Transport, transport).write(self.request)

    def data_received(self, data: bytes) -> None:
        now = monotonic()
        self._pending += data
        if not self.status:
            self._read_head()
        if not self.first_at and b"data:" in self._pending:
            self.first_at = now
        whole = max(self._pending.rfind(b"\n\n"), self._pending.rfind(b"\n\r\n")) + 1
        if whole:
            self._read(self._pending[:whole], now)
            self._pending = self._pending[whole:]

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.answered, self.closed):
            if not future.done():
                future.set_result(None)

    def _read_head(self) -> None:
        head, end, rest = self._pending.partition(b"\r\n\r\n")
        if not end:
            return
        self.status = int(head.split(b" ", 2)[1])
        places = {name.lower(): value.decode() for name, value in _HEAD.findall(head)}
        self.place = places.get(b"content-location", "")
        self._pending = rest
        self.answered.set_result(None)

    def _read(self, frames: bytes, now: float) -> None:
        for number, moment in _NUMBERED.findall(frames):
            self._take(int(number))
            self.delays.append(now - float(moment))
            self.last_at = now
        if not self.error_at and b"event: error" in frames:
            self.error, self.error_at = frames[frames.index(b"event: error") :], now

    def _take(self, number: int) -> None:
        if number < self.next_number:
            self.doubled += 1
            return
        self.lost += number - self.next_number
        self.next_number = number + 1


async def opened(url: str, method: str, path: str, body: Any = None, **headers: str) -> EventReader:
    """A request of its own connection, sent."""
    address = httpx.URL(url)
    content = b"" if body is None else orjson.dumps(body)
    lines = [f"{method} {path} HTTP/1.1", f"host: {address.host}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += ["content-type: application/json", f"content-length: {len(content)}", "", ""]
    request = "\r\n".join(lines).encode() + content
    loop = asyncio.get_running_loop()
    _, reader = await loop.create_connection(lambda: EventReader(request), address.host, address.port)
    return reader


async def streamed(url: str, thread_id: str, **given: Any) -> EventReader:
    """A run that is created and streamed; the answer has not come yet."""
    return await opened(url, "POST", f"/threads/{thread_id}/runs/stream", run_body(**given))


async def joined(url: str, place: str) -> EventReader:
    """From a run's first event on."""
    return await opened(url, "GET", f"{place}/stream", **{"last-event-id": "-1"})


def run_body(**given: Any) -> dict[str, Any]:
    return {"assistant_id": "agent", "input": given, "stream_mode": "custom", "stream_resumable": True}


async def new_threads(client: httpx.AsyncClient, count: int) -> list[str]:
    answers = [await client.post("/threads", json={}) for _ in range(count)]
    return [answer.raise_for_status().json()["thread_id"] for answer in answers]


async def new_run(client: httpx.AsyncClient, thread_id: str, **given: Any) -> str:
    """Where it is."""
    answer = (await client.post(f"/threads/{thread_id}/runs", json=run_body(**given))).raise_for_status()
    return f"/threads/{thread_id}/runs/{answer.json()['run_id']}"
