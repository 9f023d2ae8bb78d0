"""The store's items, each user's apart from the others'."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError
from starlette.responses import Response

from ..answers import json_response
from ..endpoint import Call, Endpoint
from ..item_bodies import NAMESPACE, ItemPlace, ListNamespaces, PutItem, SearchItems
from ..items import UserItems
from ..problems import unprocessable

_FLAGS = {"true": True, "1": True, "false": False, "0": False}


async def put(call: Call) -> Response:
    await _items(call).put(call.body)
    return Response(status_code=204)


async def get(call: Call) -> Response:
    """The item, or `null`."""
    key = call.request.query_params.get("key")
    if key is None:
        raise unprocessable("key: wanted")
    return json_response(await _items(call).get(_namespace(call), key, refresh_ttl=_refresh_ttl(call)))


async def delete(call: Call) -> Response:
    """204, whether it was there or not."""
    body: ItemPlace = call.body
    await _items(call).delete(body.namespace, body.key)
    return Response(status_code=204)


async def search(call: Call) -> Response:
    return json_response({"items": await _items(call).search(call.body)})


async def namespaces(call: Call) -> Response:
    return json_response({"namespaces": await _items(call).namespaces(call.body)})


def _items(call: Call) -> UserItems:
    return UserItems(call.replica.store, call.user_id)


def _namespace(call: Call) -> list[str]:
    """`a.b`, the labels joined by dots."""
    given = call.request.query_params.get("namespace")
    if given is None:
        raise unprocessable("namespace: wanted")
    try:
        return NAMESPACE.validate_python(given.split(".") if given else [])
    except ValidationError:
        raise unprocessable("namespace: labels that are not empty, joined by dots") from None


def _refresh_ttl(call: Call) -> bool | None:
    given = call.request.query_params.get("refresh_ttl")
    if given is not None and given.lower() not in _FLAGS:
        raise unprocessable("refresh_ttl: true or false")
    return None if given is None else _FLAGS[given.lower()]


ENDPOINTS = (
    Endpoint("PUT", "/store/items", put, body=TypeAdapter(PutItem)),
    Endpoint("GET", "/store/items", get),
    Endpoint("DELETE", "/store/items", delete, body=TypeAdapter(ItemPlace)),
    Endpoint("POST", "/store/items/search", search, body=TypeAdapter(SearchItems)),
    Endpoint("POST", "/store/namespaces", namespaces, body=TypeAdapter(ListNamespaces)),
)
