"""The objects that the command line loads for the user; what cannot be loaded ends it with exit code 2 and one line."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, NoReturn

import typer

from ..errors import MissingExtraError


def fail(message: str, *, code: int = 2) -> NoReturn:
    """Say why on stderr and end the command."""
    typer.echo(message, err=True)
    raise typer.Exit(code)


def load_attribute(target: str) -> Any:
    """The object that `MODULE:ATTR` names; the working directory is importable."""
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        fail(f"{target!r} does not name an object: write MODULE:ATTR")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        loaded: Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            loaded = getattr(loaded, name)
    except Exception as error:  # the user's module may raise anything while it is imported
        fail(f"cannot load {target}: {type(error).__name__}: {error}")
    return loaded


def load_graphs(targets: list[str]) -> dict[str, Any]:
    """`[NAME=]MODULE:ATTR` each; the default name is `agent`."""
    graphs: dict[str, Any] = {}
    for target in targets:
        name, _, path = target.rpartition("=")
        name = name or "agent"
        if name in graphs:
            fail(f"two graphs are called {name!r}: write NAME=MODULE:ATTR")
        graphs[name] = load_attribute(path)
    return _checked(graphs)


def load_hook(target: str) -> Any:
    """The `authenticate` hook that `MODULE:ATTR` names."""
    hook = load_attribute(target)
    if not callable(hook):
        fail(f"{target} is a {type(hook).__name__}, not an authenticate hook")
    return hook


def _checked(graphs: dict[str, Any]) -> dict[str, Any]:
    try:
        from ..gateway.graphs import ServedGraph

        for name, graph in graphs.items():
            ServedGraph(name, graph)
    except (TypeError, MissingExtraError) as error:
        fail(str(error))
    return graphs
