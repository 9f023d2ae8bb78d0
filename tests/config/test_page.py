"""What the page about configuration shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pages
from deerflow_replica import AppConfig, DeerFlowContext
from deerflow_replica.errors import ConfigError

PAGE = (Path(pages.__file__).parent.parent / "docs" / "config.md").read_text(encoding="utf-8")


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("title: {max_words: 9}\n")
    names: dict[str, Any] = {}
    for block in pages.blocks("config.md", {}):
        eval(block, names)  # noqa: S307  # our own page
    assert capsys.readouterr().out == "memory.enabled True False next-run\n"
    runtime = SimpleNamespace(context=DeerFlowContext(names["config"], "t", user_id="ann"))
    assert names["my_tool"]("?", runtime) == "ann on t: 9"


def test_the_problems_on_the_page_are_those_that_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("database:\n  backend: postgress\nstream_bridge:\n  queue_maxsize: -5\n")
    with pytest.raises(ConfigError) as caught:
        AppConfig.from_file()
    assert f"config validate\n{caught.value}\n```" in PAGE


def test_every_section_is_on_the_page() -> None:
    table = PAGE.partition("## Sections")[2].partition("##")[0]
    named = set(re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines() if "|" in line)))
    assert set(AppConfig.model_fields) - named == {"config_version", "log_level"}
