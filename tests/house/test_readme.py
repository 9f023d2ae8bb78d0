"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel

from deerflow_replica import AppConfig
from pages import blocks

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_first_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEER_FLOW_CONFIG_PATH", raising=False)
    names: dict[str, Any] = {
        "__name__": "__main__",
        "model": FakeListChatModel(responses=["hello yourself"]),
        "tools": [],
    }
    eval(next(blocks("../README.md", {})), names)  # noqa: S307  # our own page
    first, *_, before_last, last = capsys.readouterr().out.splitlines()
    assert "event='metadata'" in first
    assert "hello yourself" in before_last
    assert "__end__" in last
    assert [path.name for path in tmp_path.iterdir()] == [".deer-flow"]


def test_three_lines_are_many_replicas(tmp_path: Path) -> None:
    (diff,) = re.findall(r"^```diff\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    path = tmp_path / "config.yaml"
    path.write_text(re.sub(r"^\+", "", diff, flags=re.MULTILINE))
    env = {"REDIS_URL": "redis://h:6379/0", "POSTGRES_URL": "postgresql://h/d"}
    config = AppConfig.from_file(path, env=env, strict=True)
    assert (config.stream_bridge.redis_url, config.database.postgres_url) == tuple(env.values())
    assert (config.memory.storage, config.store.type, config.user_thread_mapping.type) == (
        "store",
        "postgres",
        "postgres",
    )


def test_every_extra_is_in_the_table() -> None:
    table = README.partition("## Extras")[2].partition("##")[0]
    named = re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `")))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(named) == sorted(project["optional-dependencies"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
