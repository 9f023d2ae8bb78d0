"""`deerflow-replica serve`: the gateway under uvicorn, one process for each replica."""

from __future__ import annotations

import asyncio
import signal
import socket
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ..config import AppConfig
from ..errors import ConfigError, MissingExtraError, ReplicaError
from .loading import fail, load_graphs, load_hook
from .reading import read_config

_SECTIONS = ("checkpointer", "store", "user_thread_mapping", "model_feedback")


class LogLevel(StrEnum):
    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    DEBUG = "debug"
    TRACE = "trace"


def serve(
    *,
    graph: Annotated[list[str], typer.Option(help="[NAME=]MODULE:ATTR; may be repeated. The default name is agent.")],
    config: Annotated[Path | None, typer.Option(help="config.yaml; else the file that DeerFlow would find.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 2024,
    replicas: Annotated[int, typer.Option(help="Processes that share the port.", min=1)] = 1,
    auth: Annotated[str | None, typer.Option(help="MODULE:ATTR of the authenticate hook.")] = None,
    log_level: Annotated[LogLevel, typer.Option(help="How much is logged.")] = LogLevel.INFO,
    fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    lifeline: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve graphs by the LangGraph API, so that the official SDK clients work against any replica."""
    signal.signal(signal.SIGTERM, _leave_at_once)
    loaded = read_config(config, code=2, quiet=fd is not None)
    if replicas > 1:
        _require_shared_parts(loaded)
    graphs = load_graphs(graph)
    authenticate = load_hook(auth) if auth else None
    if fd is None:
        listener = _listener(host, port)
        _announce(loaded, host, listener)
    else:
        listener = socket.socket(fileno=fd)
    try:
        if replicas > 1:
            from .supervisor import supervise

            return supervise(_child_arguments(graph, config, auth, log_level), listener, replicas)
        from .server import serve_replica

        asyncio.run(
            serve_replica(
                loaded, graphs, listener, authenticate=authenticate, log_level=log_level.value, lifeline=lifeline
            )
        )
    except asyncio.CancelledError:  # SIGTERM, before anything was served
        raise SystemExit(0) from None
    except ReplicaError as error:
        fail(str(error), code=2 if isinstance(error, (ConfigError, MissingExtraError)) else 1)
    return None


def _leave_at_once(number: int, frame: object) -> NoReturn:
    """Until it serves. The first process of a container is not ended by signals that it does not handle."""
    raise SystemExit(0)


def _announce(config: AppConfig, host: str, listener: socket.socket) -> None:
    """What looks wrong in the configuration, and where to ask."""
    for warning in config.warnings:
        typer.echo(f"warning: {warning}", err=True)
    shown = f"[{host}]" if ":" in host else host
    typer.echo(f"listening on http://{shown}:{listener.getsockname()[1]}", err=True)


def _require_shared_parts(config: AppConfig) -> None:
    """Several processes need what they can share; name each key that cannot be."""
    private = []
    if config.stream_bridge.type == "memory":
        private.append("stream_bridge.type: memory lives in one process; several replicas need redis")
    if config.database.backend != "postgres":
        private.append(f"database.backend: {config.database.backend} is local; several replicas need postgres")
    if config.database.backend != "memory":  # what names no type of its own follows that
        private += [f"{name}.type: memory lives in one process" for name in _SECTIONS if _is_in_memory(config, name)]
    if private:
        fail("\n".join(private))


def _is_in_memory(config: AppConfig, section: str) -> bool:
    return getattr(getattr(config, section), "type", None) == "memory"


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        fail(f"cannot listen on {host}:{port}: {error.strerror or error}", code=1)
    # Read anew it knows that it speaks TCP, and only then does asyncio turn Nagle's algorithm off: 40 ms per answer.
    return socket.socket(fileno=listener.detach())


def _child_arguments(graph: list[str], config: Path | None, auth: str | None, log_level: LogLevel) -> list[str]:
    arguments = [part for target in graph for part in ("--graph", target)]
    if config is not None:
        arguments += ["--config", str(config)]
    if auth is not None:
        arguments += ["--auth", auth]
    return [*arguments, "--log-level", log_level.value]
