"""What is measured of the stream bridges, and the limits."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from _stream_bench import Measured, Server, longer_wire, measure, measure_alone
from _stream_worker import Load

from deerflow_replica.errors import ConfigError
from deerflow_replica.stream import RedisStreamBridge

PUSHES = {"pubsub": 3, "xread": 12}  # with the connections that 2,000 readers may take
WIRE_SECONDS = 0.001


@dataclass(frozen=True)
class Verdict:
    """`limit`: what `value` has to be at most, or with `at_least` at least; None: for information."""

    text: str
    value: float
    limit: float | None = None
    at_least: bool = False

    @property
    def is_kept(self) -> bool:
        compare = operator.ge if self.at_least else operator.le
        return self.limit is None or compare(self.value, self.limit)


@dataclass(frozen=True)
class Bench:
    server: Server
    repeat: int
    is_smoke: bool

    def size(self, full: int, small: int) -> int:
        return small if self.is_smoke else full

    def side_by_side(self, load: Load, **options: object) -> tuple[list[Measured], list[Measured]]:
        """The peer and ours take turns, so that what disturbs the machine disturbs both."""
        naive, ours = [], []
        for _ in range(self.repeat):
            naive.append(measure(self.server, _with(load, "naive"), **options))  # type: ignore[arg-type]  # as given
            ours.append(measure(self.server, _with(load, "pubsub"), **options))  # type: ignore[arg-type]  # as given
        return naive, ours


Case = Callable[[Bench], Iterator[Verdict]]


def one_run(bench: Bench) -> Iterator[Verdict]:
    """1 run x 2,000 events, one reader, as fast as it goes; then with a wire of 1 ms more."""
    events = bench.size(2000, 100)
    naive, ours = bench.side_by_side(Load("", "", events=events, is_timed=True))
    yield from _rates("published/s", events, _published, naive, ours, 8.0)
    yield Verdict("median publish, us", _median(ours, lambda one: one.publisher["median_us"]), 15.0)
    with longer_wire(bench.server.url, WIRE_SECONDS) as far:
        naive = [measure(bench.server, Load("", "naive", events=bench.size(400, 20)), far=far)]
        ours = [measure(bench.server, Load("", "pubsub", events=events), far=far) for _ in range(bench.repeat)]
    slow = bench.size(400, 20) / naive[0].published_seconds
    fast = events / _median(ours, _published)
    yield Verdict(f"published/s, 1 ms more: {fast:,.0f} to {slow:,.0f}", fast / slow, 50.0, at_least=True)


def many_runs(bench: Bench) -> Iterator[Verdict]:
    """50 runs x 200 events at once, one reader each, as fast as it goes."""
    runs, events = bench.size(50, 5), bench.size(200, 20)
    total = runs * events
    naive, ours = bench.side_by_side(Load("", "", runs=runs, events=events))
    raw = bench.server.benchmark(bench.size(50_000, 500))
    yield from _rates("published/s", total, _published, naive, ours, 7.0)
    if raw is None:
        yield Verdict("redis-benchmark is not installed", 0.0)
    else:
        rate = total / _median(ours, _published)
        yield Verdict(f"published/s: {rate:,.0f} to redis-benchmark XADD {raw:,.0f}", rate / raw, 0.65, at_least=True)
    yield _cpu("publisher", naive, ours, lambda one: one.publisher["cpu"] / total, 0.09)
    yield _cpu("reader", naive, ours, lambda one: one.reader["cpu"] / total, 0.1)
    yield _cpu("server", naive, ours, lambda one: one.server_cpu / total, None)
    yield Verdict("server CPU an event, us", _median(ours, lambda one: one.server_cpu / total) * 1e6, 5.0)


def many_readers(bench: Bench) -> Iterator[Verdict]:
    """1 run, 100 readers, as fast as it goes; the delays at the pace that the peer reaches."""
    readers, events = bench.size(100, 10), bench.size(1000, 50)
    load = Load("", "", events=events, readers=readers)
    naive, ours = bench.side_by_side(load)
    slow, fast = (_median(side, lambda one: one.delivered_per_second) for side in (naive, ours))
    yield Verdict(f"deliveries/s: {fast:,.0f} to {slow:,.0f}", fast / slow, 4.0, at_least=True)
    yield _cpu("delivery", naive, ours, lambda one: one.reader["cpu"] / one.reader["delivered"], 0.08)
    paced = _with(load, "", rate=slow / readers)
    naive, ours = bench.side_by_side(paced)
    slow, fast = (_median(side, lambda one: one.reader["p99_ms"]) for side in (naive, ours))
    yield Verdict(f"p99 at {paced.rate:.0f} events/s, ms: {fast:.2f} to {slow:.0f}", fast / slow, 0.02)


def steady(bench: Bench) -> Iterator[Verdict]:
    """100 runs at 20 events/s, one reader each; then beside 2,000 readers of silent runs."""
    load = Load("", "", runs=bench.size(100, 5), events=bench.size(100, 5), rate=20.0)
    naive, ours = bench.side_by_side(load)
    for name, limit in (("p50_ms", 0.6), ("p99_ms", 0.3)):
        slow, fast = (median(one.reader[name] for one in side) for side in (naive, ours))
        yield Verdict(f"{name}: {fast:.2f} to {slow:.2f}", fast / slow, limit)
    events = bench.size(200, 5)
    load = _with(load, "", events=events, lead=load.runs * events // 4)
    for push in available():
        alone, beside = [], []
        for _ in range(bench.repeat):
            alone.append(measure(bench.server, _with(load, push)))
            beside.append(measure(bench.server, _with(load, push, idle=bench.size(2000, 20))))
        before, after = (_median(side, lambda one: one.reader["cpu"]) for side in (alone, beside))
        text = f"{push}: reader CPU beside idle ones, s: {after:.3f} to {before:.3f}"
        yield Verdict(text, after / before, 1.15)


def commands(bench: Bench) -> Iterator[Verdict]:
    """What clients send to the server for an event, one by one and in a burst; connections of 2,000 idle readers."""
    trickle = Load("", "", events=bench.size(100, 10), rate=50.0)
    burst = Load("", "", events=bench.size(2000, 100))
    for load, text, limit in ((trickle, "commands an event", 3.0), (burst, "in a burst", 0.2)):
        per_event = {
            bridge: measure(bench.server, _with(load, bridge), is_counted=True).commands / load.events
            for bridge in ("naive", "pubsub")
        }
        yield Verdict(f"{text} (naive {per_event['naive']:.1f})", per_event["pubsub"], limit)
    for push in available():
        many = measure(bench.server, Load("", push, runs=0, idle=bench.size(2000, 50), seconds=0.1))
        yield Verdict(f"{push}: connections of {bench.size(2000, 50)} idle readers", many.connections, PUSHES[push])


def idle(bench: Bench) -> Iterator[Verdict]:
    """10,000 readers of silent runs, and as many of runs that are not there yet."""
    readers = bench.size(10_000, 100)
    seconds = bench.size(30, 1)
    load = Load("", "pubsub", runs=0, idle=readers, seconds=seconds)
    one = measure(bench.server, load)
    yield Verdict("trips to the server a second", one.reader["trips"] / seconds, 10.0)
    yield Verdict("CPU, % of a core", one.reader["cpu"] / seconds * 100, 3.0)
    yield Verdict("memory each that holds an event, KiB", one.reader["bytes_each"] / 1024)
    waiting = measure(bench.server, _with(load, "pubsub", seconds=1, absent=True))
    yield Verdict("memory each, KiB", waiting.reader["bytes_each"] / 1024, 3.0)


def in_memory(bench: Bench) -> Iterator[Verdict]:
    """1 run, 100 readers, in memory, in one process."""
    load = Load("", "", events=bench.size(2000, 50), readers=bench.size(100, 10))
    rates: dict[str, list[float]] = {"naive memory": [], "memory": []}
    for _ in range(bench.repeat):
        for bridge, found in rates.items():
            one = measure_alone(_with(load, bridge))
            found.append(one["delivered"] / (one["ended"] - one["began"]))
    slow, fast = (median(found) for found in rates.values())
    yield Verdict(f"deliveries/s: {fast:,.0f} to {slow:,.0f}", fast / slow, 2.0, at_least=True)


CASES: dict[str, Case] = {
    "one-run": one_run,
    "many-runs": many_runs,
    "many-readers": many_readers,
    "steady": steady,
    "commands": commands,
    "idle": idle,
    "memory": in_memory,
}


def available() -> list[str]:
    """The push modes that this version has."""
    return [push for push in PUSHES if _is_there(push)]


def _is_there(push: str) -> bool:
    try:
        RedisStreamBridge(push=push)  # type: ignore[arg-type]  # one of ours
    except ConfigError:
        return False
    return True


def _with(load: Load, bridge: str, **changes: object) -> Load:
    return Load(**{**vars(load), "bridge": bridge, **changes})


def _published(one: Measured) -> float:
    return one.published_seconds


def _median(side: list[Measured], of: Callable[[Measured], float]) -> float:
    return median(map(of, side))


def _rates(
    text: str, events: int, of: Callable[[Measured], float], naive: list[Measured], ours: list[Measured], limit: float
) -> Iterator[Verdict]:
    slow, fast = events / _median(naive, of), events / _median(ours, of)
    yield Verdict(f"{text}: {fast:,.0f} to {slow:,.0f}", fast / slow, limit, at_least=True)


def _cpu(
    text: str, naive: list[Measured], ours: list[Measured], of: Callable[[Measured], float], limit: float | None
) -> Verdict:
    """CPU an event."""
    slow, fast = (_median(side, of) * 1e6 for side in (naive, ours))
    return Verdict(f"{text} CPU, us: {fast:.1f} to {slow:.1f}", fast / slow, limit)
