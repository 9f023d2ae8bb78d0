"""Who reads the environment."""

from __future__ import annotations

import ast
from pathlib import Path

import deerflow_replica

PACKAGE = Path(deerflow_replica.__file__).parent
READERS = ("config/", "deerflow.py", "stream/deerflow.py", "cli/", "_drivers/")


def test_the_environment_is_read_in_few_places_only() -> None:
    found = [
        f"{name}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if not (name := path.relative_to(PACKAGE).as_posix()).startswith(READERS)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv", "putenv"}
    ]
    assert found == []


def test_configuration_writes_nothing() -> None:
    words = {"putenv", "warn", "getLogger", "chdir", "write_text", "write_bytes", "mkdir"}
    found = [
        f"{path.name}:{node.lineno}"
        for path in sorted((PACKAGE / "config").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in words
    ]
    assert found == []
