"""`deerflow-replica migrate`: the tables, indexes and collections of every part, made or brought up to date."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import typer

from ..config import AppConfig
from ..config.targets import Target, masked, target_of
from ..errors import ReplicaError
from .migrate_store import migrate_store
from .reading import ConfigPath, ExtensionsPath, read_config, say

_SECTIONS = ("database", "checkpointer", "store", "user_thread_mapping", "model_feedback")


def migrate_commands() -> typer.Typer:
    commands = typer.Typer(name="migrate", invoke_without_command=True, add_completion=False)
    commands.callback()(migrate)
    commands.command("store")(migrate_store)
    return commands


def migrate(context: typer.Context, config: ConfigPath = None, extensions: ExtensionsPath = None) -> None:
    """Set up every database of a configuration, or bring it up to date; once more does no harm. 1 if one is away."""
    if context.invoked_subcommand is not None:
        return
    loaded = read_config(config, extensions)
    try:
        asyncio.run(_set_up(loaded))
    except ReplicaError as error:
        for line in str(error).splitlines():
            typer.echo(line, err=True)
        raise typer.Exit(1) from None
    for section in _SECTIONS:
        say(_line(section, target_of(loaded, section)))


async def _set_up(config: AppConfig) -> None:
    """Parts set themselves up when they open. The bridge keeps no tables, so its server is not needed."""
    from .._openers import Borrowed, open_parts
    from ..stream.inmemory import InMemoryStreamBridge

    async with AsyncExitStack() as stack:
        bridge = await stack.enter_async_context(InMemoryStreamBridge())
        await open_parts(config, "migrate", Borrowed(bridge=bridge), stack)


def _line(section: str, target: Target) -> str:
    if target.kind == "memory":
        return f"{section:<20}  in memory: nothing to set up"
    place = " ".join(part for part in (masked(target.url), target.schema) if part)
    return f"{section:<20}  ready: {target.kind} {place}"
