"""Every route, as somebody else: what is another's is what does not exist. Generated from the route table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest

from deerflow_replica.gateway import create_app
from deerflow_replica.gateway.endpoint import Endpoint
from deerflow_replica.gateway.routes import ENDPOINTS
from deerflow_replica.replica import Replica
from deerflow_replica.stream import StreamEvent
from deerflow_replica.threads import ANY_USER
from gateway.serving import by_header, in_process

pytestmark = pytest.mark.anyio

RUN: dict[str, Any] = {"assistant_id": "agent", "input": {"count": 1}}
TAG = "alices-own"  # in everything that Alice has
ITEM = {"namespace": ["notes"], "key": "k"}

# What each route is asked. `{thread}`, `{run}` and `{assistant}` become ids: somebody else's, or of nothing.
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


def _name(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


ABOUT_SOMETHING = [endpoint for endpoint in ENDPOINTS if _name(endpoint) in NAMING]
ABOUT_A_RUN = [endpoint for endpoint in ENDPOINTS if "{run_id}" in endpoint.path]
OPENING = [endpoint for endpoint in ENDPOINTS if endpoint.opens_thread]
ABOUT_NOTHING = [endpoint for endpoint in ENDPOINTS if _name(endpoint) in OTHERS]


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
            _name(endpoint), ""
        )

    def body(self, endpoint: Endpoint) -> Any:
        return self._filled({**NAMING, **OTHERS}[_name(endpoint)])

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
                "input": {"count": 4000, "pause": 0.005},
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


@pytest.fixture
async def world(replica: Replica, graphs: dict[str, Any]) -> AsyncIterator[World]:
    yield World(replica, graphs)
    for run in await replica.runs.unfinished(user_id="alice") + await replica.runs.unfinished(user_id=None):
        await replica.runs.cancel(run.run_id)


def test_every_route_has_its_case() -> None:
    asked = {_name(endpoint) for endpoint in ENDPOINTS if not endpoint.public}
    assert asked == NAMING.keys() | OTHERS.keys()
    assert not NAMING.keys() & OTHERS.keys()


@pytest.mark.parametrize("stateless", [False, True], ids=["thread", "stateless"])
@pytest.mark.parametrize(("owner", "asker"), [("alice", "mallory"), ("alice", None), (None, "mallory")])
async def test_what_is_anothers_is_what_does_not_exist(
    world: World, owner: str | None, asker: str | None, stateless: bool
) -> None:
    theirs, nothing = await world.belongings(owner, stateless=stateless), Names.of_nothing()
    before = await world.all_of(theirs, owner)
    async with world.as_user(asker) as client:
        for endpoint in ABOUT_SOMETHING:
            foreign, missing = [await ask(client, endpoint, names) for names in (theirs, nothing)]
            assert (foreign.status_code, missing.status_code) == (404, 404), _name(endpoint)
            assert theirs.without(foreign.text) == nothing.without(missing.text), _name(endpoint)
            assert set(foreign.headers) == set(missing.headers), _name(endpoint)
            if endpoint.opens_thread:
                taken = await ask(client, endpoint, theirs, if_not_exists="create")
                assert (taken.status_code, taken.text) == (404, foreign.text), _name(endpoint)
            if endpoint.method != "GET":
                await world.goes_on(theirs.run)
            assert await world.all_of(theirs, owner) == before, _name(endpoint)
    assert await world.replica.threads.count("mallory") == 0


@pytest.mark.parametrize("asker", ["mallory", None])
async def test_a_route_that_names_nothing_shows_nothing_of_anothers(world: World, asker: str | None) -> None:
    theirs = [await world.belongings("alice", stateless=stateless) for stateless in (False, True)]
    before = [await world.all_of(names, "alice") for names in theirs]
    async with world.as_user(asker) as client:
        for endpoint in ABOUT_NOTHING:
            if asker is None and "/store/" in endpoint.path:
                continue  # a gateway that asks nobody has one store for all
            answer = await ask(client, endpoint, Names.of_nothing())
            assert answer.status_code < 300, (_name(endpoint), answer.text)
            assert TAG not in answer.text, _name(endpoint)
            for names in theirs:
                assert names.without(answer.text) == answer.text, _name(endpoint)
            assert [await world.all_of(names, "alice") for names in theirs] == before, _name(endpoint)


async def test_a_run_is_found_under_its_own_thread_only(world: World) -> None:
    names = await world.belongings("alice", stateless=False)
    before = await world.all_of(names, "alice")
    async with world.as_user("alice") as alice:
        other: str = (await alice.post("/threads", json={})).json()["thread_id"]
        wrong = Names(other, names.run, names.checkpoint, names.assistant)
        for endpoint in ABOUT_A_RUN:
            assert (await ask(alice, endpoint, wrong)).status_code == 404, _name(endpoint)
        assert (await alice.post("/runs/cancel", json={"thread_id": other, "run_ids": [names.run]})).status_code == 404
    await world.goes_on(names.run)
    assert await world.all_of(names, "alice") == before


async def test_a_stranger_gets_401_everywhere(replica: Replica, graphs: dict[str, Any]) -> None:
    async with in_process(create_app(replica, graphs, authenticate=by_header)) as stranger:
        for endpoint in ENDPOINTS:
            if not endpoint.public:
                answer = await stranger.request(endpoint.method, Names.of_nothing().path(endpoint), content=b"{")
                assert (answer.status_code, answer.json()) == (401, {"detail": "Unauthorized"}), _name(endpoint)


@pytest.mark.parametrize("owner", ["alice", None])
@pytest.mark.parametrize("stateless", [False, True], ids=["thread", "stateless"])
@pytest.mark.parametrize("if_exists", ["raise", "do_nothing"])
async def test_an_id_that_is_somebody_elses_is_taken(
    world: World, if_exists: str, owner: str | None, stateless: bool
) -> None:
    names = await world.belongings(owner, stateless=stateless)
    before = await world.all_of(names, owner)
    async with world.as_user("mallory") as mallory:
        answer = await mallory.post("/threads", json={"thread_id": names.thread, "if_exists": if_exists})
    assert answer.status_code == 409
    assert await world.all_of(names, owner) == before


async def test_a_run_may_take_a_thread_that_nobody_has(world: World) -> None:
    for endpoint in OPENING:
        nothing = Names.of_nothing()
        async with world.as_user("mallory") as mallory:
            assert (await ask(mallory, endpoint, nothing)).status_code == 404
            assert await world.replica.threads.owner_of(nothing.thread) is None
            assert (await ask(mallory, endpoint, nothing, if_not_exists="create")).status_code == 200
        assert await world.replica.threads.owner_of(nothing.thread) == "mallory"
        async with world.as_user(None) as nobody:
            assert (await ask(nobody, endpoint, nothing, if_not_exists="create")).status_code == 404


async def test_cancelling_by_status_reaches_ones_own_only(world: World) -> None:
    theirs = [await world.belongings("alice", stateless=stateless) for stateless in (False, True)]
    before = [await world.all_of(names, "alice") for names in theirs]
    for asker in ("mallory", None):
        async with world.as_user(asker) as client:
            answer = await client.post("/runs/cancel", json={"status": "all"})
            assert (answer.status_code, answer.json()) == (404, {"detail": "Run not found"})
    assert [await world.all_of(names, "alice") for names in theirs] == before
    async with world.as_user("alice") as alice:
        assert (await alice.post("/runs/cancel", json={"status": "running"})).status_code == 204
        for names in theirs:
            await alice.get(f"/threads/{names.thread}/runs/{names.run}/join")
            ended = await alice.get(f"/threads/{names.thread}/runs/{names.run}")
            assert ended.json()["status"] == "interrupted"


async def test_an_assistant_that_is_anothers_runs_nothing(world: World) -> None:
    names, nothing = await world.belongings("alice", stateless=False), Names.of_nothing()
    async with world.as_user("mallory") as mallory:
        foreign = await mallory.post("/runs", json={**RUN, "assistant_id": names.assistant})
        missing = await mallory.post("/runs", json={**RUN, "assistant_id": nothing.assistant})
    assert (foreign.status_code, missing.status_code) == (422, 422)
    assert names.without(foreign.text) == nothing.without(missing.text)


async def test_what_a_client_says_of_itself_never_reaches_the_run(world: World) -> None:
    names = await world.belongings("alice", stateless=False)
    before = await world.all_of(names, "alice")
    theirs = {"thread_id": names.thread, "user_id": "alice", "langgraph_auth_user_id": "alice", "__pregel_x": 1}
    sneaky = {**RUN, "config": {"configurable": {**theirs, "mine": 1}}, "checkpoint": theirs, "metadata": theirs}
    async with world.as_user("mallory") as mallory:
        own: str = (await mallory.post("/threads", json={})).json()["thread_id"]
        assert (await mallory.post(f"/threads/{own}/runs/wait", json=sneaky)).json()["total"] == 1
    assert await world.all_of(names, "alice") == before


async def test_a_thread_that_was_only_claimed_is_there_for_its_owner(world: World) -> None:
    thread_id = str(uuid4())
    await world.replica.threads.claim(thread_id, "alice")
    async with world.as_user("alice") as alice, world.as_user("mallory") as mallory:
        assert (await alice.get(f"/threads/{thread_id}")).json()["thread_id"] == thread_id
        assert [row["thread_id"] for row in (await alice.post("/threads/search", json={})).json()] == [thread_id]
        assert (await mallory.get(f"/threads/{thread_id}")).status_code == 404
        tagged = await alice.patch(f"/threads/{thread_id}", json={"metadata": {"a": 1}})
        assert tagged.json()["metadata"] == {"a": 1}
        done = await alice.post(f"/threads/{thread_id}/runs/wait", json=RUN)
        assert done.json()["total"] == 1


async def test_an_expired_thread_is_gone_with_all_it_had(world: World) -> None:
    names = await world.belongings("alice", stateless=False)
    await world.replica.runs.cancel(names.run)
    async with world.as_user("alice") as alice, world.as_user("mallory") as mallory:
        await alice.get(f"/threads/{names.thread}/runs/{names.run}/join")
        await world.replica.threads.delete(names.thread, user_id="alice")  # as its expiry would
        assert (await alice.get(f"/threads/{names.thread}")).status_code == 404
        assert (await mallory.post("/threads", json={"thread_id": names.thread})).status_code == 409
        anew = await alice.post("/threads", json={"thread_id": names.thread})
        assert (anew.status_code, anew.json()["metadata"], anew.json()["values"]) == (200, {}, None)
        assert (await alice.get(f"/threads/{names.thread}/runs")).json() == []
        assert (await alice.get(f"/threads/{names.thread}/state")).json()["values"] == {}
