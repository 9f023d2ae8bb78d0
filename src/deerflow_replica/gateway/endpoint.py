"""One row of the route table, and what is done for every one of them before its handler is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..config import app_config_scope
from ..replica import Replica
from ..runs.registry.records import RunRecord
from .access import require_run, require_thread
from .auth import identify
from .bodies import read_body
from .gateway import Gateway
from .ids import as_uuid
from .problems import answer_of, unprocessable

Handler = Callable[["Call"], Awaitable[ASGIApp]]


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose user is known and may use what its path names. `run` is the one that the path names."""

    gateway: Gateway
    request: Request
    user_id: str | None
    thread_id: str
    run: RunRecord | None
    body: Any

    @property
    def replica(self) -> Replica:
        return self.gateway.replica

    def says(self, flag: str) -> bool:
        """Whether the query has this flag, as `1` or `true`."""
        return self.request.query_params.get(flag, "").lower() in ("1", "true")

    def named_run(self) -> RunRecord:
        if self.run is None:
            raise LookupError("this route names no run")
        return self.run


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route. With `thread_id` and `run_id` in the path, a stranger's are 404 before the handler is asked.

    `public` routes ask nobody who they are. A route that `opens_thread` may name a thread that does not exist yet, and
    checks for itself.
    """

    method: str
    path: str
    handler: Handler
    body: TypeAdapter[Any] | None = None
    public: bool = False
    opens_thread: bool = False

    def route(self, gateway: Gateway) -> Route:
        return Route(self.path, _EndpointApp(self, gateway), methods=[self.method], name=f"{self.method} {self.path}")


class _EndpointApp:
    def __init__(self, endpoint: Endpoint, gateway: Gateway) -> None:
        self._endpoint = endpoint
        self._gateway = gateway
        self.template = endpoint.path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._endpoint.public:
            return await (await self._answer(Request(scope, receive)))(scope, receive, send)
        with app_config_scope(self._gateway.config):
            return await (await self._answer(Request(scope, receive)))(scope, receive, send)

    async def _answer(self, request: Request) -> ASGIApp:
        try:
            return await self._endpoint.handler(await self._call(request))
        except Exception as error:  # the edge: each becomes an answer, the unforeseen is logged there
            return answer_of(error)

    async def _call(self, request: Request) -> Call:
        if self._endpoint.public:
            return Call(self._gateway, request, None, "", None, None)
        threads = self._gateway.config.user_thread_mapping
        user_id = await identify(self._gateway.authenticate, request, threads)
        thread_id, run_id = _path_id(request, "thread_id"), _path_id(request, "run_id")
        run = await self._checked(thread_id, run_id, user_id)
        return Call(self._gateway, request, user_id, thread_id, run, await self._body(request))

    async def _checked(self, thread_id: str, run_id: str, user_id: str | None) -> RunRecord | None:
        if run_id:
            return await require_run(self._gateway.lookups, thread_id, run_id, user_id)
        if thread_id and not self._endpoint.opens_thread:
            await require_thread(self._gateway.replica, thread_id, user_id)
        return None

    async def _body(self, request: Request) -> Any:
        if self._endpoint.body is None:
            return None
        return await read_body(request, self._endpoint.body, max_bytes=self._gateway.config.gateway.max_body_bytes)


def route_of(scope: Scope) -> str | None:
    """The template of the route that a request was given to; None: none of ours."""
    endpoint = scope.get("endpoint")
    return endpoint.template if isinstance(endpoint, _EndpointApp) else None


def _path_id(request: Request, name: str) -> str:
    """The canonical UUID of a path parameter, empty if the path has none of that name."""
    given = request.path_params.get(name)
    try:
        return "" if given is None else as_uuid(given)
    except ValueError:
        raise unprocessable(f"{name}: not a UUID") from None
