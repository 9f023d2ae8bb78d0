"""What idle readers cost, drawn: CPU, trips, connections and memory against their number, ours and a naive bridge.

    python benchmarks/stream_idle.py [--smoke] [--redis-url URL]

Writes docs/benchmarks/stream-idle.svg and the table of stream-idle.md beside it; `--smoke` writes nothing. Each reader
waits on a run of its own that has one event, with a heartbeat every 15 s.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from _stream_bench import Server, measure
from _stream_plot import Chart, drawn
from _stream_worker import Load

COUNTS = (0, 100, 1000, 2000, 5000, 10_000)
NAIVE_LIMIT = 5000  # it has a connection for every reader: more than a server takes by default
SECONDS = 15.0
BRIDGES = ("naive", "pubsub", "xread")
MEASURES = ("CPU, % of a core", "trips to the server a second", "connections", "memory, MiB")
FOLDER = Path(__file__).parents[1] / "docs" / "benchmarks"

Found = dict[str, list[tuple[int, tuple[float, ...]]]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="tiny; only show that it runs")
    parser.add_argument("--redis-url", help="a server to use, else a private Valkey")
    options = parser.parse_args()
    counts, seconds = ((20,), 1.0) if options.smoke else (COUNTS, SECONDS)
    with Server(options.redis_url) as server:
        machine = f"{platform.system()}, Python {platform.python_version()}, {os.cpu_count()} CPUs, {server.name}"
        print(machine)
        found = {bridge: list(series(server, bridge, counts, seconds)) for bridge in BRIDGES}
    text = table(found, machine)
    print(text)
    if not options.smoke:
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / "stream-idle.svg").write_text(drawn(charts(found)))
        (FOLDER / "stream-idle.md").write_text(text)
    return 0


def series(
    server: Server, bridge: str, counts: tuple[int, ...], seconds: float
) -> Iterator[tuple[int, tuple[float, ...]]]:
    for count in counts:
        if bridge == "naive" and count > NAIVE_LIMIT:
            return
        one = measure(server, Load("", bridge, runs=0, idle=count, seconds=seconds))
        reader = one.reader
        values = (
            reader["cpu"] / seconds * 100,
            reader["trips"] / seconds,
            float(one.connections),
            reader["bytes_each"] * count / 2**20,
        )
        print(f"{bridge:8}{count:8,}" + "".join(f"{value:12.2f}" for value in values), flush=True)
        yield count, values


def charts(found: Found) -> list[Chart]:
    return [
        Chart(name, {bridge: [(count, values[index]) for count, values in rows] for bridge, rows in found.items()})
        for index, name in enumerate(MEASURES)
    ]


def table(found: Found, machine: str) -> str:
    columns = ("Bridge", "Readers", *MEASURES)
    head = f"{machine}; {SECONDS:.0f} s each.\n\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|\n"
    return head + "".join(
        f"| {bridge} | {count:,} | " + " | ".join(f"{value:,.1f}" for value in values) + " |\n"
        for bridge, rows in found.items()
        for count, values in rows
    )


if __name__ == "__main__":
    sys.exit(main())
