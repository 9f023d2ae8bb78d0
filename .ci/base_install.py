"""Run by an environment that has the wheel and no extra: it imports, loads no driver, and the command line answers."""

import asyncio
import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path

DRIVERS = ("redis", "psycopg", "pymongo", "aiosqlite", "starlette", "uvicorn", "langgraph.checkpoint.sqlite")

import deerflow_replica  # noqa: E402

if loaded := [name for name in DRIVERS if name in sys.modules]:
    sys.exit(f"importing the package loaded {loaded}")
if installed := [name for name in ("redis", "psycopg", "pymongo", "uvicorn") if importlib.util.find_spec(name)]:
    sys.exit(f"the base install brought {installed}")
if not (Path(deerflow_replica.__file__).parent / "py.typed").is_file():
    sys.exit("the wheel says nothing of its types")


async def open_one() -> None:
    config = deerflow_replica.AppConfig.from_mapping({"database": {"backend": "memory"}})
    async with deerflow_replica.open_replica(config):
        pass


asyncio.run(open_one())
command = Path(sysconfig.get_path("scripts")) / "deerflow-replica"
subprocess.run([command, "--help"], check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # our own command
