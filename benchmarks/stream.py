"""What the stream bridges cost, beside naive ones in the same run: publishers and readers in two processes, 640 bytes.

    python benchmarks/stream.py [--smoke] [--case NAME ...] [--repeat 3] [--redis-url URL]

Exits with 1 when a limit is missed. `--smoke` runs a few tiny ones and judges nothing. The server is a private Valkey,
or the one of `--redis-url`.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys

from _stream_bench import Server
from _stream_cases import CASES, Bench, Verdict

SMOKED = ("one-run", "commands", "memory")  # which start every kind of worker once


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="tiny; only show that it runs, judge nothing")
    parser.add_argument("--case", action="append", choices=CASES, help="only this one; may be repeated")
    parser.add_argument("--repeat", type=int, default=3, help="the medians of so many are compared")
    parser.add_argument("--redis-url", help="a server to use, else a private Valkey")
    options = parser.parse_args()
    with Server(options.redis_url) as server:
        bench = Bench(server, 1 if options.smoke else options.repeat, options.smoke)
        print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} CPUs, {server.name}")
        kept = [run(name, bench) for name in options.case or (SMOKED if options.smoke else CASES)]
    return 0 if all(kept) or options.smoke else 1


def run(name: str, bench: Bench) -> bool:
    print(f"\n{name}: {CASES[name].__doc__}")
    kept = True
    for verdict in CASES[name](bench):
        print(shown(verdict, is_judged=not bench.is_smoke), flush=True)
        kept &= verdict.is_kept
    return kept


def shown(verdict: Verdict, *, is_judged: bool) -> str:
    line = f"  {verdict.text:64} {verdict.value:8.3f}"
    if verdict.limit is None or not is_judged:
        return line
    bound = "at least" if verdict.at_least else "at most"
    return f"{line}   {bound} {verdict.limit:g}   {'kept' if verdict.is_kept else 'MISSED'}"


if __name__ == "__main__":
    sys.exit(main())
