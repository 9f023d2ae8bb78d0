"""Pydantic's errors as problems with places, in file order, with nothing secret in them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from ..errors import ConfigProblem
from .frozen import UnsetVariable
from .masking import MASK, display, is_secret_name
from .provenance import Path, Provenance
from .variables import dotted

_SHOWN = 80


def problems_of(error: ValidationError, provenance: Provenance) -> list[ConfigProblem]:
    return [_problem(details, provenance) for details in error.errors(include_url=False)]


def in_file_order(problems: Iterable[ConfigProblem]) -> list[ConfigProblem]:
    return sorted(dict.fromkeys(problems), key=lambda problem: (problem.line or 0, problem.column or 0))


def _problem(details: Any, provenance: Provenance) -> ConfigProblem:
    path: Path = tuple(details["loc"])
    given = details["input"]
    if isinstance(given, UnsetVariable):
        return given.problem
    place = provenance.place(path)
    return ConfigProblem(dotted(path), _message(details, path, provenance), *(place or (None, None, None)))


def _message(details: Any, path: Path, provenance: Provenance) -> str:
    message = details["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if details["type"] == "missing" or details["ctx" if "ctx" in details else "type"] == "missing":
        return message
    return f"{message} (got {_shown(details['input'], path, provenance)})"


def _shown(given: Any, path: Path, provenance: Provenance) -> str:
    if path in provenance.variables:
        return f"${provenance.variables[path]}"
    if any(is_secret_name(part) for part in path) and given not in ("", None):
        return MASK
    text = repr(display(given))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
