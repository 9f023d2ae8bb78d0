"""The graphs that an app serves: compiled ones, and factories that make them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, Any, cast

from langgraph.pregel import Pregel

from ..context import DeerFlowContext

if TYPE_CHECKING:
    from ..replica import Replica

Graph = Pregel[Any, Any, Any, Any]
Factory = Callable[..., Any]
GraphSource = Graph | Factory

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class ServedGraph:
    """A graph by name: compiled, or from a factory `f()`, `f(config)`, `f(replica)` or `f(replica, config)`.

    A factory is plain, async or an async context manager. It is called for each run, but `f(replica)` once, unless it
    is a context manager.
    """

    def __init__(self, name: str, source: GraphSource) -> None:
        self.name = name
        self._factory = _factory(name, source)
        self._takes = _parameters(self._factory)
        self._kept: Graph | None = None
        self._making = asyncio.Lock()

    @asynccontextmanager
    async def opened(self, replica: Replica, config: Mapping[str, Any]) -> AsyncIterator[Graph]:
        """The compiled graph with the replica's checkpointer, and its store unless the graph brought its own."""
        async with AsyncExitStack() as stack:
            yield bound(await self._graph(replica, config, stack), replica)

    async def _graph(self, replica: Replica, config: Mapping[str, Any], stack: AsyncExitStack) -> Graph:
        if self._takes != ("replica",):
            return await self._made(replica, config, stack)
        async with self._making:
            return self._kept or await self._made(replica, config, stack)

    async def _made(self, replica: Replica, config: Mapping[str, Any], stack: AsyncExitStack) -> Graph:
        given = {"replica": replica, "config": dict(config)}
        made = self._factory(*(given[parameter] for parameter in self._takes))
        if inspect.isawaitable(made):
            made = await made
        if isinstance(made, AbstractAsyncContextManager):
            return self._checked(await stack.enter_async_context(made))
        graph = self._checked(made)
        if self._takes == ("replica",):
            self._kept = graph
        return graph

    def _checked(self, made: Any) -> Graph:
        if not isinstance(made, Pregel):
            raise TypeError(f"the factory of graph {self.name!r} made a {type(made).__name__}, not a compiled graph")
        return made


def bound(graph: Graph, replica: Replica) -> Graph:
    store = replica.store if graph.store is None else graph.store
    return graph.copy(update={"checkpointer": replica.checkpointer, "store": store})


def context_of(
    graph: Graph, replica: Replica, given: Mapping[str, Any] | None, *, thread_id: str, user_id: str | None, run_id: str
) -> Any:
    """What a run gets as its context: the replica's own for a schema of that kind, else the body's as it is."""
    schema = graph.context_schema
    if not (isinstance(schema, type) and issubclass(schema, DeerFlowContext)):
        return given
    agent_name = (given or {}).get("agent_name")
    own = replica.context(thread_id=thread_id, user_id=user_id, run_id=run_id, agent_name=agent_name)
    if schema is DeerFlowContext:
        return own
    return schema(own.app_config, own.thread_id, own.agent_name, own.user_id, own.run_id)


def _factory(name: str, source: Any) -> Factory:
    """`TypeError` for what is neither a compiled graph nor a factory of one."""
    if isinstance(source, Pregel):
        return lambda: source
    if callable(source):
        return cast(Factory, source)
    hint = "call its compile()" if hasattr(source, "compile") else "a compiled graph or a factory of one is wanted"
    raise TypeError(f"graph {name!r} is a {type(source).__name__}: {hint}")


def _is_for_us(parameter: inspect.Parameter) -> bool:
    wanted = parameter.default is parameter.empty or parameter.name in ("replica", "config")
    return wanted and parameter.kind in _POSITIONAL


def _parameters(factory: Factory) -> tuple[str, ...]:
    """What to pass, in order: `replica` goes to a parameter of that name, the config to the other one.

    A parameter with a default keeps it, unless its name asks for one of the two.
    """
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # a builtin without a signature
        return ()
    names = [parameter.name for parameter in takewhile(_is_for_us, parameters)]
    if not names:
        return ()
    if names[0] == "replica":
        return ("replica", "config")[: len(names)]
    return ("config",)
