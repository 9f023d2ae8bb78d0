"""`deerflow-replica models`: what the fleet's models did, and which of them are ill."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .._reach import reach_all
from ..config import AppConfig
from ..config.targets import target_of
from ..counters.opening import model_health, open_model_counters
from ..counters.values import CircuitState, ModelTotals, ModelWindow
from ..errors import ReplicaError
from .reading import ConfigPath, ExtensionsPath, read_config, say

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = ("model", "circuit", "calls", "failed", "failed/min", "p50", "p95", "tokens in", "tokens out", "+", "-")


@dataclass(frozen=True)
class _Model:
    totals: ModelTotals
    window: ModelWindow | None
    circuit: CircuitState


def models(
    config: ConfigPath = None,
    extensions: ExtensionsPath = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the fleet's model calls and circuits. 1 if the counters cannot be read."""
    loaded = read_config(config, extensions)
    try:
        found = asyncio.run(_found(loaded))
    except ReplicaError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    if as_json:
        say(json.dumps([_plain(model) for model in found], indent=2, default=dict))
    elif found:
        _print_table(found)
    else:
        say(_nothing(loaded))


async def _found(config: AppConfig) -> list[_Model]:
    """Opens the counters alone: no other part has to be there."""
    await reach_all(config, ["model_feedback"] if config.model_feedback.enabled else [], None)
    async with open_model_counters(config) as counters:
        health = model_health(config, counters)
        await health.refresh()
        totals, windows = await counters.totals(), await counters.window(60)
        return [_Model(total, windows.get(name), health.state(name)) for name, total in totals.items()]


def _nothing(config: AppConfig) -> str:
    if config.model_feedback.enabled and target_of(config, "model_feedback").kind != "memory":
        return "no model calls counted yet"
    return "model calls are counted in each process for itself (model_feedback): there is no fleet to ask"


def _plain(model: _Model) -> dict[str, Any]:
    totals = dataclasses.asdict(model.totals)
    circuit = dataclasses.asdict(model.circuit)
    del circuit["model_name"], circuit["consecutive_failures"]
    last_minute = {"call_count": 0, "failure_count": 0}
    if model.window is not None:
        last_minute = {name: getattr(model.window, name) for name in last_minute}
    return {**totals, "last_minute": last_minute, "circuit": circuit}


def _print_table(found: Sequence[_Model]) -> None:
    from rich.console import Console

    console = Console()
    if console.is_terminal:
        console.print(table_of(found))
        return
    rows = [_cells(model) for model in found]
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    for row in (_COLUMNS, *rows):
        say("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def table_of(found: Sequence[_Model]) -> Table:
    """Fits into 80 columns: what is long is wrapped between words, and no number is cut."""
    from rich.table import Table
    from rich.text import Text

    rows = [_cells(model) for model in found]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for title, *cells in zip(_COLUMNS, *rows, strict=True):
        words = " ".join(cells).replace("_", " ").split() if title == "circuit" else cells
        justify: Literal["left", "right"] = "left" if title in _COLUMNS[:2] else "right"
        header = title.replace(" ", "\n").replace("/", "\n/")
        table.add_column(header, justify=justify, overflow="fold", min_width=max(map(len, words)))
    for model, (name, circuit, *rest) in zip(found, rows, strict=True):
        style = {"closed": "green", "half_open": "yellow", "open": "bold red"}[model.circuit.state]
        table.add_row(Text(name), Text(circuit.replace("_", " "), style=style), *rest)
    return table


def _cells(model: _Model) -> tuple[str, ...]:
    totals, window, circuit = model.totals, model.window, model.circuit
    state = circuit.state.replace("_", " ") + (f" ({circuit.reason})" if circuit.reason else "")
    last_minute = f"{window.failure_count}/{window.call_count}" if window else "0/0"
    tokens = (totals.input_tokens, totals.output_tokens)
    votes = (totals.positive_feedback_count, totals.negative_feedback_count)
    return (
        totals.model_name,
        state,
        str(totals.call_count),
        str(totals.failure_count),
        last_minute,
        _seconds(totals.latency.quantile(0.5)),
        _seconds(totals.latency.quantile(0.95)),
        *map(str, (*tokens, *votes)),
    )


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3g} s"
