"""How news of the streams arrive: what the feed asks of `Pushes` and of `BlockingReads`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from typing import Any, Protocol

Call = Callable[..., Awaitable[list[Any]]]


class Live(Protocol):
    """Between `listen` and its end, whatever is appended to a topic's stream reaches its ring."""

    @property
    def acknowledged(self) -> AbstractSet[str]:
        """The topics that may be read now: what comes after the read arrives by itself."""
        ...

    @property
    def due(self) -> float:
        """When `arrange` has something to do, on the loop's clock."""
        ...

    def version(self, name: str) -> int:
        """Grows with every message of the topic."""
        ...

    def silent(self) -> set[str]:
        """The topics without a message since the last call."""
        ...

    async def listen(self, opened: Callable[[], None]) -> None:
        """For ever; `opened` is called when `arrange` has to be called anew."""

    async def arrange(self, readable: AbstractSet[str], call: Call) -> None:
        """Bring what is listened to in line with the topics; `readable` are those that were read before.

        `call` sends commands. Raises `StreamUnavailableError`.
        """

    async def close(self) -> None: ...
