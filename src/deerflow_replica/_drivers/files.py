"""Files that several processes of one host share: an advisory lock, an atomic durable write, and OSError as ours."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import StoreUnavailableError

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.0005
_LONGEST_PAUSE_SECONDS = 0.02

Signature = tuple[int, int, int]
"""What tells one version of a file from the next: modification time in ns, size in bytes, inode."""


@contextmanager
def file_errors(path: Path | str) -> Iterator[None]:
    """A file that cannot be read, written or locked becomes `StoreUnavailableError`."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailableError(f"{path} is not available: {error.strerror or error}") from error


def require_writable(folder: Path) -> None:
    """Raises `StoreUnavailableError` unless files can be made in the folder, or the folder itself where it lacks."""
    nearest = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not nearest.is_dir():
        raise StoreUnavailableError(f"{folder} is not available: {nearest} is no directory")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise StoreUnavailableError(f"{folder} is not available: {nearest} may not be written")


def signature_of(path: str) -> Signature | None:
    """The file's signature; None if there is no such file."""
    try:
        return _signature(os.stat(path))  # noqa: PTH116  # one system call on the hot path, without a Path
    except FileNotFoundError:
        return None


def entry_signature(path: str) -> Signature | None:
    """`signature_of` for an event loop's thread, about two microseconds; a link has a signature of its own.

    `lstat` reads no content and follows nothing, and those who watch a loop for blocking calls let it pass.
    """
    try:
        return _signature(os.lstat(path))
    except FileNotFoundError:
        return None


def read_signed(path: str) -> tuple[Signature, bytes] | None:
    """A file's content with the signature of exactly that content; None if there is no such file."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # as above
            return _signature(os.fstat(file.fileno())), file.read()
    except FileNotFoundError:
        return None


def write_atomically(path: Path, content: bytes) -> Signature:
    """Replace the file in one step, on disk before it is visible; a failure leaves the old file as it was."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        signature = _write_through(temporary, content)
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    _sync_directory(path.parent)
    return signature


def keep_copy(path: Path, copy: Path) -> None:
    """Give the file's present content a second name: a hard link, as the file is only ever replaced, else a copy."""
    copy.unlink(missing_ok=True)
    try:
        copy.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, copy)


@contextmanager
def lock_file(path: Path, *, timeout_seconds: float) -> Iterator[None]:
    """Hold the advisory lock of `path` against every other process and thread of this host.

    The lock goes with its holder, also when that is killed. Raises `TimeoutError` when it is not free in time.
    """
    deadline = time.monotonic() + timeout_seconds
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _wait_for_lock(descriptor, path, deadline)
        yield
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, path: Path, deadline: float) -> None:
    pause = _FIRST_PAUSE_SECONDS
    while not _try_lock(descriptor):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(0, f"{path.name} is held by another process or thread")
        threading.Event().wait(min(pause, left))
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_through(path: Path, content: bytes) -> Signature:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return _signature(os.fstat(file.fileno()))


def _sync_directory(directory: Path) -> None:
    """The new name is in place whatever happens here, so a failure is only worth a warning."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        logger.warning("%s could not be flushed to disk: %s", directory, error)


def _signature(status: os.stat_result) -> Signature:
    return status.st_mtime_ns, status.st_size, status.st_ino
