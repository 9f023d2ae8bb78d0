"""The only place that words a missing-extra error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import MissingExtraError

_DISTRIBUTIONS = {"bson": "pymongo"}  # what is called bson in the package index breaks it
_DEERFLOW = "deerflow-harness @ git+https://github.com/bytedance/deer-flow#subdirectory=backend/packages/harness"


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import optional packages inside; a missing one becomes `MissingExtraError` with the command that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == "deerflow_replica":
            raise
        missing = _DISTRIBUTIONS.get(error.name or "", error.name)
        raise MissingExtraError(
            f"{missing} is not installed: pip install 'deerflow-replica[{name}]'", name=error.name
        ) from error


@contextmanager
def deerflow() -> Iterator[None]:
    """Import parts of DeerFlow inside; `MissingExtraError` where it is not importable, or too old to have them.

    It is in no package index: what is called `deerflow` there is something else.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "deerflow":
            raise
        raise MissingExtraError(
            f"DeerFlow is not importable here, or too old ({error.msg}): work in its backend's environment, or "
            f"pip install '{_DEERFLOW}'",
            name=error.name,
        ) from error
