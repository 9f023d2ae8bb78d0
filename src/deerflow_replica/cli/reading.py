"""The configuration that a command was given, and what a command prints."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..config import AppConfig
from ..config.loading import has_file
from ..errors import ConfigError, ConfigProblem

ConfigPath = Annotated[
    Path | None, typer.Option("--config", metavar="PATH", help="config.yaml; else the file that DeerFlow would find.")
]
ExtensionsPath = Annotated[
    Path | None, typer.Option("--extensions", metavar="PATH", help="extensions_config.json; else the one found.")
]


def read_config(path: Path | None, extensions: Path | None = None, *, code: int = 1, quiet: bool = False) -> AppConfig:
    """The named file, else the one that DeerFlow would find; where there is none, the defaults and what the environment
    sets, with a note on stderr unless `quiet`. Problems end the command with `code`.
    """
    try:
        if path is None and not has_file():
            return _without_file(extensions, quiet=quiet)
        return AppConfig.from_file(path, extensions_path=extensions)
    except ConfigError as error:
        typer.echo(str(error), err=True)
    raise typer.Exit(code)


def _without_file(extensions: Path | None, *, quiet: bool) -> AppConfig:
    """As of an empty file: a variable that is set for a container that has no file must not be ignored in silence."""
    try:
        config = AppConfig.from_file(os.devnull, extensions_path=extensions)
    except ConfigError as error:
        raise ConfigError(*map(_nowhere, error.problems)) from None
    also = "" if config == AppConfig() else " and what the environment or the extensions file sets"
    if not quiet:
        typer.echo(f"no configuration file: these are the defaults{also}", err=True)
    return config


def _nowhere(problem: ConfigProblem) -> ConfigProblem:
    """What is missing is missing in no file."""
    return ConfigProblem(problem.key, problem.message) if problem.source == os.devnull else problem


def say(text: str) -> None:
    """Print on stdout, whatever letters it has. A disk that is full ends the command."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        typer.echo(text.encode(encoding, "backslashreplace").decode(encoding))
    except BrokenPipeError:  # the reader has seen enough
        raise
    except OSError as error:
        _drop_output()
        typer.echo(f"cannot write the output: {error.strerror}", err=True)
        raise typer.Exit(1) from None


def _drop_output() -> None:
    """What could not be written would be tried again, and fail, when the interpreter ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
