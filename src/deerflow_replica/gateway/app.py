"""The ASGI application: the route table over one replica."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..config import AppConfig
from ..replica import Replica, open_replica
from .auth import Authenticate
from .endpoint import route_of
from .gateway import Gateway
from .graphs import GraphSource
from .problems import answer_of
from .routes import ENDPOINTS

_log = logging.getLogger(__name__)

_DEEP_ENOUGH = 10_000
_SHALLOW = 1_000
_EXPOSED = ("Location", "Content-Location", "X-Pagination-Total", "X-Pagination-Next", "X-Replica-Id")


def create_app(
    source: Replica | AppConfig,
    graphs: Mapping[str, GraphSource],
    *,
    authenticate: Authenticate | None = None,
    allow_origins: Collection[str] = ("*",),
) -> Starlette:
    """An application that speaks the LangGraph API for `graphs`, by name.

    An `AppConfig` makes the app open its own replica in the ASGI lifespan; a `Replica` is borrowed and needs none.
    `authenticate(request)`, sync or async, returns the user id, or None for 401; without it nobody is asked, threads
    without an owner are shared and owned ones do not exist. `app.state.gateway.drain()` prepares for leaving.
    """
    borrowed = source if isinstance(source, Replica) else None
    if borrowed is not None:
        _warn_if_shallow(borrowed.config)
    gateway = Gateway(borrowed, graphs, authenticate)
    app = Starlette(
        routes=[endpoint.route(gateway) for endpoint in ENDPOINTS],
        middleware=[
            Middleware(_EveryResponse, gateway=gateway),
            Middleware(
                CORSMiddleware,
                allow_origins=list(allow_origins),
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=_EXPOSED,
            ),
        ],
        exception_handlers={HTTPException: _unrouted},
        lifespan=_opening(source, gateway) if isinstance(source, AppConfig) else None,
    )
    app.router.redirect_slashes = False
    app.state.gateway = gateway
    return app


def _opening(config: AppConfig, gateway: Gateway) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with open_replica(deep_stream(config)) as replica:
            gateway.use(replica)
            try:
                yield
            finally:
                gateway.close_streams()
                gateway.use(None)

    return lifespan


def deep_stream(config: AppConfig) -> AppConfig:
    """The same configuration with a stream as deep as reconnecting clients need, unless its depth was chosen."""
    if "queue_maxsize" in config.stream_bridge.model_fields_set:
        return config
    return config.evolve({"stream_bridge": {"queue_maxsize": _DEEP_ENOUGH}})


def _warn_if_shallow(config: AppConfig) -> None:
    depth = config.stream_bridge.queue_maxsize
    if depth < _SHALLOW:
        _log.warning("stream_bridge.queue_maxsize is %d: a client that reconnects late meets a gap", depth)


async def _unrouted(request: Request, error: Exception) -> Response:
    return answer_of(error)


class _EveryResponse:
    """Says on every response which replica answered, and counts it."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._own_headers()]
                self._gateway.tallies.answered(scope["method"], route_of(scope), message["status"])
            await send(message)

        return await self._app(scope, receive, send_with_id)

    def _own_headers(self) -> list[tuple[bytes, bytes]]:
        replica_id = self._gateway.replica_id
        return [(b"x-replica-id", quote(replica_id).encode())] if replica_id else []
