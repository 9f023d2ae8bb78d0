"""Memory documents as JSON files, safe between the threads and processes of one host."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .._drivers.files import (
    entry_signature,
    file_errors,
    keep_copy,
    lock_file,
    read_signed,
    require_writable,
    signature_of,
    write_atomically,
)
from ..errors import MemoryCorruptError, StoreUnavailableError
from .base import Scope, as_stored
from .checks import Document
from .documents import DocumentStorage, Stored, Summaries, Unread
from .names import agent_place, place_name

logger = logging.getLogger(__name__)

_FILE = "memory.json"
_LOCK = ".memory.lock"
_HISTORY = ".memory.history"
_LOCKS = 64
_HOP_SECONDS = 50e-6  # what it costs an event loop to have something done on a thread


class FileMemoryStorage(DocumentStorage):
    """`memory.json` and `agents/{agent}/memory.json` in `base_dir`, and the same in `users/{user}` for each user.

    Two processes that save at once lose nothing: each takes the scope's lock file for the commit, waiting at most
    `lock_timeout_seconds`, and writes a new file that replaces the old one in one step, flushed to disk. The lock is
    advisory: a network file system without locks does not have this guarantee. Directories appear at the first save.
    """

    def __init__(
        self,
        base_dir: str | Path,
        *,
        lock_timeout_seconds: float = 10.0,
        history: int = 20,
        summaries: Summaries = "scope",
        max_facts: int | None = None,
    ) -> None:
        super().__init__(history=history, summaries=summaries, max_facts=max_facts)
        if not 0 <= lock_timeout_seconds <= threading.TIMEOUT_MAX:
            raise ValueError(f"lock_timeout_seconds must not be negative, nor above {threading.TIMEOUT_MAX:.0f}")
        self.base_dir = Path(base_dir).absolute()
        self._root = str(self.base_dir)
        self._lock_timeout_seconds = lock_timeout_seconds
        self._detours = 0
        self._last_look_seconds = 0.0
        self._thread_locks = tuple(threading.Lock() for _ in range(_LOCKS))

    def require_writable(self) -> None:
        """Raises `StoreUnavailableError` when nothing could be saved in `base_dir`; makes nothing."""
        require_writable(self.base_dir)

    def _read(self, place: Scope, known: Hashable | None) -> Stored | Unread:
        path = self._file(place)
        with file_errors(path):
            if known is not None and signature_of(path) == known:
                return Unread.KNOWN
            signed = read_signed(path)
        return Unread.MISSING if signed is None else Stored(_decoded(path, signed[1]), signed[0])

    def _glance(self, place: Scope, known: Hashable | None) -> Unread | None:
        """One look at the directory, while that takes less than to ask another thread.

        Looks that take longer, on a slow or a network disk, are made up for by as many reads on other threads. One
        alone is not: the machine may have been busy, or the directory not yet cached.
        """
        if self._detours > 0:  # two threads may both take the last one
            self._detours -= 1
            return None
        started = time.perf_counter()
        try:
            found = entry_signature(self._file(place))
        except OSError:  # `_read` says what it is
            return None
        finally:
            self._looked(time.perf_counter() - started)
        if found is None:
            return Unread.MISSING
        return Unread.KNOWN if found == known else None

    def _looked(self, seconds: float) -> None:
        self._detours = int(min(seconds, self._last_look_seconds) / _HOP_SECONDS)
        self._last_look_seconds = seconds

    def _read_revision(self, place: Scope, revision: int) -> Document | None:
        path = _revision_file(self._path(place), revision)
        try:
            with file_errors(path):
                signed = read_signed(str(path))
            return None if signed is None else _decoded(path, signed[1])
        except MemoryCorruptError as error:
            logger.warning("an earlier revision is left out of a merge: %s", error)
            return None

    def _commit(self, place: Scope, document: Document, present: Stored) -> Stored | None:
        """The lock is held, so the present document is the one that `document` was made from."""
        path = self._path(place)
        content = json.dumps(document, indent=2, ensure_ascii=False).encode()
        with file_errors(path):
            if self._history:
                self._keep_revision(path, present.document["revision"])
            return Stored(document, write_atomically(path, content))

    def _agents_of(self, user_id: str | None) -> list[str]:
        agents = self._path(Scope(None, user_id)).parent / "agents"
        with file_errors(agents):
            return sorted(path.parent.name for path in agents.glob(f"*/{_FILE}"))

    @contextmanager
    def _exclusive(self, place: Scope) -> Iterator[None]:
        path = self._path(place)
        deadline = time.monotonic() + self._lock_timeout_seconds
        thread_lock = self._thread_locks[hash(place) % _LOCKS]
        if not thread_lock.acquire(timeout=self._lock_timeout_seconds):
            raise StoreUnavailableError(f"{path} is held by another thread")
        try:
            with file_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with lock_file(path.with_name(_LOCK), timeout_seconds=deadline - time.monotonic()):
                    yield
        finally:
            thread_lock.release()

    def _keep_revision(self, path: Path, revision: int) -> None:
        """Keep the present file, and as many before it as `history` says; nothing from before a file that is gone."""
        folder = path.with_name(_HISTORY)
        is_there = path.exists()
        if is_there:
            folder.mkdir(exist_ok=True)
            keep_copy(path, _revision_file(path, revision))
        for kept in folder.glob("*.json"):
            if not (is_there and kept.stem.isdigit() and revision - self._history < int(kept.stem) <= revision):
                kept.unlink(missing_ok=True)

    def _path(self, place: Scope) -> Path:
        return Path(self._file(place))

    def _file(self, place: Scope) -> str:
        """As text: building a `Path` would take longer than to look for the file."""
        user = f"users/{place_name(place.user_id)}/" if place.user_id is not None else ""
        agent = f"agents/{agent_place(place.agent_name)}/" if place.agent_name is not None else ""
        return f"{self._root}/{user}{agent}{_FILE}"


def _revision_file(path: Path, revision: int) -> Path:
    return path.with_name(_HISTORY) / f"{revision}.json"


def _decoded(path: Path | str, content: bytes) -> Document:
    """`MemoryCorruptError` for what is no memory document."""
    try:
        return as_stored(json.loads(content.decode()))
    except (ValueError, RecursionError) as error:
        raise MemoryCorruptError(f"{path} cannot be read as a memory document: {error}") from error
