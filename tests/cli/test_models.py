"""`deerflow-replica models`: the fleet's table."""

from __future__ import annotations

import asyncio
import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from command_line import Command, runner
from deerflow_replica.cli.models import _found, table_of
from deerflow_replica.config import AppConfig
from deerflow_replica.counters import ModelHealth, open_model_counters


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return runner(monkeypatch, capsys)


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.upper().startswith(("DEER_FLOW_", "DEERFLOW_REPLICA__"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(f"database: {{backend: sqlite, sqlite_dir: '{tmp_path}'}}\n")
    return path


async def two_replicas_count(file: Path) -> None:
    config = AppConfig.from_file(file)
    for seconds in (0.5, 1.5):
        async with open_model_counters(config) as counters:
            health = ModelHealth(counters)
            usage = {"input_tokens": 700, "output_tokens": 9}
            counters.record("fast", "success", duration_seconds=seconds, usage=usage)
            counters.record("ill", "failure", error_type="auth")
            await counters.add_feedback("fast", "positive", thread_id="t", run_id=str(seconds), user_id="u")
            await health.refresh()


def test_a_line_for_each_model(run: Command, file: Path) -> None:
    asyncio.run(two_replicas_count(file))
    done = run("models")
    assert (done.code, done.err) == (0, "")
    head, fast, ill = done.out.splitlines()
    assert head.split()[:4] == ["model", "circuit", "calls", "failed"]
    assert fast.split() == ["fast", "closed", "2", "0", "0/2", "0.64", "s", "1.5", "s", "1400", "18", "2", "0"]
    assert ill.split()[:6] == ["ill", "open", "(auth)", "2", "2", "2/2"]


def test_a_terminal_of_80_columns_shows_whole_words_and_numbers(file: Path) -> None:
    async def count() -> None:
        async with open_model_counters(AppConfig.from_file(file)) as counters:
            health = ModelHealth(counters)
            usage = {"input_tokens": 123_456_789, "output_tokens": 1_234_567}
            for _ in range(5):
                counters.record("gpt-5", "failure", duration_seconds=12.3, error_type="transient", usage=usage)
            await health.refresh()

    asyncio.run(count())
    console = Console(width=80, force_terminal=True, color_system=None, file=io.StringIO(), record=True)
    console.print(table_of(asyncio.run(_found(AppConfig.from_file(file)))))
    lines = console.export_text().splitlines()
    words = {word for line in lines for word in line.split()}
    assert {"gpt-5", "open", "(consecutive", "failures)", "5", "12.3", "617283945", "6172835", "+", "-"} <= words
    assert not any("…" in line or len(line) > 80 for line in lines)


def test_json_has_everything(run: Command, file: Path) -> None:
    asyncio.run(two_replicas_count(file))
    fast, ill = json.loads(run("models", "--json").out)
    assert (fast["call_count"], fast["circuit"]["state"], fast["latency"]["count"]) == (2, "closed", 2)
    assert (ill["failures_by_kind"], ill["circuit"]["reason"], ill["last_minute"]["failure_count"]) == (
        {"auth": 2},
        "auth",
        2,
    )


def test_nothing_counted_yet(run: Command) -> None:
    done = run("models")
    assert (done.code, done.out) == (0, "no model calls counted yet\n")


@pytest.mark.parametrize("section", ["database: {backend: memory}", "model_feedback: {enabled: false}"])
def test_processes_that_count_for_themselves_cannot_be_asked(run: Command, file: Path, section: str) -> None:
    file.write_text(f"{section}\n")
    done = run("models")
    assert (done.code, done.err) == (0, "")
    assert "each process for itself" in done.out
    assert json.loads(run("models", "--json").out) == []


def test_names_that_no_text_can_hold_are_shown(run: Command, file: Path) -> None:
    async def count() -> None:
        async with open_model_counters(AppConfig.from_file(file)) as counters:
            for name in ("\ud800", "[bold]x", "模型"):
                counters.record(name, "success")

    asyncio.run(count())
    done = run("models")
    assert (done.code, done.err) == (0, "")
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == ["[bold]x", "模型", "\\ud800"]


def test_a_server_that_is_away_ends_the_command(run: Command, file: Path) -> None:
    file.write_text("model_feedback: {type: redis, connection_string: 'redis://:geheim@127.0.0.1:1/0'}\n")
    done = run("models")
    assert (done.code, done.out) == (1, "")
    key = "config.yaml:1:50 model_feedback.connection_string"
    assert done.err.startswith(f"{key}: cannot reach redis://:***@127.0.0.1:1/0: ")
