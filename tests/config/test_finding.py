"""Which files are read, and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deerflow_replica import AppConfig
from deerflow_replica.errors import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("x: $FROM_DOTENV\n")
    return tmp_path


def extensions(folder: Path, name: str) -> str:
    (folder / name).write_text(json.dumps({"skills": {name: {}}}))
    return name


def found(env: dict[str, str], path: str | None = None) -> list[str]:
    return list(AppConfig.from_file(extensions_path=path, env=env).extensions.skills)


def test_which_extensions_file_wins(folder: Path) -> None:
    given, named = extensions(folder, "given.json"), extensions(folder, "named.json")
    env = {"DEER_FLOW_EXTENSIONS_CONFIG_PATH": named}
    assert found({}) == []
    extensions(folder, "mcp_config.json")
    assert found({}) == ["mcp_config.json"]
    extensions(folder, "extensions_config.json")
    assert found({}) == ["extensions_config.json"]
    assert found(env) == [named]
    assert found(env, given) == [given]


def test_extensions_are_looked_for_in_the_project_root(folder: Path) -> None:
    root = folder / "root"
    root.mkdir()
    (root / "config.yaml").write_text("x: 1\n")
    extensions(folder, "extensions_config.json")
    assert found({"DEER_FLOW_PROJECT_ROOT": str(root)}) == []
    extensions(root, "mcp_config.json")
    assert found({"DEER_FLOW_PROJECT_ROOT": str(root)}) == ["mcp_config.json"]


def test_dotenv_is_not_read(folder: Path) -> None:
    (folder / ".env").write_text("FROM_DOTENV=yes\n")
    with pytest.raises(ConfigError, match="FROM_DOTENV is not set"):
        AppConfig.from_file(env={}).get("x")


def test_the_environment_is_only_read(folder: Path) -> None:
    class ReadOnly(dict[str, str]):
        def __setitem__(self, key: str, value: str) -> None:
            raise AssertionError(key)

        __delitem__ = pop = popitem = clear = update = setdefault = None  # type: ignore[assignment]  # all refused

    assert AppConfig.from_file(env=ReadOnly(FROM_DOTENV="1", HOME="/")).get("x") == "1"


@pytest.mark.parametrize("kind", ["folder", "unreadable", "not a file name"])
def test_a_file_that_cannot_be_read_is_a_config_error_from_the_os_error(folder: Path, kind: str) -> None:
    (folder / "sub").mkdir()
    path = {"folder": "sub", "unreadable": "sub/../config.yaml/x", "not a file name": "a\0b"}[kind]
    with pytest.raises(ConfigError, match=r"\(named by path\) cannot be read") as raised:
        AppConfig.from_file(path, env={})
    assert isinstance(raised.value.__cause__, OSError | ValueError)


def test_a_broken_link_is_no_absent_file(folder: Path) -> None:
    (folder / "extensions_config.json").symlink_to(folder / "gone.json")
    assert found({}) == []
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").symlink_to(folder / "gone.yaml")
    with pytest.raises(ConfigError, match=r"config\.yaml cannot be read"):
        AppConfig.from_file(env={})
