"""What the official client is told of the graph behind an assistant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph_sdk.client import LangGraphClient

from deerflow_replica import DeerFlowContext
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica
from gateway.serving import in_process, official

pytestmark = pytest.mark.anyio


class Asked(TypedDict):
    question: str


class Answered(TypedDict):
    answer: str


class Whole(Asked, Answered):
    messages: Annotated[list[AnyMessage], add_messages]
    _private: int


@dataclass
class Settings:
    model: str = "m"


class Opaque:
    """Nothing that JSON could say anything of."""


class OpaqueState(TypedDict):
    thing: Opaque


def _graph(state: Any, node: Any = lambda state: {}, **schemas: Any) -> Any:
    builder: Any = StateGraph(state, **schemas)
    builder.add_node("step", node)
    builder.add_edge(START, "step")
    builder.add_edge("step", END)
    return builder.compile()


@pytest.fixture
async def client(replica: Replica) -> AsyncIterator[LangGraphClient]:
    plain = _graph(Whole, input_schema=Asked, output_schema=Answered, context_schema=Settings)
    deer = _graph(Asked, context_schema=DeerFlowContext)
    graphs = {
        "plain": plain,
        "deer": deer,
        "bare": _graph(Asked),
        "opaque": _graph(OpaqueState),
        "nested": _graph(Whole, _graph(Whole, plain)),
    }
    async with official(create_app(replica, graphs)) as client:
        yield client


async def test_schemas_are_those_of_the_graph(client: LangGraphClient) -> None:
    made = await client.assistants.create("plain")
    told: Any = await client.assistants.get_schemas(made["assistant_id"])
    assert told == await client.assistants.get_schemas("plain")
    assert told["graph_id"] == "plain"
    properties = {name: set(told[f"{name}_schema"]["properties"]) for name in ("input", "output", "state", "context")}
    assert properties["input"] == {"question"}
    assert properties["output"] == {"answer"}
    assert properties["state"] >= {"question", "answer", "messages"}
    assert properties["context"] == {"model"}
    assert told["config_schema"] == told["context_schema"]


async def test_what_there_is_no_schema_of_is_null(client: LangGraphClient) -> None:
    bare: Any = await client.assistants.get_schemas("bare")
    assert (bare["config_schema"], bare["context_schema"]) == (None, None)
    assert bare["input_schema"]["properties"].keys() == {"question"}
    opaque: Any = await client.assistants.get_schemas("opaque")
    assert (opaque["input_schema"], opaque["output_schema"], opaque["state_schema"]) == (None, None, None)


async def test_of_a_replicas_context_a_client_says_the_agent(client: LangGraphClient) -> None:
    told: Any = await client.assistants.get_schemas("deer")
    assert told["context_schema"]["properties"].keys() == {"agent_name"}


async def test_a_graph_is_drawn(client: LangGraphClient) -> None:
    drawn = await client.assistants.get_graph("plain")
    assert [node["id"] for node in drawn["nodes"]] == ["__start__", "step", "__end__"]
    assert [(edge["source"], edge["target"]) for edge in drawn["edges"]] == [
        ("__start__", "step"),
        ("step", "__end__"),
    ]


@pytest.mark.parametrize(("xray", "depth"), [(False, 1), (0, 1), (1, 2), (True, 3), (5, 3)])
async def test_xray_shows_the_insides(client: LangGraphClient, xray: Any, depth: int) -> None:
    drawn = await client.assistants.get_graph("nested", xray=xray)
    steps = [node["id"] for node in drawn["nodes"] if "step" in node["id"]]
    assert [step.count("step") for step in steps] == [depth]


@pytest.mark.parametrize("xray", ["maybe", "-1", "9999", "1.5", "\u0661"])
async def test_xray_is_yes_no_or_a_depth(client: LangGraphClient, xray: str) -> None:
    answer = await client.http.client.get("/assistants/plain/graph", params={"xray": xray})
    assert answer.status_code == 422


async def test_subgraphs_by_namespace(client: LangGraphClient) -> None:
    assert await client.assistants.get_subgraphs("plain") == {}
    assert set(await client.assistants.get_subgraphs("nested")) == {"step"}
    whole = await client.assistants.get_subgraphs("nested", recurse=True)
    assert set(whole) == {"step", "step|step"}
    assert whole["step|step"]["input_schema"] == (await client.assistants.get_schemas("plain"))["input_schema"]
    assert set(await client.assistants.get_subgraphs("nested", "step|step", recurse=True)) == {"step|step"}
    assert await client.assistants.get_subgraphs("nested", "other") == {}


async def test_a_factory_that_fails_says_nothing(replica: Replica, caplog: pytest.LogCaptureFixture) -> None:
    def broken(config: Any) -> Any:
        raise RuntimeError("secret")

    async with in_process(create_app(replica, {"broken": broken})) as client:
        for what in ("graph", "schemas", "subgraphs"):
            answer = await client.get(f"/assistants/broken/{what}")
            assert (answer.status_code, answer.json()) == (500, {"detail": "Internal Server Error"})
    assert "secret" in caplog.text
