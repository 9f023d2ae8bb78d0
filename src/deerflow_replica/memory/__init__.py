"""DeerFlow's memory documents, shared between replicas without losing a fact."""

from .base import MemoryStorage, create_empty_memory
from .file import FileMemoryStorage
from .merge import merge_memory
from .opening import open_memory_storage

__all__ = ["FileMemoryStorage", "MemoryStorage", "create_empty_memory", "merge_memory", "open_memory_storage"]
