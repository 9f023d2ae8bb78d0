"""Pydantic's errors as problems with places, in file order, with nothing secret in them."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError, ConfigProblem
from .display import display
from .frozen import UnsetVariable
from .masking import MASK, is_secret_name
from .provenance import Path, Provenance, by_name
from .variables import dotted

_SHOWN = 80
_PLAINER = MappingProxyType({"model_type": "should be a mapping", "tuple_type": "should be a list"})

Model = TypeVar("Model", bound=BaseModel)


def validated(kind: type[Model], data: Any, provenance: Provenance) -> Model:
    """Raises `ConfigError`, with nothing chained behind: Pydantic's error holds the input."""
    try:
        return kind.model_validate(data, context=provenance)
    except ValidationError as error:
        problems = problems_of(error, provenance)
    raise ConfigError(*in_file_order(problems, provenance))


def problems_of(error: ValidationError, provenance: Provenance) -> list[ConfigProblem]:
    return [_problem(details, provenance) for details in error.errors(include_url=False)]


def in_file_order(problems: Iterable[ConfigProblem], provenance: Provenance) -> list[ConfigProblem]:
    """Each once: those without a place first, then the main file's, then those of others."""

    def order(problem: ConfigProblem) -> tuple[bool, str, int, int]:
        elsewhere = problem.source is not None and problem.source != provenance.source
        return elsewhere, problem.source or "" if elsewhere else "", problem.line or 0, problem.column or 0

    return sorted(dict.fromkeys(problems), key=order)


def _problem(details: Any, provenance: Provenance) -> ConfigProblem:
    path: Path = tuple(details["loc"])
    given = details["input"]
    if isinstance(given, UnsetVariable):
        return given.problem
    of_key = provenance.key_place(path) if details["type"] == "invalid_key" else None
    place = of_key or provenance.place(path)
    return ConfigProblem(dotted(path), _message(details, path, provenance), *(place or (None, None, None)))


def _message(details: Any, path: Path, provenance: Provenance) -> str:
    text: str = details["msg"].removeprefix("Value error, ")
    message = _PLAINER.get(details["type"], text[:1].lower() + text[1:])
    if details["type"] == "missing":
        return message
    return f"{message} (got {_shown(details['input'], path, provenance)})"


def _shown(given: Any, path: Path, provenance: Provenance) -> str:
    path = by_name(path)
    if path in provenance.variables:
        return f"${provenance.variables[path]}"
    if any(is_secret_name(part) for part in path) and given not in ("", None):
        return MASK
    text = repr(display(given, provenance.variables, path=path))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
