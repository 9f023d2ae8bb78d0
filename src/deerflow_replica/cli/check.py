"""`deerflow-replica check`: whether every server and folder that a configuration names can be used."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import AppConfig
from ..errors import ReplicaError
from .reading import ConfigPath, ExtensionsPath, read_config, say

if TYPE_CHECKING:
    from .._checks import CheckResult


def check(
    config: ConfigPath = None,
    extensions: ExtensionsPath = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Open a replica, ask each of its parts, and leave it. 1 if a part does not answer."""
    loaded = read_config(config, extensions)
    results: Sequence[CheckResult] = ()
    errors: list[str] = []
    try:
        results = asyncio.run(_asked(loaded))
    except ReplicaError as error:
        errors = str(error).splitlines()
    _report(results, errors, as_json=as_json)
    if errors or not all(result.ok for result in results):
        raise typer.Exit(1)


async def _asked(config: AppConfig) -> Sequence[CheckResult]:
    from ..replica import open_replica

    async with open_replica(config) as replica:
        return await replica.check()


def _report(results: Sequence[CheckResult], errors: Sequence[str], *, as_json: bool) -> None:
    for line in errors:
        typer.echo(line, err=True)
    if as_json:
        parts = [dataclasses.asdict(result) for result in results]
        is_ok = not errors and all(result.ok for result in results)
        say(json.dumps({"ok": is_ok, "errors": errors, "parts": parts}, indent=2))
    elif results:
        _print_parts(results)


def _print_parts(results: Sequence[CheckResult]) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        for result in results:
            say("  ".join([f"{result.name:<12}", f"{_state(result):<6}", f"{_time(result):>8}", result.detail]))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("part", "section", "state", "time", "detail")
    for result in results:
        state = Text(_state(result), style="green" if result.ok else "bold red")
        table.add_row(result.name, result.section, state, _time(result), Text(result.detail))
    console.print(table)


def _state(result: CheckResult) -> str:
    return "ok" if result.ok else "FAILED"


def _time(result: CheckResult) -> str:
    return f"{result.seconds * 1000:.1f} ms"
