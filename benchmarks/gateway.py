"""What the gateway costs: real `serve` processes on PostgreSQL and Valkey, beside LangGraph's own server in memory.

    python benchmarks/gateway.py [--reference PYTHON] [--case NAME ...] [--smoke]

`--reference` is the Python of an environment with `langgraph-api` and `langgraph-runtime-inmem`; without it the ratios
are left out. Exits with 1 when a limit is missed. `--smoke` runs everything tiny, without the reference, and judges
nothing. The servers are private ones.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import resource
import sys
from contextlib import ExitStack

from _gateway_cases import CASES, Bench
from _gateway_servers import reference_version
from _verdicts import Verdict, told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="tiny; only show that it runs, judge nothing")
    parser.add_argument("--case", action="append", choices=CASES, help="only this one; may be repeated")
    parser.add_argument("--reference", help="the Python of an environment that has the reference server")
    options = parser.parse_args()
    python = None if options.smoke else options.reference
    version = reference_version(python) if python else None
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} CPUs")
    print(f"reference: langgraph-api {version}" if version else "reference: skipped, it is not installed there")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a socket for every reader, here and in the gateway
    with ExitStack() as stack:
        bench = Bench(stack, reference_python=python if version else None, is_smoke=options.smoke)
        kept = [run(name, bench) for name in options.case or CASES]
    return 0 if all(kept) or options.smoke else 1


def run(name: str, bench: Bench) -> bool:
    print(f"\n{name}: {CASES[name].__doc__}")
    return told(asyncio.run(_verdicts(name, bench)), is_judged=not bench.is_smoke)


async def _verdicts(name: str, bench: Bench) -> list[Verdict]:
    return [verdict async for verdict in CASES[name](bench)]


if __name__ == "__main__":
    sys.exit(main())
