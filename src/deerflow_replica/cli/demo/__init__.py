"""`deerflow-replica demo`: watch an agent's run survive a cut connection and a killed replica."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import typer
from rich.console import Console

from ...errors import MissingExtraError, ReplicaError
from .report import Outcome, Progress, show

TIME_LIMIT_SECONDS = 60.0


def demo(
    *, json: Annotated[bool, typer.Option("--json", help="Print the measurements as JSON, nothing else.")] = False
) -> None:
    """Run an agent on two replicas, cut its client, kill a replica, and check every promise.

    With the extra `embedded` everything runs on a private PostgreSQL and Valkey, on loopback, and nothing is left
    behind. Without it, one process shows what needs no server.
    """
    console = Console(quiet=json)
    try:
        outcome = asyncio.run(_measure(Progress(console, quiet=json)))
    except (TimeoutError, ReplicaError, RuntimeError) as error:
        typer.echo(f"BROKEN: the demo did not end: {str(error) or 'out of time'}", err=True)
        raise typer.Exit(1) from None
    if json:
        typer.echo(outcome.as_json())
    show(console, outcome)
    raise typer.Exit(1 if outcome.broken else 0)


async def _measure(progress: Progress) -> Outcome:
    started = time.monotonic()
    async with asyncio.timeout(TIME_LIMIT_SECONDS):
        with progress.shown():
            try:
                from . import replicas

                checks = await replicas.measure(progress)
            except MissingExtraError as error:
                from . import single

                checks = await single.measure(progress)
                return Outcome("single", time.monotonic() - started, checks, single.skipped(str(error)))
            return Outcome("replicas", time.monotonic() - started, checks)
