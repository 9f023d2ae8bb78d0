"""What the gateway is measured in: one function for each case, which yields its verdicts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from time import monotonic

import httpx
from _gateway_client import EventReader, joined, new_run, new_threads, streamed
from _gateway_servers import Databases, Serving, reference, replicas
from _verdicts import Verdict

SHORT_LEASE_SECONDS = 3
SHORTEST_LEASE_SECONDS = 1
Case = Callable[["Bench"], AsyncIterator[Verdict]]


class Bench:
    """The servers of all cases: two replicas of ours, which most of them share, and the reference server."""

    def __init__(self, stack: ExitStack, *, reference_python: str | None, is_smoke: bool) -> None:
        self.is_smoke = is_smoke
        self.databases = Databases(stack)
        self._stack = stack
        self._reference_python = reference_python
        self._pair: list[Serving] = []

    def sized(self, full: int, smoke: int) -> int:
        return smoke if self.is_smoke else full

    def pair(self) -> list[Serving]:
        """With the default lease, but for a smoke test, which has no other pair."""
        if not self._pair:
            lease = {"lease_seconds": SHORTEST_LEASE_SECONDS} if self.is_smoke else {}
            self._pair = self._stack.enter_context(replicas(self.databases.config(**lease), 2))
        return self._pair

    @contextmanager
    def each(self) -> Iterator[dict[str, str]]:
        """One of ours, and the reference server where there is one, by name."""
        ours = {"ours": self.pair()[0].url}
        if self._reference_python is None:
            yield ours
            return
        with reference(self._reference_python) as other:
            yield {"reference": other.url, **ours}


def client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=120)


def compared(
    text: str, unit: str, found: dict[str, float], limit: float, *, at_most: bool = False
) -> Iterator[Verdict]:
    for name, value in found.items():
        yield Verdict(f"{text}, {name}, {unit}", value)
    if "reference" in found:
        yield Verdict(f"{text}: ratio", found["ours"] / found["reference"], limit, at_most=at_most)


async def first_event(bench: Bench) -> AsyncIterator[Verdict]:
    """POST /runs/stream to the first event, one run after the other."""
    found = {}
    with bench.each() as servers:
        for name, url in servers.items():
            async with client(url) as http:
                threads = await new_threads(http, bench.sized(32, 3))
            found[name] = 1000 * median([await _first_event(url, thread) for thread in threads][2:])
    for verdict in compared("POST to first event, p50", "ms", found, 0.06, at_most=True):
        yield verdict


async def _first_event(url: str, thread_id: str) -> float:
    reader = await streamed(url, thread_id, count=1)
    await reader.closed
    _check([reader], 1)
    return reader.first_at - reader.sent_at


async def one_stream(bench: Bench) -> AsyncIterator[Verdict]:
    """Small events on one stream at full speed, from its first event to its last; the best of three."""
    count = bench.sized(5000, 200)
    found = {}
    with bench.each() as servers:
        for name, url in servers.items():
            async with client(url) as http:
                threads = await new_threads(http, bench.sized(4, 1))
            found[name] = max([await _one_stream(url, thread, count) for thread in threads][-3:])
    for verdict in compared(f"{count:,} events on one stream", "events/s", found, 2.0):
        yield verdict


async def _one_stream(url: str, thread_id: str, count: int) -> float:
    reader = await streamed(url, thread_id, count=count)
    await reader.closed
    _check([reader], count)
    return count / (reader.last_at - reader.first_at)


async def many_streams(bench: Bench) -> AsyncIterator[Verdict]:
    """Streams at once, from the first POST to the last event; the best of three."""
    streams, count = bench.sized(20, 4), bench.sized(200, 20)
    found = {}
    with bench.each() as servers:
        for name, url in servers.items():
            rates = [await _many_streams(url, streams, count) for _ in range(bench.sized(4, 1))]
            found[name] = max(rates[-3:])
    for verdict in compared(f"{streams} streams x {count}, with their start", "events/s", found, 2.0):
        yield verdict


async def _many_streams(url: str, streams: int, count: int) -> float:
    async with client(url) as http:
        threads = await new_threads(http, streams)
    began = monotonic()
    readers = await asyncio.gather(*(streamed(url, thread, count=count) for thread in threads))
    await asyncio.gather(*(reader.closed for reader in readers))
    _check(readers, count)
    return streams * count / (max(reader.last_at for reader in readers) - began)


async def many_readers(bench: Bench) -> AsyncIterator[Verdict]:
    """Readers of runs at 10 events/s, all at one gateway; another replica executes the runs."""
    runs, each, count = bench.sized(100, 5), 10, bench.sized(200, 10)
    before = count // 2  # while the readers come
    executor, gateway = bench.pair()
    async with client(executor.url) as http:
        threads = await new_threads(http, runs)
        places = [await new_run(http, thread, count=before + count, pause=0.1) for thread in threads]
    readers = [await _answered(gateway.url, place) for place in places for _ in range(each)]
    cpu, began = gateway.cpu_seconds(), monotonic()
    await asyncio.sleep(count * 0.1)
    cpu = (gateway.cpu_seconds() - cpu) / (monotonic() - began)
    connections = gateway.connections_to(bench.databases.redis_port)
    await asyncio.gather(*(reader.closed for reader in readers))
    _check(readers, before + count)
    delays = sorted(delay for reader in readers for delay in reader.delays[-count:])
    text = f"{len(readers):,} readers of {runs} runs at 10/s"
    yield Verdict(f"{text}: events lost or doubled", sum(one.lost + one.doubled for one in readers), 0, at_most=True)
    yield Verdict(f"{text}: delay p50, ms", 1000 * _quantile(delays, 0.5))
    yield Verdict(f"{text}: delay p99, ms", 1000 * _quantile(delays, 0.99), 250, at_most=True)
    yield Verdict(f"{text}: connections to Redis", connections, 8, at_most=True)
    yield Verdict(f"{text}: peak memory of the gateway, MiB", gateway.peak_mib(), 300, at_most=True)
    yield Verdict(f"{text}: CPU of the gateway, % of a core", 100 * cpu)


async def _answered(url: str, place: str) -> EventReader:
    reader = await joined(url, place)
    await reader.answered
    return reader


async def cancel(bench: Bench) -> AsyncIterator[Verdict]:
    """POST /cancel?wait=1 at one replica of runs that another executes."""
    count = bench.sized(60, 4)
    executor, other = bench.pair()
    async with client(executor.url) as http, client(other.url) as away:
        threads = await new_threads(http, count)
        places = [await new_run(http, thread, count=10_000, pause=0.1) for thread in threads]
        for place in places:
            await _running(http, place)
        seconds = sorted([await _cancelled(away, place) for place in places])
    yield Verdict("cancel from another replica: p50, ms", 1000 * _quantile(seconds, 0.5), 300, at_most=True)
    yield Verdict("cancel from another replica: p99, ms", 1000 * _quantile(seconds, 0.99), 1000, at_most=True)


async def _running(http: httpx.AsyncClient, place: str) -> None:
    while (await http.get(place)).json()["status"] != "running":  # noqa: ASYNC110  # another process
        await asyncio.sleep(0.01)


async def _cancelled(away: httpx.AsyncClient, place: str) -> float:
    began = monotonic()
    (await away.post(f"{place}/cancel", params={"wait": "1"})).raise_for_status()
    return monotonic() - began


async def kill(bench: Bench) -> AsyncIterator[Verdict]:
    """kill -9 of the executing replica, until a reader at another one has the terminal event."""
    if bench.is_smoke:
        yield Verdict("kill -9 to terminal event, s", await _killed(*bench.pair()))
        return
    for name, settings, limit in (("a lease of 3 s", {"lease_seconds": SHORT_LEASE_SECONDS}, 5), ("defaults", {}, 15)):
        with replicas(bench.databases.config(**settings), 2) as [doomed, survivor]:
            seconds = await _killed(doomed, survivor)
        yield Verdict(f"kill -9 to terminal event, {name}, s", seconds, limit, at_most=True)


async def _killed(doomed: Serving, survivor: Serving) -> float:
    async with client(doomed.url) as http:
        [thread] = await new_threads(http, 1)
        place = await new_run(http, thread, count=10_000, pause=0.05)
    reader = await joined(survivor.url, place)
    while reader.next_number < 10:  # noqa: ASYNC110  # a few moments
        await asyncio.sleep(0.01)
    doomed.process.kill()
    killed = monotonic()
    await reader.closed
    error = json.loads(reader.error.split(b"data: ", 1)[1].split(b"\n", 1)[0])
    assert error["error"] == "RunOrphaned", reader.error
    return reader.error_at - killed


def _check(readers: list[EventReader], count: int) -> None:
    for reader in readers:
        if reader.status != 200 or reader.next_number != count or reader.lost or reader.doubled:
            raise RuntimeError(f"a stream is not whole: {reader.status}, {reader.next_number} of {count}")


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


CASES: dict[str, Case] = {
    case.__name__.replace("_", "-"): case
    for case in (first_event, one_stream, many_streams, many_readers, cancel, kill)
}
