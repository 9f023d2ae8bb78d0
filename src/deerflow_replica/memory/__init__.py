"""DeerFlow's memory documents, shared between replicas without losing a fact."""

from typing import TYPE_CHECKING, Any

from .base import MemoryStorage, create_empty_memory
from .file import FileMemoryStorage
from .merge import merge_memory
from .opening import open_memory_storage

if TYPE_CHECKING:
    from .store import StoreMemoryStorage

__all__ = [
    "FileMemoryStorage",
    "MemoryStorage",
    "StoreMemoryStorage",
    "create_empty_memory",
    "merge_memory",
    "open_memory_storage",
]


def __getattr__(name: str) -> Any:
    """Imported when asked for: files need nothing of LangGraph."""
    if name == "StoreMemoryStorage":
        from .store import StoreMemoryStorage

        return StoreMemoryStorage
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
