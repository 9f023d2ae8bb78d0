"""Every configuration file that DeerFlow ever shipped as its example, from a clone that `DEER_FLOW_CLONE` names."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from deerflow_replica import AppConfig
from deerflow_replica.config.names import unknown_names
from deerflow_replica.errors import ConfigError

CLONE = os.environ.get("DEER_FLOW_CLONE", "")
pytestmark = pytest.mark.skipif(not CLONE, reason="DEER_FLOW_CLONE names no clone of DeerFlow")


def git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", CLONE, *arguments], capture_output=True, text=True, check=True).stdout


def versions(path: str) -> Iterator[tuple[str, str]]:
    """Each distinct content that the file had on any branch, with its object's name."""
    commits = git("log", "--all", "--format=%H", "--", path).split()
    blobs = {
        line.split()[2]: None
        for commit in commits
        for line in git("ls-tree", commit, "--", path).splitlines()
        if line.split()[1] == "blob"
    }
    yield from ((blob, git("cat-file", "blob", blob)) for blob in blobs)


def test_every_example_loads_without_an_environment(tmp_path: Path) -> None:
    path, failed, count = tmp_path / "config.yaml", {}, 0
    validator = Draft202012Validator(AppConfig.model_json_schema())
    for blob, text in versions("config.example.yaml"):
        count += 1
        path.write_text(text, encoding="utf-8")
        try:
            config = AppConfig.from_file(path, env={})
        except ConfigError as error:
            failed[blob] = str(error)
            continue
        assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 our own bytes
        assert AppConfig.from_mapping(yaml.safe_load(text), env={}) == config, blob
        plain = json.loads(json.dumps(yaml.safe_load(text), default=str))
        assert [error.message for error in validator.iter_errors(plain)] == [], blob
    assert failed == {}
    assert count > 0


def test_every_name_in_the_examples_is_known() -> None:
    unknown = set()
    for _, text in versions("config.example.yaml"):
        unknown |= {name.path for name in unknown_names(yaml.safe_load(text) or {}, AppConfig)}
    assert unknown == set()


def test_every_extensions_example_loads_without_an_environment(tmp_path: Path) -> None:
    path, extensions, count = tmp_path / "config.yaml", tmp_path / "extensions_config.json", 0
    path.write_text("")
    for blob, text in versions("extensions_config.example.json"):
        count += 1
        extensions.write_text(text, encoding="utf-8")
        config = AppConfig.from_file(path, extensions_path=extensions, env={}, strict=True)
        servers = json.loads(text).get("mcpServers", {})
        assert set(config.extensions.mcp_servers) == set(servers), blob
    assert count > 0
