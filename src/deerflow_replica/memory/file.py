"""Memory documents as JSON files, safe between the threads and processes of one host."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

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
from .base import Document, Scope, check_document, now
from .documents import DocumentStorage, Stored, Unread

logger = logging.getLogger(__name__)

_FILE = "memory.json"
_LOCK = ".memory.lock"
_HISTORY = ".memory.history"
_LONGEST_NAME = 255
_LOCKS = 64
_HOP_SECONDS = 50e-6  # what it costs an event loop to have something done on a thread
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,255}")


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
        max_facts: int | None = None,
    ) -> None:
        super().__init__(history=history, max_facts=max_facts)
        if not 0 <= lock_timeout_seconds <= threading.TIMEOUT_MAX:
            raise ValueError(f"lock_timeout_seconds must not be negative, nor above {threading.TIMEOUT_MAX:.0f}")
        self.base_dir = Path(base_dir).absolute()
        self._root = str(self.base_dir)
        self._lock_timeout_seconds = lock_timeout_seconds
        self._detours = 0
        self._thread_locks = tuple(threading.Lock() for _ in range(_LOCKS))

    def require_writable(self) -> None:
        """Raises `StoreUnavailableError` when nothing could be saved in `base_dir`; makes nothing."""
        require_writable(self.base_dir)

    def _read(self, scope: Scope, known: Hashable | None) -> Stored | Unread:
        path = self._file(scope)
        with file_errors(path):
            if known is not None and signature_of(path) == known:
                return Unread.KNOWN
            signed = read_signed(path)
        return Unread.MISSING if signed is None else Stored(_decoded(path, signed[1]), signed[0])

    def _glance(self, scope: Scope, known: Hashable | None) -> Unread | None:
        """One look at the directory, while that takes less than to ask another thread.

        A look that took longer, on a slow or a network disk, is made up for by as many reads on other threads.
        """
        if self._detours:
            self._detours -= 1
            return None
        started = time.perf_counter()
        try:
            found = entry_signature(self._file(scope))
        except OSError:  # `_read` says what it is
            return None
        finally:
            self._detours = int((time.perf_counter() - started) / _HOP_SECONDS)
        if found is None:
            return Unread.MISSING
        return Unread.KNOWN if found == known else None

    def _read_revision(self, scope: Scope, revision: int) -> Document | None:
        path = _revision_file(self._path(scope), revision)
        try:
            with file_errors(path):
                signed = read_signed(str(path))
            return None if signed is None else _decoded(path, signed[1])
        except MemoryCorruptError as error:
            logger.warning("an earlier revision is left out of a merge: %s", error)
            return None

    def _commit(self, scope: Scope, document: Document, expected: int) -> Stored | None:
        """The lock is held, so the present document is the one that `document` was made from."""
        path = self._path(scope)
        content = json.dumps(document, indent=2, ensure_ascii=False).encode()
        with file_errors(path):
            if self._history:
                self._keep_revision(path, expected)
            return Stored(document, write_atomically(path, content))

    def _agents_of(self, user_id: str | None) -> list[str]:
        agents = self._path(Scope(None, user_id)).parent / "agents"
        with file_errors(agents):
            return sorted(path.parent.name for path in agents.glob(f"*/{_FILE}"))

    @contextmanager
    def _exclusive(self, scope: Scope) -> Iterator[None]:
        path = self._path(scope)
        deadline = time.monotonic() + self._lock_timeout_seconds
        thread_lock = self._thread_locks[hash(scope) % _LOCKS]
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

    def _path(self, scope: Scope) -> Path:
        return Path(self._file(scope))

    def _file(self, scope: Scope) -> str:
        """As text: building a `Path` would take longer than to look for the file."""
        user = f"users/{file_name(scope.user_id)}/" if scope.user_id is not None else ""
        agent = f"agents/{_agent_folder(scope.agent_name)}/" if scope.agent_name is not None else ""
        return f"{self._root}/{user}{agent}{_FILE}"


def file_name(name: str) -> str:
    """A file name for any text, another one for another text; what consists of `[A-Za-z0-9_-]` stays as it is."""
    if _PLAIN.fullmatch(name):
        return name
    quoted = quote(name, safe="", errors="surrogatepass").replace(".", "%2E").replace("~", "%7E")
    if len(quoted) <= _LONGEST_NAME:
        return quoted
    return f"%sha256-{sha256(name.encode(errors='surrogatepass')).hexdigest()}"


def _agent_folder(name: str) -> str:
    """No agent's name has a '%': with one it is a folder's name already, found in the directory."""
    return name if name.startswith("%") else file_name(name)


def _revision_file(path: Path, revision: int) -> Path:
    return path.with_name(_HISTORY) / f"{revision}.json"


def _decoded(path: Path | str, content: bytes) -> Document:
    """`MemoryCorruptError` for what is no memory document."""
    try:
        document = json.loads(content.decode())
        if not isinstance(document, dict):
            raise ValueError("it holds no object")  # noqa: TRY004, TRY301  # one error for all that is unreadable
        check_document(document)
    except (ValueError, RecursionError) as error:
        raise MemoryCorruptError(f"{path} cannot be read as a memory document: {error}") from error
    document.setdefault("revision", 0)
    document.setdefault("lastUpdated", now())
    return document
