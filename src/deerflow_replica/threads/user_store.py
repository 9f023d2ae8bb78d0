"""The thread map as DeerFlow's key-value API for the threads of a user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ThreadOwnershipError
from .base import ThreadMap
from .values import ThreadMappingItem, ThreadRecord

_ROOT = "user_threads"
_IDLE = "idle"


class UserThreadStore:
    """Threads of the namespace `("user_threads", user_id)`, by thread id; any other namespace is a `ValueError`.

    Of a value, `title` and `status` are the thread's display name and status, `updated_at` is told by the map (as ISO
    text) and ignored on writing, and the rest is its metadata. Another user's thread does not exist here.
    """

    def __init__(self, thread_map: ThreadMap) -> None:
        self._threads = thread_map

    async def aget(
        self, namespace: tuple[str, ...], key: str, *, refresh_ttl: bool | None = None
    ) -> ThreadMappingItem | None:
        """One thread; None if the user has none of this id. Reading never renews a time to live."""
        record = await self._threads.get(key, user_id=_user_of(namespace))
        return None if record is None else _item_of(record)

    async def aput(self, namespace: tuple[str, ...], key: str, value: Mapping[str, Any], index: Any = None) -> None:
        """Make the thread, or replace its whole value in one atomic step. `index` is ignored: there is no search.

        Raises `ThreadOwnershipError` for another user's thread, `ValueError` for a value that is no mapping.
        """
        user_id, fields = _user_of(namespace), _fields_of(value)
        while True:
            claim = await self._threads.claim(key, user_id, **fields)
            if claim.record is None or claim.record.user_id != user_id:
                raise ThreadOwnershipError(claim.thread_id)
            if claim.created or await self._threads.update(key, user_id=user_id, replace_metadata=True, **fields):
                return

    async def asearch(
        self,
        namespace_prefix: tuple[str, ...],
        /,
        *,
        query: str | None = None,
        filter: Mapping[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
    ) -> list[ThreadMappingItem]:
        """The user's threads, newest first. `filter` is equality, of the status and of top-level keys of the rest."""
        user_id, wanted = _user_of(namespace_prefix), dict(filter or {})
        status = wanted.pop("status", None)
        page = await self._threads.list(user_id, limit=limit, offset=offset, status=status, metadata=wanted)
        return [_item_of(record) for record in page.items]

    async def adelete(self, namespace: tuple[str, ...], key: str) -> None:
        """Remove the thread from the map, if it is this user's."""
        await self._threads.delete(key, user_id=_user_of(namespace))


def _user_of(namespace: Sequence[str]) -> str:
    match namespace:
        case (str(root), str(user_id)) if root == _ROOT:
            return user_id
    raise ValueError(f"the namespace must be ({_ROOT!r}, user_id)")


def _fields_of(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("the value must be a mapping")  # noqa: TRY004  # all refusals are ValueError
    metadata = {name: field for name, field in value.items() if name not in ("title", "status", "updated_at")}
    status = value.get("status")
    return {"display_name": value.get("title"), "status": _IDLE if status is None else status, "metadata": metadata}


def _item_of(record: ThreadRecord) -> ThreadMappingItem:
    title = {} if record.display_name is None else {"title": record.display_name}
    value = {**record.metadata, **title, "status": record.status, "updated_at": record.updated_at.isoformat()}
    return ThreadMappingItem(record.thread_id, value)
