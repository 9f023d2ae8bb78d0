"""Identifiers of the API: UUIDs, in one spelling."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID, uuid4, uuid5

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_SYSTEM_ASSISTANTS = UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")


def as_uuid(value: Any) -> str:
    """The canonical spelling of a UUID; `ValueError` for anything else."""
    if not isinstance(value, str) or _UUID.fullmatch(value) is None:
        raise ValueError("not a UUID")
    return value.lower()


def new_thread_id() -> str:
    return str(uuid4())


def new_run_id() -> str:
    """A UUIDv7: run ids sort by the time they were made."""
    from langchain_core.utils.uuid import uuid7

    return str(uuid7())


def system_assistant_id(graph_name: str) -> str:
    """The id of the assistant that stands for a graph, the same on every replica."""
    return str(uuid5(_SYSTEM_ASSISTANTS, graph_name))
