"""What may not be said of assistants is refused by the field's name, and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica
from gateway.serving import in_process

pytestmark = pytest.mark.anyio


@pytest.fixture
def app(replica: Replica, graphs: dict[str, Any]) -> Any:
    return create_app(replica, graphs)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"graph_id": 7}, "graph_id"),
    ({"graph_id": "nothing"}, "graph_id"),
    ({"graph_id": "\0"}, "graph_id"),
    ({"config": []}, "config"),
    ({"config": {"configurable": 1}}, "config.configurable"),
    ({"config": {"recursion_limit": 0}}, "config.recursion_limit"),
    ({"config": {"tags": "t"}}, "config.tags"),
    ({"context": "c"}, "context"),
    ({"metadata": []}, "metadata"),
    ({"metadata": {"k": "\0"}}, "metadata"),
    ({"metadata": {"n": 2**63}}, "cannot be stored"),
    ({"name": ""}, "name"),
    ({"name": 7}, "name"),
    ({"name": "\0"}, "name"),
    ({"description": "\0"}, "description"),
]
WRONG_AT_FIRST: list[tuple[dict[str, Any], str]] = [
    ({"graph_id": None}, "graph_id"),
    ({"assistant_id": "mine"}, "assistant_id"),
    ({"assistant_id": 7}, "assistant_id"),
    ({"if_exists": "replace"}, "if_exists"),
]


@pytest.mark.parametrize(("wrong", "named"), WRONG + WRONG_AT_FIRST, ids=str)
async def test_wrong_fields_are_named(app: Any, wrong: dict[str, Any], named: str) -> None:
    async with in_process(app) as client:
        answer = await client.post("/assistants", json={"graph_id": "agent", **wrong})
        assert answer.status_code == 422, answer.text
        assert named in answer.json()["detail"]
        assert (await client.post("/assistants/count", json={})).json() == 2


@pytest.mark.parametrize(("wrong", "named"), WRONG, ids=str)
async def test_a_wrong_change_changes_nothing(app: Any, wrong: dict[str, Any], named: str) -> None:
    async with in_process(app) as client:
        made = (await client.post("/assistants", json={"graph_id": "agent"})).json()
        path = f"/assistants/{made['assistant_id']}"
        answer = await client.patch(path, json={"description": "new", **wrong})
        assert answer.status_code == 422, answer.text
        assert named in answer.json()["detail"]
        assert (await client.get(path)).json() == made


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"limit": 1001},
        {"limit": "1"},
        {"offset": -1},
        {"offset": 2**40},
        {"sort_by": "user_id"},
        {"sort_order": "up"},
        {"select": ["user_id"]},
        {"name": "\0"},
        {"graph_id": "\0"},
        {"metadata": {"\0": 1}},
    ],
    ids=str,
)
async def test_a_search_that_cannot_be_is_refused(app: Any, wrong: dict[str, Any]) -> None:
    async with in_process(app) as client:
        assert (await client.post("/assistants/search", json=wrong)).status_code == 422
