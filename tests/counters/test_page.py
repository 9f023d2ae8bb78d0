"""What the page about model counters shows works as it stands there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent

from deerflow_replica import AppConfig, DeerFlowContext, open_replica
from pages import blocks
from scripted_models import ANSWER, INPUT, scripted

pytestmark = pytest.mark.anyio


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("database: {backend: memory}\n")
    return path


async def test_the_first_example(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEER_FLOW_CONFIG_PATH", str(file))
    names: dict[str, Any] = {
        "create_agent": create_agent,
        "open_replica": open_replica,
        "AppConfig": AppConfig,
        "DeerFlowContext": DeerFlowContext,
        "fast": scripted(ConnectionError("away")),
        "safe": scripted(ANSWER),
        "tools": [],
        "run_id": "r1",
        "INPUT": INPUT,
    }
    call = 'await agent.ainvoke(INPUT, context=replica.context(thread_id="t1", user_id="u1"))'
    first = next(iter(blocks("counters.md", {"    ...\n": f"    {call}\n"})))
    await eval(first, names)  # noqa: S307  # our own page
    fast, safe = capsys.readouterr().out.splitlines()
    assert (fast.split()[:4], safe.split()[:4]) == (["fast", "1", "1", "0"], ["safe", "1", "0", "10"])
    assert {name: window.call_count for name, window in names["last_minute"].items()} == {"fast": 1, "safe": 1}
