"""What keeps the threads of DeerFlow's users. `user_id=None` is no owner filter, `AUTO` the request's user."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from deerflow.runtime.user_context import AUTO, _AutoSentinel

Record = dict[str, Any]
UserId = str | _AutoSentinel | None


class ThreadMetaStore(ABC):
    @abstractmethod
    async def create(
        self,
        thread_id: str,
        *,
        assistant_id: str | None = None,
        user_id: UserId = AUTO,
        display_name: str | None = None,
        metadata: Record | None = None,
    ) -> Record: ...

    @abstractmethod
    async def get(self, thread_id: str, *, user_id: UserId = AUTO) -> Record | None: ...

    @abstractmethod
    async def search(
        self,
        *,
        metadata: Record | None = None,
        status: str | None = None,
        limit: int = 100,
        offset: int = 0,
        user_id: UserId = AUTO,
    ) -> list[Record]: ...

    @abstractmethod
    async def update_display_name(self, thread_id: str, display_name: str, *, user_id: UserId = AUTO) -> None: ...

    @abstractmethod
    async def update_status(self, thread_id: str, status: str, *, user_id: UserId = AUTO) -> None: ...

    @abstractmethod
    async def update_metadata(
        self, thread_id: str, metadata: Record, *, touch: bool = True, user_id: UserId = AUTO
    ) -> None: ...

    @abstractmethod
    async def update_owner(self, thread_id: str, owner_user_id: str, *, user_id: UserId = AUTO) -> None: ...

    @abstractmethod
    async def check_access(self, thread_id: str, user_id: str, *, require_existing: bool = False) -> bool: ...

    @abstractmethod
    async def delete(self, thread_id: str, *, user_id: UserId = AUTO) -> None: ...
