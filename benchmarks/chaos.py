"""The stream bridge under chaos: three replicas write and read each other's runs while everything around them breaks.

    python benchmarks/chaos.py [--events 1000000] [--seed N] [--push pubsub|xread] [--smoke]

Connections are cut at any byte, replies are lost or late, links stall, clients are killed, replicas are stopped, some
for longer than their lease, and the server is restarted, with its data. Every client reconnects at random. Exits with
1 unless each of them got every event once and in order, then END, or a gap where the events are no longer kept.
The seed decides on the faults and their order; when they strike is up to the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import redis
from _chaos_worker import AT_ONCE, Work

from deerflow_replica._drivers.embedded import EmbeddedValkey

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from proxy import CuttingProxy, Link, cutting_proxy

REPLICAS = 3
LEASE_SECONDS, SHORT_LEASE_SECONDS = 1.5, 0.75
EVENTS_A_SECOND = 6000  # of all replicas together, at most
SHORTEST_SECONDS = 2.0
STALLED_AFTER_SECONDS = 60.0
LOWEST_DATA = 100  # bytes of a batch


class Replica:
    """A worker process, behind a proxy of its own."""

    def __init__(self, process: asyncio.subprocess.Process, proxy: CuttingProxy) -> None:
        self.process = process
        self.proxy = proxy

    def link(self, dice: random.Random) -> Link | None:
        return dice.choice(self.proxy.links) if self.proxy.links else None


class Chaos:
    """Deals the faults, each kind as often as its weight says in every round."""

    def __init__(
        self, server: EmbeddedValkey, replicas: list[Replica], dice: random.Random, *, lease_seconds: float
    ) -> None:
        self._server = server
        self._lease_seconds = lease_seconds
        self._replicas = replicas
        self._dice = dice
        self._deck: list[Callable[[], Awaitable[None]]] = []
        self.dealt: Counter[str] = Counter()

    async def go_on(self, verdict: Verdict) -> None:
        await verdict.all_ready.wait()
        while True:
            if not self._deck:
                self._deck = [fault for fault, weight in self._faults().items() for _ in range(weight)]
                self._dice.shuffle(self._deck)
            fault = self._deck.pop()
            await fault()
            self.dealt[fault.__name__] += 1
            await asyncio.sleep(self._dice.uniform(0.0, 0.1))

    def _faults(self) -> dict[Callable[[], Awaitable[None]], int]:
        return {
            self.cut: 4,
            self.cut_a_request: 8,
            self.cut_a_reply: 8,
            self.lose_replies: 4,
            self.delay: 3,
            self.stall: 3,
            self.refuse: 2,
            self.kill_clients: 4,
            self.stop_for_a_moment: 3,
            self.stop_beyond_the_lease: 1,
            self.restart: 1,
            self.crash: 1,
        }

    @property
    def _some(self) -> Replica:
        return self._dice.choice(self._replicas)

    async def cut(self) -> None:
        self._some.proxy.cut()

    async def cut_a_request(self) -> None:
        link = self._some.link(self._dice)
        if link:
            link.requests_left = self._dice.choice((0, 1, LOWEST_DATA, 1000, 20_000))

    async def cut_a_reply(self) -> None:
        link = self._some.link(self._dice)
        if link:
            link.replies_left = self._dice.choice((0, 1, 50, 5000))

    async def lose_replies(self) -> None:
        link = self._some.link(self._dice)
        if link:
            link.swallows_replies = True

    async def delay(self) -> None:
        proxy = self._some.proxy
        proxy.reply_delay_seconds = 0.05
        await asyncio.sleep(0.3)
        proxy.reply_delay_seconds = 0.0

    async def stall(self) -> None:
        link = self._some.link(self._dice)
        if link:
            link.flows.clear()
            await asyncio.sleep(self._dice.uniform(0.1, 1.5))  # at times longer than the bridge waits for an answer
            link.flows.set()

    async def refuse(self) -> None:
        proxy = self._some.proxy
        proxy.is_refusing = True
        proxy.cut()
        await asyncio.sleep(0.3)
        proxy.is_refusing = False

    async def kill_clients(self) -> None:
        kind = self._dice.choice(("normal", "pubsub"))
        with suppress(redis.ConnectionError), redis.Redis.from_url(self._server.url) as client:
            client.client_kill_filter(_type=kind, skipme=True)

    async def stop_for_a_moment(self) -> None:
        await self._stop(self._lease_seconds * self._dice.uniform(0.05, 0.4))

    async def stop_beyond_the_lease(self) -> None:
        await self._stop(self._lease_seconds * 2)

    async def restart(self) -> None:
        await asyncio.to_thread(self._server.restart)

    async def crash(self) -> None:
        await asyncio.to_thread(self._server.kill)
        await asyncio.to_thread(self._server.start)

    async def _stop(self, seconds: float) -> None:
        process = self._some.process
        with suppress(ProcessLookupError):  # it has just finished
            process.send_signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(seconds)
            finally:
                process.send_signal(signal.SIGCONT)


class Verdict:
    """What the replicas tell, and whether it fits together."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.written: dict[str, dict[str, Any]] = {}
        self.seen: dict[str, dict[str, Any]] = {}
        self.totals: Counter[str] = Counter()
        self._ready = 0
        self.all_ready = asyncio.Event()
        self.finished = 0
        self.changed = asyncio.Event()

    def take(self, line: bytes) -> None:
        facts = json.loads(line)
        kind = facts.pop("kind")
        if kind == "done":
            self.totals.update(facts)
            self.finished += 1
        elif kind == "ready":
            self._ready += 1
            if self._ready == REPLICAS:
                self.all_ready.set()
        else:
            (self.written if kind == "written" else self.seen)[facts["run"]] = facts
        self.changed.set()

    @property
    def delivered(self) -> int:
        return sum(one["events"] for one in self.seen.values())

    def problems(self) -> list[str]:
        if self.finished < REPLICAS:
            return [f"only {self.finished} of {REPLICAS} replicas came to their end"]
        return [problem for run in self.written for problem in self._problems_of(run)]

    def _problems_of(self, run: str) -> list[str]:
        written, seen = self.written[run], self.seen[run]
        had = seen["events"] + seen["lost"]
        is_whole = seen["reason"] == "done" and had == written["published"] == self._work.events
        is_part = seen["reason"] == "orphaned" and written["kept"] <= had <= self._work.events
        expected = is_part if written["is_refused"] else is_whole or (is_part and had == self._work.events)
        return [] if expected else [f"run {run}: wrote {written}, read {seen}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--push", choices=("pubsub", "xread"), default="pubsub")
    parser.add_argument("--smoke", action="store_true", help="4,000 events: only show that it runs")
    options = parser.parse_args()
    events = 4000 if options.smoke else options.events
    print(f"seed {options.seed}: {events:,} events, {REPLICAS} replicas, push {options.push}", flush=True)
    return (
        0
        if asyncio.run(
            survived(events, options.seed, options.push, SHORT_LEASE_SECONDS if options.smoke else LEASE_SECONDS)
        )
        else 1
    )


async def survived(events: int, seed: int, push: str, lease_seconds: float) -> bool:
    per_run = max(100, min(2000, events // 100))
    runs = max(1, events // per_run // REPLICAS)
    rate = min(EVENTS_A_SECOND, events / SHORTEST_SECONDS) / REPLICAS / AT_ONCE
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedValkey(data_dir=Path(folder) / "valkey", settings={"appendfsync": "always"}) as server,
    ):
        work = Work(server.url, "chaos", push, seed, 0, REPLICAS, runs, per_run, lease_seconds, rate)
        verdict = Verdict(work)
        began = perf_counter()
        async with AsyncExitStack() as stack:
            replicas = [await stack.enter_async_context(started(server, work, number)) for number in range(REPLICAS)]
            chaos = Chaos(server, replicas, random.Random(seed), lease_seconds=lease_seconds)
            striking = asyncio.create_task(chaos.go_on(verdict))
            listening = [asyncio.create_task(listen(replica, verdict)) for replica in replicas]
            await finished(verdict, listening, striking)
            for task in (striking, *listening):
                task.cancel()
            outcomes = await asyncio.gather(striking, *listening, return_exceptions=True)
        return report(verdict, chaos, outcomes, perf_counter() - began)


@asynccontextmanager
async def started(server: EmbeddedValkey, work: Work, number: int) -> AsyncIterator[Replica]:
    async with cutting_proxy(server.url) as proxy:
        facts = json.dumps({**asdict(work), "url": proxy.url, "worker": number})
        script = Path(__file__).with_name("_chaos_worker.py")
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(script), facts, stdout=asyncio.subprocess.PIPE, limit=2**20
        )
        try:
            yield Replica(process, proxy)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()


async def listen(replica: Replica, verdict: Verdict) -> None:
    assert replica.process.stdout is not None
    async for line in replica.process.stdout:
        verdict.take(line)
    if await replica.process.wait():
        raise RuntimeError(f"a replica ended with {replica.process.returncode}: see above")


async def finished(verdict: Verdict, listening: list[asyncio.Task[None]], striking: asyncio.Task[None]) -> None:
    """All are done, one has failed, or nothing has moved for a minute."""
    with suppress(TimeoutError):
        while verdict.finished < REPLICAS and not striking.done():
            verdict.changed.clear()
            if any(task.done() and task.exception() for task in listening):
                return
            async with asyncio.timeout(STALLED_AFTER_SECONDS):
                waiting = asyncio.ensure_future(verdict.changed.wait())
                try:
                    await asyncio.wait(
                        {waiting, striking, *(one for one in listening if not one.done())},
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                finally:
                    waiting.cancel()
        # Their pipes are read to the end, their bridges close.
        async with asyncio.timeout(STALLED_AFTER_SECONDS):
            await asyncio.gather(*listening)


def report(verdict: Verdict, chaos: Chaos, outcomes: list[Any], seconds: float) -> bool:
    failures = [str(one) for one in outcomes if isinstance(one, Exception)]
    problems = failures + verdict.problems()
    seen = list(verdict.seen.values())
    orphaned = sum(one["reason"] == "orphaned" for one in seen)
    print(f"{verdict.delivered:,} events delivered in {seconds:.0f} s, {verdict.delivered / seconds:,.0f} a second")
    print("faults: " + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in chaos.dealt.most_common()))
    print(
        f"{len(seen)} runs, {sum(one['connections'] for one in seen):,} connections of clients, "
        f"{sum(one['gaps'] for one in seen)} gaps, {orphaned} runs orphaned, "
        f"{verdict.totals['retried']:,} batches sent again, {verdict.totals['reconnects']:,} losses of contact"
    )
    for problem in problems[:20]:
        print(f"VIOLATED: {problem}")
    print("every event once, in order, then END" if not problems else f"BROKEN: {len(problems)} problems")
    return not problems


if __name__ == "__main__":
    sys.exit(main())
