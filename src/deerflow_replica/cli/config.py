"""`deerflow-replica config`: what a configuration says, whether it is right, and where each value comes from."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer
import yaml
from pydantic_core import to_jsonable_python

from ..config import AppConfig
from ..config.dumping import jsonable
from ..config.frozen import thaw
from ..errors import ConfigError
from .reading import ConfigPath, ExtensionsPath, read_config, say


class Format(StrEnum):
    """How a command prints."""

    YAML = "yaml"
    JSON = "json"
    TEXT = "text"


FormatOption = Annotated[Format | None, typer.Option("--format", help="How to print.")]


def config_commands() -> typer.Typer:
    commands = typer.Typer(
        name="config", help="Show, validate and explain a configuration.", no_args_is_help=True, add_completion=False
    )
    for command in (show, validate, schema, explain):
        commands.command()(command)
    return commands


def show(config: ConfigPath = None, extensions: ExtensionsPath = None, format: FormatOption = None) -> None:
    """Print the effective configuration, defaults included, without its secrets."""
    shown = read_config(config, extensions).to_mapping()
    say(_rendered(dict(_leaves(jsonable(shown))) if format is Format.TEXT else shown, format or Format.YAML))


def validate(
    config: ConfigPath = None,
    extensions: ExtensionsPath = None,
    format: FormatOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Unknown names are problems.")] = False,
) -> None:
    """Read the configuration; problems and warnings go to stderr, one line each. 1 if there are problems."""
    problems: list[Any] = []
    warnings: tuple[str, ...] = ()
    try:
        warnings = AppConfig.from_file(config, extensions_path=extensions, strict=strict).warnings
    except ConfigError as error:
        problems = [{"text": str(problem), **dataclasses.asdict(problem)} for problem in error.problems]
    for line in [*warnings, *(problem["text"] for problem in problems)]:
        typer.echo(line, err=True)
    if format is not None and format is not Format.TEXT:
        say(_rendered({"valid": not problems, "problems": problems, "warnings": warnings}, format))
    elif not problems:
        say("valid")
    if problems:
        raise typer.Exit(1)


def schema(config: ConfigPath = None, extensions: ExtensionsPath = None, format: FormatOption = None) -> None:
    """Print the JSON schema of config.yaml (draft 2020-12), for editors; it is the same for every file."""
    say(_rendered(AppConfig.model_json_schema(), Format.YAML if format is Format.YAML else Format.JSON))


def explain(
    key: Annotated[str, typer.Argument(metavar="KEY", help="A dotted key, like models.0.name.")],
    config: ConfigPath = None,
    extensions: ExtensionsPath = None,
    format: FormatOption = None,
) -> None:
    """Print the value at a key, its default, where it comes from, and when a change of it takes effect."""
    loaded = read_config(config, extensions)
    try:
        found = loaded.explain(key)
    except (KeyError, ConfigError) as error:
        typer.echo(error.args[0] if isinstance(error, KeyError) else str(error), err=True)
        raise typer.Exit(1) from None
    say(
        _rendered(
            {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}, format or Format.TEXT
        )
    )


def _rendered(data: Mapping[str, Any], format: Format) -> str:
    plain = to_jsonable_python(jsonable(thaw(data)))
    if format is Format.YAML:
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120).rstrip("\n")
    if format is Format.JSON:
        return json.dumps(_finite(plain), indent=2)
    return "\n".join(f"{_on_one_line(key)}: {_on_one_line(value)}" for key, value in _finite(plain).items())


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become texts."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _leaves(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """By their dotted keys; lists stay whole."""
    for key, value in data.items():
        if isinstance(value, dict) and value:
            yield from ((f"{key}.{below}", leaf) for below, leaf in _leaves(value))
        else:
            yield key, value


def _on_one_line(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)
