"""What the page about memory shows works as it stands there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deerflow_replica.memory import FileMemoryStorage, StoreMemoryStorage
from pages import blocks

SCOPES: tuple[dict[str, Any], ...] = (
    {},
    {"user_id": "ann@example.org"},
    {"agent_name": "coder"},
    {"agent_name": "agents", "user_id": "users"},
)


def test_the_page(postgres_dsn: str, postgres_schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = FileMemoryStorage(".deer-flow")
    for scope in SCOPES:
        for _ in range(2):
            assert files.save({"facts": [{"content": str(scope)}]}, **scope)
    names: dict[str, Any] = {}
    for block in blocks("memory.md", {'"postgresql://..."': f"{postgres_dsn!r}, schema={postgres_schema!r}"}):
        eval(block, names)  # noqa: S307  # our own page
    memory = names["memory"]
    assert isinstance(memory, StoreMemoryStorage)
    for scope in SCOPES:
        assert memory.load(**scope)["facts"] == [{"content": str(scope)}]
    assert "TestMyStorage" in names
    names["store"].close()
