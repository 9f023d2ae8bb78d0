"""The only place that words a missing-extra error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import MissingExtraError


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import optional packages inside; a missing one becomes `MissingExtraError` with the command that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == "deerflow_replica":
            raise
        raise MissingExtraError(
            f"{error.name} is not installed: pip install 'deerflow-replica[{name}]'", name=error.name
        ) from error
