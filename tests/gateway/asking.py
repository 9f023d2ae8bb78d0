"""What each route is asked, and users who ask it of each other's things."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

from deerflow_replica.gateway import create_app
from deerflow_replica.gateway.endpoint import Endpoint
from deerflow_replica.gateway.routes import ENDPOINTS
from deerflow_replica.replica import Replica
from deerflow_replica.stream import StreamEvent
from deerflow_replica.threads import ANY_USER
from gateway.serving import by_header, in_process

RUN: dict[str, Any] = {"assistant_id": "agent", "input": {"count": 1}}
TAG = "alices-own"  # in everything that Alice has
ITEM = {"namespace": ["notes"], "key": "k"}

# What each route is asked. `{thread}` and `{run}` become ids: somebody else's, or of nothing.
NAMING: dict[str, Any] = {
    "GET /threads/{thread_id}": None,
    "PATCH /threads/{thread_id}": {"metadata": {"stolen": True}},
    "DELETE /threads/{thread_id}": None,
    "POST /threads/{thread_id}/copy": None,
    "GET /threads/{thread_id}/state": None,
    "POST /threads/{thread_id}/state": {"values": {"total": 666}, "as_node": "count"},
    "GET /threads/{thread_id}/state/{checkpoint_id}": None,
    "POST /threads/{thread_id}/state/checkpoint": {"checkpoint": {"thread_id": "{thread}", "checkpoint_ns": ""}},
    "GET /threads/{thread_id}/history": None,
    "POST /threads/{thread_id}/history": {"limit": 5},
    "GET /threads/{thread_id}/runs": None,
    "POST /threads/{thread_id}/runs": RUN,
    "POST /threads/{thread_id}/runs/stream": RUN,
    "POST /threads/{thread_id}/runs/wait": RUN,
    "GET /threads/{thread_id}/runs/{run_id}": None,
    "DELETE /threads/{thread_id}/runs/{run_id}": None,
    "GET /threads/{thread_id}/runs/{run_id}/join": None,
    "GET /threads/{thread_id}/runs/{run_id}/stream": None,
    "POST /threads/{thread_id}/runs/{run_id}/cancel": None,
    "POST /runs/cancel": {"thread_id": "{thread}", "run_ids": ["{run}"]},
    "GET /assistants/{assistant_id}": None,
    "PATCH /assistants/{assistant_id}": {"name": "stolen"},
    "DELETE /assistants/{assistant_id}": None,
    "GET /assistants/{assistant_id}/graph": None,
    "GET /assistants/{assistant_id}/schemas": None,
    "GET /assistants/{assistant_id}/subgraphs": None,
    "GET /assistants/{assistant_id}/subgraphs/{namespace}": None,
}
OTHERS: dict[str, Any] = {
    "POST /threads": {},
    "POST /threads/search": {"limit": 1000},
    "POST /threads/count": {},
    "POST /threads/prune": {"thread_ids": ["{thread}"]},
    "POST /runs": RUN,
    "POST /runs/stream": RUN,
    "POST /runs/wait": RUN,
    "POST /assistants": {"graph_id": "agent"},
    "POST /assistants/search": {"limit": 1000},
    "POST /assistants/count": {},
    "PUT /store/items": {**ITEM, "value": {"mine": 1}},
    "GET /store/items": None,
    "DELETE /store/items": ITEM,
    "POST /store/items/search": {"namespace_prefix": []},
    "POST /store/namespaces": {},
}
QUERIES = {"GET /store/items": "?namespace=notes&key=k"}


def name_of(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


ABOUT_SOMETHING = [endpoint for endpoint in ENDPOINTS if name_of(endpoint) in NAMING]
ABOUT_A_RUN = [endpoint for endpoint in ENDPOINTS if "{run_id}" in endpoint.path]
OPENING = [endpoint for endpoint in ENDPOINTS if endpoint.opens_thread]
ABOUT_NOTHING = [endpoint for endpoint in ENDPOINTS if name_of(endpoint) in OTHERS]


@dataclass(frozen=True)
class Names:
    """One user's thread, run, checkpoint and assistant, or those of nobody."""

    thread: str
    run: str
    checkpoint: str
    assistant: str

    @classmethod
    def of_nothing(cls) -> Names:
        return cls(*(str(uuid4()) for _ in range(4)))

    def path(self, endpoint: Endpoint) -> str:
        ids = {"thread_id": self.thread, "run_id": self.run, "checkpoint_id": self.checkpoint}
        return endpoint.path.format(**ids, assistant_id=self.assistant, namespace="x") + QUERIES.get(
            name_of(endpoint), ""
        )

    def body(self, endpoint: Endpoint) -> Any:
        return self._filled({**NAMING, **OTHERS}[name_of(endpoint)])

    def _filled(self, value: Any) -> Any:
        match value:
            case str():
                return value.replace("{thread}", self.thread).replace("{run}", self.run)
            case list():
                return [self._filled(one) for one in value]
            case dict():
                return {key: self._filled(one) for key, one in value.items()}
        return value

    def without(self, text: str) -> str:
        """What an answer says beside the ids that were asked for."""
        for own in (self.thread, self.run, self.checkpoint, self.assistant):
            text = text.replace(own, "...")
        return text


async def ask(client: httpx.AsyncClient, endpoint: Endpoint, names: Names, **more: Any) -> httpx.Response:
    body = names.body(endpoint)
    asked: dict[str, Any] = {} if body is None else {"json": {**body, **more}}
    return await client.request(endpoint.method, names.path(endpoint), **asked)


class World:
    """One replica with an app that asks who you are and one that asks nobody."""

    def __init__(self, replica: Replica, graphs: Mapping[str, Any]) -> None:
        self.replica = replica
        self._known = create_app(replica, graphs, authenticate=by_header)
        self._open = create_app(replica, graphs)

    def as_user(self, user: str | None) -> httpx.AsyncClient:
        return in_process(self._open) if user is None else in_process(self._known, user)

    async def belongings(self, user: str | None, *, stateless: bool) -> Names:
        """A thread with a state and a run that goes on, and an assistant."""
        async with self.as_user(user) as client:
            place = "" if stateless else f"/threads/{await self._thread(client)}"
            slow = {
                **RUN,
                "input": {"count": 40_000, "pause": 0.005},
                "metadata": {"tag": TAG},
                "stream_mode": "custom",
            }
            made = (await client.post(f"{place}/runs", json=slow)).json()
            assistant = await client.post("/assistants", json={"graph_id": "agent", "metadata": {"tag": TAG}})
            await client.put("/store/items", json={**ITEM, "value": {"tag": TAG}})
        await self.goes_on(made["run_id"])
        checkpoint, _ = (await self._checkpoints(made["thread_id"]))[0]
        return Names(made["thread_id"], made["run_id"], checkpoint, assistant.json()["assistant_id"])

    async def goes_on(self, run_id: str) -> None:
        """The run publishes what its graph says, now."""
        events = self.replica.bridge.subscribe(run_id)
        async with aclosing(events):
            async for item in events:
                assert isinstance(item, StreamEvent), item
                if item.event == "custom":
                    return

    async def _thread(self, client: httpx.AsyncClient) -> str:
        made = await client.post("/threads", json={"metadata": {"tag": TAG}})
        thread_id: str = made.json()["thread_id"]
        done = await client.post(f"/threads/{thread_id}/runs/wait", json=RUN)
        assert done.json()["total"] == 1
        return thread_id

    async def _checkpoints(self, thread_id: str) -> list[tuple[str, Any]]:
        config: Any = {"configurable": {"thread_id": thread_id}}
        found = [saved.checkpoint async for saved in self.replica.checkpointer.alist(config)]
        return [(saved["id"], saved["channel_values"]) for saved in found]

    async def all_of(self, names: Names, user: str | None) -> list[Any]:
        """Everything that is stored of it, whatever routes say."""
        runs = self.replica.runs
        async with self.as_user(user) as client:
            assistant = (await client.get(f"/assistants/{names.assistant}")).text
            item = (await client.get("/store/items?namespace=notes&key=k")).text
        return [
            await runs.get_thread(names.thread),
            await runs.list(names.thread),
            await self.replica.threads.get(names.thread, user_id=ANY_USER),
            await self._checkpoints(names.thread),
            assistant,
            item,
        ]
