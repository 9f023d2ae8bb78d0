"""Every error that leaves the package.

```text
ReplicaError
├── ConfigError(ValueError)              the configuration is wrong; `.problems` lists every place
├── MissingExtraError(ImportError)       an optional dependency is not installed
├── ContextError(RuntimeError)           no usable DeerFlowContext or AppConfig where one is needed
├── StreamError                          the stream bridge
│   ├── StreamUnavailableError           the server cannot be reached, or the bridge is closed
│   ├── StreamEndedError                 the run's stream has ended; nothing may follow END
│   └── PayloadTooLargeError             one event is larger than the bridge's limit
├── StoreUnavailableError                a database cannot be reached, or the part is closed
│   └── MemoryCorruptError               a memory document is there but cannot be read
├── VersionConflictError                 a conditional write met another version; `.current` has it
├── ThreadOwnershipError(PermissionError)  the thread is not this user's
└── RunConflictError                     the thread is busy and the run asked to be rejected then
```

Driver exceptions never leave the package bare: they are raised `from` the driver's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class ReplicaError(Exception):
    """Base of every error that this package raises on purpose."""


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing that is wrong in a configuration.

    `key` is the dotted path, `source` the file as given or the variable's name, `line` and `column` count from 1.
    """

    key: str
    message: str
    source: str | None = None
    line: int | None = None
    column: int | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return ConfigProblem, (self.key, self.message, self.source, self.line, self.column)

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.source, self.line, self.column) if part is not None)
        text = " ".join(part for part in (place, f"{self.key}:" if self.key else "", self.message) if part)
        return text if text.isprintable() else "".join(map(_printable, text))


class ConfigError(ReplicaError, ValueError):
    """The configuration is wrong. `problems` holds all of them, in file order; the text is one line each."""

    def __init__(self, *problems: ConfigProblem | str) -> None:
        self.problems: tuple[ConfigProblem, ...] = tuple(
            ConfigProblem("", problem) if isinstance(problem, str) else problem for problem in problems
        )
        super().__init__(*problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class MissingExtraError(ReplicaError, ImportError):
    """An optional dependency is missing; the text is the exact `pip install` command."""


class ContextError(ReplicaError, RuntimeError):
    """No usable context or configuration here; the text says what to pass."""


class StreamError(ReplicaError):
    """The stream bridge could not do what was asked."""


class StreamUnavailableError(StreamError):
    """The stream server cannot be reached, or the bridge is closed."""


class StreamEndedError(StreamError):
    """The run's stream has ended. Nothing is stored after END."""


class PayloadTooLargeError(StreamError):
    """One event's encoded data has `size` bytes, more than the bridge's `limit`."""

    def __init__(self, message: str, *, size: int, limit: int) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, {"size": self.size, "limit": self.limit})


class StoreUnavailableError(ReplicaError):
    """A database cannot be reached, or the part that uses it is closed."""


class MemoryCorruptError(StoreUnavailableError):
    """A memory document exists but cannot be read. It is left as it is."""


class VersionConflictError(ReplicaError):
    """A conditional write met another version than it expected; nothing was written.

    `current` is what is there now: a version number (0: absent) or the current record.
    """

    def __init__(self, message: str, *, current: Any = None, **details: Any) -> None:
        super().__init__(message)
        self.current = current
        self.__dict__.update(details)
        self._details = details

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, {"current": self.current, **self._details})


class ThreadOwnershipError(ReplicaError, PermissionError):
    """The thread is not this user's. Never says whose it is, nor whether it exists."""

    def __init__(self, thread_id: str) -> None:
        super().__init__(f"thread {thread_id!r} is not available to this user")
        self.thread_id = thread_id

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.thread_id,)


class RunConflictError(ReplicaError):
    """The thread has an unfinished run, and the new one was to be rejected in that case."""


def _printable(letter: str) -> str:
    return letter if letter.isprintable() else repr(letter)[1:-1]


def _rebuild(kind: type[ReplicaError], args: tuple[Any, ...], keywords: dict[str, Any]) -> ReplicaError:
    return kind(*args, **keywords)
