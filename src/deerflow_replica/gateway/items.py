"""The replica's store, as one user sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from langgraph.store.base import NOT_PROVIDED, InvalidNamespaceError
from starlette.exceptions import HTTPException

from ..errors import ConfigError
from ..store.labels import encode_label
from .problems import unprocessable

if TYPE_CHECKING:
    from langgraph.store.base import BaseStore, Item

    from .item_bodies import ListNamespaces, PutItem, SearchItems


class UserItems:
    """A user's namespaces lie below `("users", user_id)`, which is added and removed here. Without a user, all of the
    store is shared.
    """

    def __init__(self, store: BaseStore, user_id: str | None) -> None:
        self._store = store
        self._scope = () if user_id is None else ("users", encode_label(user_id))

    async def put(self, body: PutItem) -> None:
        if body.namespace[:1] == ["langgraph"]:
            raise _bad_namespace('the first label of a namespace must not be "langgraph"')
        ttl = body.ttl if "ttl" in body.model_fields_set else NOT_PROVIDED
        place = self._place(body.namespace)
        with _refusals():
            await self._store.aput(place, body.key, body.value, index=body.index, ttl=ttl)

    async def get(self, namespace: Sequence[str], key: str, *, refresh_ttl: bool | None) -> dict[str, Any] | None:
        place = self._place(namespace)
        with _refusals():
            item = await self._store.aget(place, key, refresh_ttl=refresh_ttl)
        return None if item is None else self._answer(item)

    async def delete(self, namespace: Sequence[str], key: str) -> None:
        place = self._place(namespace)
        with _refusals():
            await self._store.adelete(place, key)

    async def search(self, body: SearchItems) -> list[dict[str, Any]]:
        prefix = (*self._scope, *(body.namespace_prefix or ()))
        with _refusals():
            items = await self._store.asearch(
                prefix,
                query=body.query,
                filter=body.filter,
                limit=body.limit,
                offset=body.offset,
                refresh_ttl=body.refresh_ttl,
            )
        return [{**self._answer(item), "score": item.score} for item in items]

    async def namespaces(self, body: ListNamespaces) -> list[list[str]]:
        depth = len(self._scope)
        with _refusals():
            found = await self._store.alist_namespaces(
                prefix=self._prefix(body) or None,
                suffix=tuple(body.suffix or ()) or None,
                max_depth=None if body.max_depth is None else body.max_depth + depth,
                limit=body.limit,
                offset=body.offset,
            )
        return [list(namespace[depth:]) for namespace in found]

    def _prefix(self, body: ListNamespaces) -> tuple[str, ...]:
        """With a label for each of the suffix's, so that none of those is found in the scope."""
        given = tuple(body.prefix or ())
        if not self._scope:
            return given
        return (*self._scope, *given, *("*" for _ in range(len(body.suffix or ()) - len(given))))

    def _place(self, namespace: Sequence[str]) -> tuple[str, ...]:
        if not namespace:
            raise _bad_namespace("a namespace must not be empty")
        return (*self._scope, *namespace)

    def _answer(self, item: Item) -> dict[str, Any]:
        return {
            "namespace": list(item.namespace[len(self._scope) :]),
            "key": item.key,
            "value": item.value,
            "created_at": item.created_at,
            "updated_at": item.updated_at,
        }


def _bad_namespace(detail: str) -> HTTPException:
    return HTTPException(400, f"namespace: {detail}")


@contextmanager
def _refusals() -> Iterator[None]:
    """What a store does not take: namespaces are 400, anything else is 422."""
    try:
        yield
    except ConfigError:
        raise
    except InvalidNamespaceError as error:
        raise _bad_namespace(str(error)) from error
    except NotImplementedError as error:
        raise unprocessable(f"this store cannot do it: {error}") from error
    except (ValueError, TypeError) as error:  # LangGraph's own store compares what has no order
        raise unprocessable(str(error)) from error
