"""The thread that writes counts while agents work: sync agents have no loop to do it."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable

from ..errors import StoreUnavailableError

_LOG = logging.getLogger(__name__)


class Flusher:
    """Calls `flush` on a thread of its own every `interval_seconds`, and whenever `wake` is set.

    It holds `flush` (a bound method) weakly, so an owner that nobody closed is still collected, and warns. `failure`
    is what the log says when it raises: once for a store that is away, however long, and once for any other error.
    """

    def __init__(
        self, flush: Callable[[], None], *, wake: threading.Event, interval_seconds: float, name: str, failure: str
    ) -> None:
        self._flush = weakref.WeakMethod(flush)
        self._wake = wake
        self._interval_seconds = min(interval_seconds, threading.TIMEOUT_MAX)  # no wait can be longer
        self._failure = failure
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"deerflow-replica-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ask the thread to end; `join` waits for it."""
        self._stopping.set()
        self._wake.set()

    def join(self) -> None:
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        failing: type[Exception] | None = None
        while not self._stopping.is_set():
            self._wake.wait(self._interval_seconds)
            flush = self._flush()
            if self._stopping.is_set() or flush is None:
                return
            self._wake.clear()
            failing = self._try(flush, failing)
            del flush

    def _try(self, flush: Callable[[], None], failing: type[Exception] | None) -> type[Exception] | None:
        """How it fails now; `failing` is how it failed the last time."""
        try:
            flush()
        except StoreUnavailableError as error:
            if failing is not StoreUnavailableError and not self._stopping.is_set():
                _LOG.warning("%s: %s", self._failure, error)
            return StoreUnavailableError
        except Exception as error:
            if failing is not type(error):
                _LOG.exception("%s", self._failure)
            return type(error)
        return None
