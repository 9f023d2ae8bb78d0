"""`PostgresStore` beside LangGraph's own in one run: the same server, four connections each.

    python benchmarks/store.py [--smoke] [--case NAME ...] [--postgres-dsn DSN]

Exits with 1 when a limit is missed. `--smoke` runs everything tiny and judges nothing. The server is a private
PostgreSQL, or the one of `--postgres-dsn`, reached through TCP, whose user may make databases and roles.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib.metadata import version

from _store_bench import Bench, Server
from _store_cases import CASES
from _verdicts import told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="tiny; only show that it runs, judge nothing")
    parser.add_argument("--case", action="append", choices=CASES, help="only this one; may be repeated")
    parser.add_argument("--postgres-dsn", help="a server to use, else a private PostgreSQL")
    options = parser.parse_args()
    with Server(options.postgres_dsn) as server:
        bench = Bench(server, options.smoke)
        machine = f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} CPUs, {server.name}"
        peers = [f"{name} {version(name)}" for name in ("langgraph-checkpoint-postgres", "psycopg")]
        print(f"{machine}, {', '.join(peers)}")
        print(f"load average {os.getloadavg()[0]:.1f}; LangGraph's to ours, and how many times as fast ours is")
        kept = [run(name, bench) for name in options.case or CASES]
    return 0 if all(kept) or options.smoke else 1


def run(name: str, bench: Bench) -> bool:
    print(f"\n{name}: {CASES[name].__doc__}")
    return told(CASES[name](bench), is_judged=not bench.is_smoke)


if __name__ == "__main__":
    sys.exit(main())
