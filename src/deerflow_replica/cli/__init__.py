"""The command line: one file per command."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from .check import check
from .config import config_commands
from .demo import demo
from .migrate import migrate_commands
from .models import models
from .serve import serve


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; exit codes are 0, 1 (a problem) and 2 (wrong usage)."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    app.command()(demo)
    app.command()(serve)
    app.command()(check)
    app.command()(models)
    app.add_typer(config_commands())
    app.add_typer(migrate_commands())
    app(prog_name="deerflow-replica")


def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Run LangGraph agents on more than one machine."""
