"""Takes an agent's model calls to a model that is well."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from langchain.agents.middleware import AgentMiddleware, AgentState
from langchain.agents.middleware.types import ModelCallResult, ModelRequest, ModelResponse
from langchain_core.language_models import BaseChatModel

from ..context import DeerFlowContext
from ..counters.health import ModelHealth
from ..counters.values import Permit
from ._carrying import Hearing, carrying
from ._outcome import checked_models, ending_of, is_worth_another, names_by_identity

Request = ModelRequest[DeerFlowContext]


class ModelRoutingMiddleware(AgentMiddleware[AgentState[Any], DeerFlowContext, Any]):
    """Chooses among `models`, in order: the agent's own if it is one of them comes first.

    A model whose circuit is open is left out before the call; if all are, the one that recovers first is called. After
    a failure the next is tried, each at most once for a call, unless the request itself was refused, or a token has
    been streamed already: then, or with none left, the last error is raised. `ValueError` without any model.

    It belongs right outside `ModelCounterMiddleware`, which tells `health` how each call ended.
    """

    def __init__(self, health: ModelHealth, models: Mapping[str, BaseChatModel]) -> None:
        super().__init__()
        self.tools = []
        self._health = health
        self._models = checked_models(models)
        if not self._models:
            raise ValueError("models: name at least one model to route to")
        self._names = names_by_identity(self._models)

    def wrap_model_call(
        self, request: Request, handler: Callable[[Request], ModelResponse[Any]]
    ) -> ModelCallResult[Any]:
        left = self._candidates(request)
        while True:
            permit, tokens = self._health.choose_sync(left), _Tokens()
            left.remove(permit.model_name)
            try:
                with carrying(tokens):
                    response = handler(self._routed(request, permit))
            except BaseException as error:
                self._health.release_sync(permit, ending_of(error))
                if not left or tokens.were_streamed or not is_worth_another(error):
                    raise
            else:
                self._health.release_sync(permit, "success")
                return response

    async def awrap_model_call(
        self, request: Request, handler: Callable[[Request], Awaitable[ModelResponse[Any]]]
    ) -> ModelCallResult[Any]:
        left = self._candidates(request)
        while True:
            permit, tokens = await self._health.choose(left), _Tokens()
            left.remove(permit.model_name)
            try:
                with carrying(tokens):
                    response = await handler(self._routed(request, permit))
            except BaseException as error:
                await self._failed(permit, error)
                if not left or tokens.were_streamed or not is_worth_another(error):
                    raise
            else:
                await self._health.release(permit, "success")
                return response

    def _candidates(self, request: Request) -> list[str]:
        preferred = self._names.get(id(request.model))
        return sorted(self._models, key=lambda name: name != preferred)

    def _routed(self, request: Request, permit: Permit) -> Request:
        return request.override(model=self._models[permit.model_name])

    async def _failed(self, permit: Permit, error: BaseException) -> None:
        if isinstance(error, GeneratorExit):  # a closing coroutine cannot wait
            self._health.release_soon(permit, "abandoned")
        else:
            await self._health.release(permit, ending_of(error))


class _Tokens(Hearing):
    """Whether anything of an answer may have reached a client."""

    def __init__(self) -> None:
        self.were_streamed = False

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, **details: Any) -> None:
        """Some models begin with a piece that has nothing in it."""
        message = getattr(chunk, "message", None)
        contents = (
            token,
            *(getattr(message, part, None) for part in ("content", "tool_call_chunks", "additional_kwargs")),
        )
        self.were_streamed = self.were_streamed or any(contents)

    def on_stream_event(self, event: Any, **details: Any) -> None:
        if not isinstance(event, Mapping) or event.get("event") != "message-start":
            self.were_streamed = True
