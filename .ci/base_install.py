"""Run by an environment that has the wheel and no extra: it imports, loads no driver, and the command line answers."""

import asyncio
import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path

DRIVERS = ("redis", "psycopg", "pymongo", "aiosqlite", "starlette", "uvicorn", "langgraph.checkpoint.sqlite")

import deerflow_replica  # noqa: E402

loaded = [name for name in DRIVERS if name in sys.modules]
assert not loaded, f"importing the package loaded {loaded}"
installed = [name for name in ("redis", "psycopg", "pymongo", "uvicorn") if importlib.util.find_spec(name)]
assert not installed, f"the base install brought {installed}"
assert (Path(deerflow_replica.__file__).parent / "py.typed").is_file()


async def open_one() -> None:
    config = deerflow_replica.AppConfig.from_mapping({"database": {"backend": "memory"}})
    async with deerflow_replica.open_replica(config) as replica:
        print(replica.replica_id, "opened with the base install")


asyncio.run(open_one())
command = Path(sysconfig.get_path("scripts")) / "deerflow-replica"
subprocess.run([command, "--help"], check=True, stdout=subprocess.DEVNULL)
