"""One process of a measurement: it publishes, or it reads. Started by `_stream_bench.py`, with its load as JSON.

It says "ready" when every reader has the first event of its run, begins with the line it then reads, and says what it
measured. Times of day are of the system's monotonic clock, which processes share.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from _naive_bridge import NaiveMemoryBridge, NaiveRedisBridge

from deerflow_replica.stream import InMemoryStreamBridge, RedisStreamBridge, StreamEvent

RETAINED = 20_000  # more than any measurement publishes: none of the bridges loses anything
SETTLING_SECONDS = 7.0  # until silent runs count as such
CONTENT = "".join(f"token {number} " for number in range(60))


@dataclass(frozen=True)
class Load:
    """`rate`: events a second and run, 0: as fast as it goes. `idle`: further runs of which nothing but one small
    event comes, nothing at all if they are `absent`. `seconds`: how long a process with idle readers alone is measured.
    `lead`: events after which a reading process begins to measure its CPU.
    """

    role: str
    bridge: str
    url: str = ""
    prefix: str = ""
    runs: int = 1
    events: int = 0
    readers: int = 1
    idle: int = 0
    rate: float = 0.0
    seconds: float = 0.0
    is_timed: bool = False
    absent: bool = False
    lead: int = 0


class Meter:
    """CPU of this process, its trips to the server, and the time."""

    def __init__(self) -> None:
        self.trips = 0

    def start(self) -> None:
        self._cpu, self._trips, self.began = time.process_time(), self.trips, time.monotonic()

    def stop(self) -> dict[str, float]:
        return {
            "began": self.began,
            "ended": time.monotonic(),
            "cpu": time.process_time() - self._cpu,
            "trips": self.trips - self._trips,
        }

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what every bridge sends through the driver; a pipeline is one trip."""
        from redis.asyncio.connection import AbstractConnection

        sent = AbstractConnection.send_packed_command

        async def send(connection: Any, *arguments: Any, **options: Any) -> None:
            self.trips += 1
            await sent(connection, *arguments, **options)

        setattr(AbstractConnection, sent.__name__, send)
        try:
            yield
        finally:
            setattr(AbstractConnection, sent.__name__, sent)


def bridge_of(load: Load) -> Any:
    match load.bridge:
        case "naive":
            return NaiveRedisBridge(load.url, load.prefix, queue_maxsize=RETAINED)
        case "naive memory":
            return NaiveMemoryBridge(queue_maxsize=RETAINED)
        case "memory":
            return InMemoryStreamBridge(queue_maxsize=RETAINED, live_window=RETAINED)
        case push:
            return RedisStreamBridge(
                redis_url=load.url,
                key_prefix=load.prefix,
                push=push,  # type: ignore[arg-type]  # the caller's word
                queue_maxsize=RETAINED,
                live_window=RETAINED,
            )


def token() -> dict[str, Any]:
    """One token as a graph streams it, 640 bytes of JSON with its time."""
    data: dict[str, Any] = {
        "t": time.monotonic_ns(),
        "type": "AIMessageChunk",
        "id": "run-0198c0de-7f3a-7c11-9a55-5f2f6f0f7a01",
        "tool_calls": [],
        "usage": None,
        "langgraph": {"node": "agent", "step": 3, "checkpoint_ns": "agent:0198c0de"},
        "content": "",
    }
    data["content"] = CONTENT[: 640 - len(json.dumps(data, separators=(",", ":")))]
    return data


async def publish(load: Load, meter: Meter) -> None:
    """The process stays until the readers are done: streams whose owner is gone are ended."""
    took: list[float] = []
    async with bridge_of(load) as bridge:
        await publish_first(bridge, load)
        await bridge.flush()
        await ready()
        meter.start()
        await asyncio.gather(*(publish_run(bridge, load, number, took) for number in range(load.runs)))
        measured = meter.stop()
        await said({**measured, "median_us": median(took) * 1e6 if took else 0.0})


async def publish_first(bridge: Any, load: Load) -> None:
    for number in range(load.runs):
        await bridge.publish(f"run{number}", "messages", token())
    for name in [] if load.absent else idle_names(load):
        await bridge.publish(name, "messages", {"t": 0})


async def publish_run(bridge: Any, load: Load, number: int, took: list[float]) -> None:
    run, data = f"run{number}", token()
    began = time.monotonic() + number / load.runs / load.rate if load.rate else 0.0
    for count in range(load.events):
        if load.rate:
            await asyncio.sleep(max(0.0, began + count / load.rate - time.monotonic()))
        data["t"] = time.monotonic_ns()
        if load.is_timed:
            started = time.perf_counter()
            await bridge.publish(run, "messages", data)
            took.append(time.perf_counter() - started)
        else:
            await bridge.publish(run, "messages", data)
    await bridge.publish_end(run)


async def read(load: Load, meter: Meter) -> dict[str, Any]:
    late: list[int] = []
    async with bridge_of(load) as bridge:
        gc.collect()
        before = memory_bytes()
        names = [f"run{number}" for number in range(load.runs) for _ in range(load.readers)]
        active = await arrived(bridge, names, late)
        idle = await arrived(bridge, idle_names(load), late, are_absent=load.absent)
        await asyncio.sleep(SETTLING_SECONDS if load.idle else 0)
        gc.collect()
        held = memory_bytes() - before
        await ready()
        meter.start()
        if active:
            await delivered(late, load.lead)
            meter.start()
            await asyncio.gather(*(reader.task for reader in active))
        else:
            await asyncio.sleep(load.seconds)
        measured = meter.stop()
        for reader in idle:
            reader.task.cancel()
        await asyncio.gather(*(reader.task for reader in idle), return_exceptions=True)
    cuts = quantiles(late, n=100) if len(late) > 1 else [0] * 99
    return {
        **measured,
        "delivered": len(late),
        "p50_ms": cuts[49] / 1e6,
        "p99_ms": cuts[98] / 1e6,
        "bytes_each": held / max(1, len(active) + len(idle)),
    }


class Reader:
    """Reads one run to its end, every event's data too. `has_begun`: the first event has come."""

    def __init__(self, bridge: Any, run: str, late: list[int]) -> None:
        self.has_begun = False
        self.task = asyncio.create_task(self._read(bridge.subscribe(run), late))

    async def _read(self, items: Any, late: list[int]) -> None:
        async for item in items:
            data = item.data if isinstance(item, StreamEvent) else item[2]
            if data is None:  # heartbeat or END
                continue
            if self.has_begun:
                late.append(time.monotonic_ns() - data["t"])
            self.has_begun = True


async def arrived(bridge: Any, names: list[str], late: list[int], *, are_absent: bool = False) -> list[Reader]:
    """Readers come a hundred at a time: a server does not take a thousand new connections at once."""
    readers: list[Reader] = []
    for start in range(0, len(names), 100):
        new = [Reader(bridge, name, late) for name in names[start : start + 100]]
        readers += new
        await begun([] if are_absent else new)
    return readers


async def begun(readers: list[Reader]) -> None:
    while not all(reader.has_begun for reader in readers):
        await asyncio.sleep(0.01)
        for reader in readers:
            if reader.task.done():
                reader.task.result()


async def delivered(late: list[int], count: int) -> None:
    while len(late) < count:  # noqa: ASYNC110  # a reader that told would cost what is measured
        await asyncio.sleep(0.05)


async def both(load: Load, meter: Meter) -> dict[str, Any]:
    """Publisher and readers in one process, for the bridges that have no other."""
    late: list[int] = []
    async with bridge_of(load) as bridge:
        readers = [Reader(bridge, f"run{number}", late) for number in range(load.runs) for _ in range(load.readers)]
        await publish_first(bridge, load)
        await begun(readers)
        await ready()
        meter.start()
        await asyncio.gather(*(publish_run(bridge, load, number, []) for number in range(load.runs)))
        await asyncio.gather(*(reader.task for reader in readers))
        return {**meter.stop(), "delivered": len(late)}


def idle_names(load: Load) -> list[str]:
    return [f"idle{number}" for number in range(load.idle)]


def memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def ready() -> None:
    """A full collection of all that was imported takes longer than many a measurement: let it have been."""
    gc.collect()
    gc.freeze()
    await said("ready")


async def said(word: object) -> None:
    """Say it, and wait for a line."""
    print(json.dumps(word), flush=True)
    await asyncio.to_thread(sys.stdin.readline)


def main() -> None:
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(files, min(most, 65536)), most))
    load = Load(**json.loads(sys.argv[1]))
    meter = Meter()
    work = {"publish": publish, "read": read, "both": both}[load.role]
    with meter.counting():
        measured = asyncio.run(work(load, meter))
    if measured:
        print(json.dumps(measured), flush=True)


if __name__ == "__main__":
    main()
