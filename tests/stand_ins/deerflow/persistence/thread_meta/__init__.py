from deerflow.persistence.thread_meta.base import ThreadMetaStore
from deerflow.persistence.thread_meta.memory import MemoryThreadMetaStore
from deerflow.persistence.thread_meta.sql import ThreadMetaRepository

__all__ = ["MemoryThreadMetaStore", "ThreadMetaRepository", "ThreadMetaStore"]
