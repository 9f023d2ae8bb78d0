"""Counts every model call of an agent."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter
from typing import Any
from uuid import UUID

from langchain.agents.middleware import AgentMiddleware, AgentState
from langchain.agents.middleware.types import ModelCallResult, ModelRequest, ModelResponse
from langchain_core.language_models import BaseChatModel

from ..context import DeerFlowContext
from ..counters._runs import CountedRuns
from ..counters.base import ModelCounters
from ..counters.outcome import classify
from ._carrying import Hearing, carrying
from ._outcome import checked_models, model_name_of, names_by_identity, usage_of, usage_of_error

Request = ModelRequest[DeerFlowContext]

_LOG = logging.getLogger(__name__)


class ModelCounterMiddleware(AgentMiddleware[AgentState[Any], DeerFlowContext, Any]):
    """Records the outcome, the duration and the tokens of each model call.

    It belongs innermost, last in the list: outside of a retry it would see one success where three attempts failed.
    `models` gives names to model objects; any other model counts under the name it gives itself. Cancellation and
    LangGraph's control flow are no failures. An exception is raised again as it was, and counting never makes a model
    call fail.
    """

    def __init__(self, counters: ModelCounters, *, models: Mapping[str, BaseChatModel] | None = None) -> None:
        super().__init__()
        self.tools = []
        self._counters = counters
        self._models = checked_models(models)
        self._names = names_by_identity(self._models)
        self._waits = counters.durability == "sync"

    def wrap_model_call(
        self, request: Request, handler: Callable[[Request], ModelResponse[Any]]
    ) -> ModelCallResult[Any]:
        started = perf_counter()
        try:
            with self._named():
                response = handler(request)
        except BaseException as error:
            self._count(request, perf_counter() - started, error=error)
            raise
        self._count(request, perf_counter() - started, response)
        return response

    async def awrap_model_call(
        self,
        request: Request,
        handler: Callable[[Request], Awaitable[ModelResponse[Any]]],
    ) -> ModelCallResult[Any]:
        started = perf_counter()
        try:
            with self._named():
                response = await handler(request)
        except BaseException as error:
            await self._acount(request, perf_counter() - started, error=error)
            raise
        await self._acount(request, perf_counter() - started, response)
        return response

    def _named(self) -> AbstractContextManager[None]:
        """Tell the callbacks of these counters which calls they need not count, where there are any."""
        runs = self._counters._runs
        return _naming(runs) if runs.are_asked_for else nullcontext()

    def _count(
        self, request: Request, seconds: float, response: object = None, *, error: BaseException | None = None
    ) -> None:
        try:
            self._counters.record(**self._event(request, seconds, response, error))
            if self._waits:
                self._counters.flush_sync()
        except Exception as error:
            _not_counted(error)

    async def _acount(
        self, request: Request, seconds: float, response: object = None, *, error: BaseException | None = None
    ) -> None:
        try:
            event = self._event(request, seconds, response, error)
            if self._waits and not isinstance(error, GeneratorExit):  # a closing coroutine cannot wait
                await self._counters.arecord(**event)
            else:
                self._counters.record(**event)
        except Exception as error:
            _not_counted(error)

    def _event(self, request: Request, seconds: float, response: object, error: BaseException | None) -> dict[str, Any]:
        name = model_name_of(request.model, self._names)
        if error is None:
            return {
                "model_name": name,
                "outcome": "success",
                "duration_seconds": seconds,
                "usage": usage_of(response),
            }
        found = classify(error)
        return {
            "model_name": name,
            "outcome": found.outcome,
            "duration_seconds": seconds,
            "usage": usage_of_error(error),
            "error_type": found.kind,
            "retry_after_seconds": found.retry_after_seconds,
        }


@contextmanager
def _naming(runs: CountedRuns) -> Iterator[None]:
    naming = _Naming(runs)
    try:
        with carrying(naming):
            yield
    finally:
        runs.forget(naming.named)


class _Naming(Hearing):
    """Names the calls that are counted outside of them."""

    def __init__(self, runs: CountedRuns) -> None:
        self.named: list[UUID] = []
        self._runs = runs

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **details: Any) -> None:
        self._name(run_id)

    def on_llm_start(self, serialized: Any, prompts: Any, *, run_id: UUID, **details: Any) -> None:
        self._name(run_id)

    def _name(self, run_id: UUID) -> None:
        self.named.append(run_id)
        self._runs.name(run_id)


def _not_counted(error: Exception) -> None:
    _LOG.warning("a model call could not be counted, or not written yet: %s: %s", type(error).__name__, error)
