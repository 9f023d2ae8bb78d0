"""Nobody's agent runs on somebody else's thread."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, NotRequired

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
from langchain.agents.middleware.types import PrivateStateAttr
from langchain_core.messages import ToolMessage
from langgraph.channels import UntrackedValue
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.runtime import Runtime
from langgraph.types import Command

from ..context import DeerFlowContext, resolve_context
from ..errors import ContextError, StoreUnavailableError
from ..threads.access import acting_user, check_for_run, claim_for_run
from ..threads.base import ThreadMap

logger = logging.getLogger(__name__)

_MARK = "thread_ownership"


class Checked(str):
    """Which user was checked for which thread; outwards only the word "checked".

    A type of its own: whatever comes from a client or a checkpoint is a plain `str` at best, and does not count.
    """

    thread_id: str
    user_id: str | None

    @classmethod
    def of(cls, context: DeerFlowContext) -> Checked:
        mark = cls("checked")
        mark.thread_id, mark.user_id = context.thread_id, acting_user(context)
        return mark

    def covers(self, context: DeerFlowContext) -> bool:
        return self.thread_id == context.thread_id and self.user_id == acting_user(context)


class OwnershipState(AgentState[Any]):
    """The mark of this run's check: never checkpointed, so that a resumed run is checked anew."""

    thread_ownership: NotRequired[Annotated[Checked, UntrackedValue, PrivateStateAttr]]


class ThreadOwnershipMiddleware(AgentMiddleware[AgentState[Any], DeerFlowContext, Any]):
    """Claims the thread for the run's user before the agent starts, and touches it afterwards.

    A foreign thread raises `ThreadOwnershipError` before any model call; a run resumed after an interrupt is checked
    at its model and tool calls, and before it ends. `ContextError` when the checkpointer's thread is not the
    context's; a store that is away raises `StoreUnavailableError`, and when it is away at the touch only, there is a
    warning. Follows `config.user_thread_mapping` at run time.

    It belongs outermost, first in the list: a run that paused in an `after_agent` hook outside of it ends unchecked. It
    is the second line: with a checkpointer the input is stored before it runs. Claim before the graph is entered, as
    `Replica.start_run` and the gateway do (`deerflow_replica.threads.claim_for_run`).
    """

    state_schema = OwnershipState

    def __init__(self, threads: ThreadMap) -> None:
        super().__init__()
        self.tools = []
        self._threads = threads

    def before_agent(self, state: AgentState[Any], runtime: Runtime[DeerFlowContext]) -> dict[str, Any] | None:
        context = checked_context(runtime)
        if not is_enabled(context):
            return None
        self._threads.runner.call(claim_for_run(self._threads, context))
        return {_MARK: Checked.of(context)}

    async def abefore_agent(self, state: AgentState[Any], runtime: Runtime[DeerFlowContext]) -> dict[str, Any] | None:
        context = checked_context(runtime)
        if not is_enabled(context):
            return None
        await claim_for_run(self._threads, context)
        return {_MARK: Checked.of(context)}

    def after_agent(self, state: AgentState[Any], runtime: Runtime[DeerFlowContext]) -> None:
        context = resolve_context(runtime)
        self._threads.runner.call(end_run(self._threads, context, is_checked=is_marked(state, context)))

    async def aafter_agent(self, state: AgentState[Any], runtime: Runtime[DeerFlowContext]) -> None:
        context = resolve_context(runtime)
        await end_run(self._threads, context, is_checked=is_marked(state, context))

    def wrap_model_call(
        self,
        request: ModelRequest[DeerFlowContext],
        handler: Callable[[ModelRequest[DeerFlowContext]], ModelResponse[Any]],
    ) -> ModelResponse[Any]:
        self._check(request)
        return handler(request)

    async def awrap_model_call(
        self,
        request: ModelRequest[DeerFlowContext],
        handler: Callable[[ModelRequest[DeerFlowContext]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        await self._acheck(request)
        return await handler(request)

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]]
    ) -> ToolMessage | Command[Any]:
        self._check(request)
        return handler(request)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]
    ) -> ToolMessage | Command[Any]:
        await self._acheck(request)
        return await handler(request)

    def _check(self, request: ModelRequest[DeerFlowContext] | ToolCallRequest) -> None:
        context = unchecked_context(request.state, request.runtime)
        if context is not None:
            self._threads.runner.call(claim_for_run(self._threads, context))

    async def _acheck(self, request: ModelRequest[DeerFlowContext] | ToolCallRequest) -> None:
        context = unchecked_context(request.state, request.runtime)
        if context is not None:
            await claim_for_run(self._threads, context)


def checked_context(runtime: Any) -> DeerFlowContext:
    """The run's context; `ContextError` when the checkpointer works on another thread than it names."""
    context = resolve_context(runtime)
    execution = runtime.execution_info
    if execution is not None and execution.thread_id not in (None, context.thread_id):
        raise ContextError(
            f"the run's checkpoints are on thread {execution.thread_id!r}, its context names {context.thread_id!r}: "
            "pass the same thread_id in config['configurable'] and in the context"
        )
    return context


def unchecked_context(state: Any, runtime: Any) -> DeerFlowContext | None:
    """The context, if its user has yet to be checked in this run: a resumed run enters in the middle."""
    context = checked_context(runtime)
    return None if not is_enabled(context) or is_marked(state, context) else context


def is_marked(state: Any, context: DeerFlowContext) -> bool:
    mark = state.get(_MARK) if isinstance(state, dict) else None
    return type(mark) is Checked and mark.covers(context)


def is_enabled(context: DeerFlowContext) -> bool:
    return context.app_config.user_thread_mapping.enabled


async def end_run(threads: ThreadMap, context: DeerFlowContext, *, is_checked: bool) -> None:
    """A run that was resumed behind its last call has yet to be checked: it returns all that the thread has."""
    if not is_enabled(context):
        return
    if not is_checked:
        await check_for_run(threads, context)
    await touch_after_run(threads, context)


async def touch_after_run(threads: ThreadMap, context: DeerFlowContext) -> None:
    """A run that is done is no failure because its thread cannot be touched."""
    user_id = acting_user(context)
    if user_id is None:
        return
    try:
        await threads.touch(context.thread_id, user_id=user_id)
    except StoreUnavailableError as error:
        logger.warning("thread %r was not touched after its run: %s", context.thread_id, error)
