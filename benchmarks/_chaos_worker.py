"""One replica under chaos: writes its own runs and reads those of the next one. Started by `chaos.py`.

Says one line of JSON when it is ready, for every run that it wrote to its end, and for every run that it read to it.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, dataclass
from typing import Any

from deerflow_replica.errors import StreamEndedError, StreamUnavailableError
from deerflow_replica.stream import END_SENTINEL, RedisStreamBridge, StreamBridge, StreamEvent, StreamGap

AT_ONCE = 8
CLEANED_AFTER_SECONDS = 30.0
NARROW = 64  # events that are kept of every fourth run: its readers may get gaps


@dataclass(frozen=True)
class Work:
    url: str
    prefix: str
    push: str
    seed: int
    worker: int
    workers: int
    runs: int
    events: int
    lease_seconds: float
    rate: float

    def writes(self, run: int) -> str:
        return f"{self.worker}-{run}"

    def reads(self, run: int) -> str:
        return f"{(self.worker + 1) % self.workers}-{run}"


class ViolationError(Exception):
    """What must never be seen was seen."""


@dataclass
class Written:
    """`published`: accepted; `kept`: known to be stored when the run ended, or was ended."""

    run: str
    published: int = 0
    kept: int = 0
    is_refused: bool = False


@dataclass
class Seen:
    """What a client got, over all its connections: `events` in order, and gaps in which `lost` were missing."""

    run: str
    events: int = 0
    lost: int = 0
    gaps: int = 0
    connections: int = 0
    reason: str | None = None
    cursor: str = "0"
    next_seq: int = 0

    def take(self, event: StreamEvent) -> None:
        epoch, _, seq = event.id.partition("-")
        known = epoch if self.cursor == "0" else self.cursor.partition("-")[0]
        if (epoch, int(seq), event.data["number"]) != (known, self.next_seq, self.next_seq):
            raise ViolationError(f"{self}: then came {event.id} with {event.data['number']}")
        self.events += 1
        self.next_seq += 1
        self.cursor = event.id

    def take_gap(self, gap: StreamGap) -> None:
        earliest = int((gap.earliest_available_event_id or "-0").partition("-")[2])
        if is_wide(self.run) or gap.requested_event_id != self.cursor or earliest <= self.next_seq:
            raise ViolationError(f"{self}: then came {gap}")
        self.gaps += 1
        self.lost += earliest - self.next_seq
        # What the client missed it has from elsewhere: it goes on after that.
        epoch = str(gap.earliest_available_event_id).partition("-")[0]
        self.cursor, self.next_seq = f"{epoch}-{earliest - 1}", earliest


def is_wide(run: str) -> bool:
    return int(run.partition("-")[2]) % 4 != 3


def say(kind: str, facts: Any) -> None:
    print(json.dumps({"kind": kind, **facts}), flush=True)


async def write(bridge: StreamBridge, run: str, work: Work, dice: random.Random) -> Written:
    """At about `rate` events a second, in bursts."""
    written = Written(run)
    clock = asyncio.get_running_loop().time
    began = clock()
    try:
        for number in range(work.events):
            await patiently(
                lambda number=number: bridge.publish(run, "n", {"number": number, "text": "x" * (number % 50)})
            )
            written.published += 1
            if dice.random() < 0.03:
                await patiently(lambda: bridge.flush(run))
                written.kept = written.published
                await asyncio.sleep(began + number / work.rate - clock())
        await patiently(lambda: bridge.publish_end(run))
        written.kept = written.published
    except StreamEndedError:
        written.is_refused = True
    return written


async def patiently(call: Callable[[], Awaitable[None]]) -> None:
    """Until the server has been back for long enough; an event that was not accepted is offered again."""
    while True:
        try:
            return await call()
        except StreamUnavailableError:
            continue


async def follow(bridges: list[RedisStreamBridge], run: str, dice: random.Random) -> Seen:
    seen = Seen(run)
    while seen.reason is None:
        seen.connections += 1
        bridge = dice.choice(bridges)
        if await one_connection(bridge, seen, patience=dice.choice((1, 10, 100, 1000))):
            seen.reason = await reason(bridge, run)
    await patiently(lambda: bridges[0].cleanup(run, delay=CLEANED_AFTER_SECONDS))
    return seen


async def one_connection(bridge: StreamBridge, seen: Seen, *, patience: int) -> bool:
    """Whether END came within so many items."""
    async with aclosing(bridge.subscribe(seen.run, last_event_id=seen.cursor, heartbeat_interval=0.5)) as feed:
        async for item in feed:
            if item is END_SENTINEL:
                return True
            if isinstance(item, StreamGap):
                seen.take_gap(item)
            elif item.id:
                seen.take(item)
            patience -= 1
            if not patience:
                break
    return False


async def reason(bridge: StreamBridge, run: str) -> str:
    while True:
        try:
            found = await bridge.end_reason(run)
        except StreamUnavailableError:
            continue
        if found is None:
            raise ViolationError(f"{run} ended, and has no reason")
        return found


async def main(work: Work) -> None:
    def made(**options: Any) -> RedisStreamBridge:
        return RedisStreamBridge(
            redis_url=work.url,
            key_prefix=work.prefix,
            push=work.push,  # type: ignore[arg-type]  # one of its words, from the command line
            lease_seconds=work.lease_seconds,
            check_interval_seconds=work.lease_seconds / 4,
            connect_timeout_seconds=1.0,
            close_timeout_seconds=30.0,
            **options,
        )

    async with AsyncExitStack() as stack:
        wide = await opened(stack, lambda: made(queue_maxsize=work.events + 1))
        narrow = await opened(stack, lambda: made(queue_maxsize=NARROW, live_window=NARROW))
        readers = [await opened(stack, made) for _ in range(2)]
        say("ready", {})

        async def write_all(lane: int) -> None:
            for run in lane_of(lane, work.runs):
                dice = random.Random(f"{work.seed} writes {work.worker} {run}")
                bridge = wide if is_wide(work.writes(run)) else narrow
                written = await write(bridge, work.writes(run), work, dice)
                say("written", asdict(written))

        async def read_all(lane: int) -> None:
            for run in lane_of(lane, work.runs):
                dice = random.Random(f"{work.seed} reads {work.worker} {run}")
                say("seen", asdict(await follow(readers, work.reads(run), dice)))

        async with asyncio.TaskGroup() as group:
            for lane in range(AT_ONCE):
                group.create_task(write_all(lane))
                group.create_task(read_all(lane))
        stats = [one.stats() for one in (wide, narrow, *readers)]
        totals = {name: sum(getattr(one, name) for one in stats) for name in ("retried", "reconnects", "orphaned")}
        say("done", totals)


async def opened(stack: AsyncExitStack, make: Callable[[], RedisStreamBridge]) -> RedisStreamBridge:
    while True:
        try:
            return await stack.enter_async_context(make())
        except StreamUnavailableError:
            continue


def lane_of(lane: int, runs: int) -> Iterator[int]:
    return iter(range(lane, runs, AT_ONCE))


if __name__ == "__main__":
    asyncio.run(main(Work(**json.loads(sys.argv[1]))))
