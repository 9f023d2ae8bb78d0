"""The published JavaScript client, installed by npm at most once for one `package-lock.json`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from building import CACHE, CannotBuildError, alone, run_tool, version_of

SOURCES = Path(__file__).with_name("javascript")
_PACKAGE_FILES = (SOURCES / "package.json", SOURCES / "package-lock.json")
_LEAST_NODE = 20
_INSTALL_SECONDS = 100.0
_OPTIONS = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=1")


def packages() -> Path:
    """The folder `node_modules`. Raises `CannotBuildError`."""
    _require_node()
    folder = CACHE / "javascript" / version_of(_PACKAGE_FILES)
    with alone(CACHE / "javascript" / "lock"):
        if not (folder / "node_modules").exists():
            _install(folder)
    return folder / "node_modules"


def _require_node() -> None:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise CannotBuildError(f"no {program} to run the JavaScript client")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < _LEAST_NODE:
        raise CannotBuildError(f"the JavaScript client needs Node {_LEAST_NODE}; here is {version}")


def _install(folder: Path) -> None:
    pending = folder.with_suffix(".new")
    shutil.rmtree(pending, ignore_errors=True)
    pending.mkdir(parents=True)
    for file in _PACKAGE_FILES:
        shutil.copy(file, pending)
    run_tool("the JavaScript client", "npm", "ci", *_OPTIONS, cwd=pending, seconds=_INSTALL_SECONDS)
    pending.replace(folder)


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{packages()}\n")
    except CannotBuildError as error:
        sys.stdout.write(f"the tests of the JavaScript client are skipped: {error}\n")
