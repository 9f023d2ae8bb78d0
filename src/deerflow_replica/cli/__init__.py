"""The command line: one file per command."""

from __future__ import annotations

import typer

from .check import check
from .config import config_commands
from .demo import demo
from .serve import serve


def main() -> None:
    """Run the command line; exit codes are 0, 1 (a problem) and 2 (wrong usage)."""
    app = typer.Typer(
        help="Run LangGraph agents on more than one machine.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.command()(demo)
    app.command()(serve)
    app.command()(check)
    app.add_typer(config_commands())
    app(prog_name="deerflow-replica")
