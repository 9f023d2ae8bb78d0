"""`deerflow-replica demo`: watch an agent's run survive a cut connection and a killed replica."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Annotated

import typer
from rich.console import Console

from ..._drivers.embedded import require_wheels
from ...errors import MissingExtraError, ReplicaError
from .report import Outcome, Progress, show

TIME_LIMIT_SECONDS = 300.0


def demo(
    *, json: Annotated[bool, typer.Option("--json", help="Print the measurements as JSON, nothing else.")] = False
) -> None:
    """Run an agent on two replicas, cut its client, kill a replica, and check every promise.

    With the extra `embedded` everything runs on a private PostgreSQL and Valkey, on loopback, and nothing is left
    behind. Without it, one process shows what needs no server.
    """
    console = Console(quiet=json)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        outcome = asyncio.run(_measure(Progress(console, quiet=json)))
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None
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
                require_wheels()
                from . import replicas
            except MissingExtraError as error:
                from . import single

                checks = await single.measure(progress)
                return Outcome("single", time.monotonic() - started, checks, single.skipped(str(error)))
            checks = await replicas.measure(progress)
            return Outcome("replicas", time.monotonic() - started, checks)


def _interrupt(number: int, frame: object) -> None:
    """As Ctrl-C: what was started is stopped on the way out."""
    signal.raise_signal(signal.SIGINT)
