"""Several processes that write one store."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from deerflow_replica.store import SharedStore

PROCESSES = 3
_PROGRAM = Path(__file__).with_name("writing_replica.py")


async def write_together(kind: str, **keywords: Any) -> None:
    """On an empty database, begun by `PROCESSES` replicas at once; exactly one wins each of their ten races."""
    assert sum(await asyncio.to_thread(_races_won, kind, json.dumps(keywords))) == 10


async def check_nothing_is_lost(store: SharedStore) -> None:
    assert await store.acount(("replicas",)) == PROCESSES
    total = await store.aget(("sum",), "k")
    assert total is not None
    assert total.value == {"n": 20 * PROCESSES}


def _races_won(kind: str, keywords: str) -> list[int]:
    processes = [
        subprocess.Popen([sys.executable, _PROGRAM, kind, keywords, str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(PROCESSES)
    ]
    told = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES
    return [int(won) for won in told]
