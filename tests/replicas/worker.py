"""A replica in a process of its own: runs one graph that ticks, and says on its output what it does."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph

from deerflow_replica.config import AppConfig
from deerflow_replica.replica import open_replica
from deerflow_replica.runs.request import RunRequest, opened


class State(TypedDict, total=False):
    ticks: int
    until: int


async def tick(state: State) -> State:
    """One superstep: one event and, with a checkpointer, one checkpoint."""
    number = state.get("ticks", 0) + 1
    get_stream_writer()({"tick": number})
    await asyncio.sleep(0.02)
    return {"ticks": number}


def ticking(**options: Any) -> Any:
    """A graph that ticks `until` times."""
    builder = StateGraph(State)
    builder.add_node("tick", tick)
    builder.add_edge(START, "tick")
    builder.add_conditional_edges("tick", lambda state: "tick" if state["ticks"] < state["until"] else "__end__")
    return builder.compile(**options)


def queued(graph: Any, run_id: str, thread_id: str, until: int) -> RunRequest:
    """A run as a gateway asks for it: any replica that knows the assistant may execute it."""
    return RunRequest(
        open_graph=opened(graph),
        input={"ticks": 0, "until": until},
        thread_id=thread_id,
        run_id=run_id,
        assistant_id="ticking",
        stream_mode="custom",
        config={"configurable": {"thread_id": thread_id, "run_id": run_id}},
        kwargs={"until": until},
    )


async def main(config: AppConfig, thread_id: str, until: int, waiting: int = 0) -> None:
    """Says the id of its run once `waiting` more wait behind it, `q0` and so on, and later its status."""
    async with open_replica(config) as replica:
        run = await replica.start_run(
            ticking(checkpointer=replica.checkpointer),
            {"until": until},
            thread_id=thread_id,
            user_id="u",
            stream_mode="custom",
            config={"recursion_limit": 1_000_000},
        )
        for number in range(waiting):
            await replica._manager.start(queued(ticking(checkpointer=replica.checkpointer), f"q{number}", thread_id, 3))
        sys.stdout.write(f"{run.run_id}\n")
        sys.stdout.flush()
        sys.stdout.write(f"{await run.wait()}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(AppConfig.from_mapping(json.loads(sys.argv[1])), sys.argv[2], *map(int, sys.argv[3:])))
