"""Every route, as somebody else: what is another's is what does not exist. Generated from the route table."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage

from deerflow_replica.gateway import create_app
from deerflow_replica.gateway.routes import ENDPOINTS
from deerflow_replica.replica import Replica
from gateway.asking import (
    ABOUT_A_RUN,
    ABOUT_NOTHING,
    ABOUT_SOMETHING,
    NAMING,
    OPENING,
    OTHERS,
    RUN,
    TAG,
    Names,
    World,
    ask,
    name_of,
)
from gateway.serving import by_header, in_process
from scripted_models import scripted

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(replica: Replica, graphs: dict[str, Any]) -> AsyncIterator[World]:
    yield World(replica, graphs)
    for run in await replica.runs.unfinished(user_id="alice") + await replica.runs.unfinished(user_id=None):
        await replica.runs.cancel(run.run_id)


def test_every_route_has_its_case() -> None:
    asked = {name_of(endpoint) for endpoint in ENDPOINTS if not endpoint.public}
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
            assert (foreign.status_code, missing.status_code) == (404, 404), name_of(endpoint)
            assert theirs.without(foreign.text) == nothing.without(missing.text), name_of(endpoint)
            assert set(foreign.headers) == set(missing.headers), name_of(endpoint)
            assert foreign.headers["x-replica-id"] == world.replica.replica_id, name_of(endpoint)
            if endpoint.opens_thread:
                taken = await ask(client, endpoint, theirs, if_not_exists="create")
                assert (taken.status_code, taken.text) == (404, foreign.text), name_of(endpoint)
            if endpoint.method != "GET":
                await world.goes_on(theirs.run)
            assert await world.all_of(theirs, owner) == before, name_of(endpoint)
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
            assert answer.status_code < 300, (name_of(endpoint), answer.text)
            assert TAG not in answer.text, name_of(endpoint)
            for names in theirs:
                assert names.without(answer.text) == answer.text, name_of(endpoint)
            assert [await world.all_of(names, "alice") for names in theirs] == before, name_of(endpoint)


async def test_a_run_is_found_under_its_own_thread_only(world: World) -> None:
    names = await world.belongings("alice", stateless=False)
    before = await world.all_of(names, "alice")
    async with world.as_user("alice") as alice:
        other: str = (await alice.post("/threads", json={})).json()["thread_id"]
        wrong = Names(other, names.run, names.checkpoint, names.assistant)
        for endpoint in ABOUT_A_RUN:
            assert (await ask(alice, endpoint, wrong)).status_code == 404, name_of(endpoint)
        assert (await alice.post("/runs/cancel", json={"thread_id": other, "run_ids": [names.run]})).status_code == 404
    await world.goes_on(names.run)
    assert await world.all_of(names, "alice") == before


async def test_a_stranger_gets_401_everywhere(replica: Replica, graphs: dict[str, Any]) -> None:
    async with in_process(create_app(replica, graphs, authenticate=by_header)) as stranger:
        for endpoint in ENDPOINTS:
            if not endpoint.public:
                answer = await stranger.request(endpoint.method, Names.of_nothing().path(endpoint), content=b"{")
                assert (answer.status_code, answer.json()) == (401, {"detail": "Unauthorized"}), name_of(endpoint)


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


@pytest.mark.parametrize("asker", ["mallory", None])
async def test_a_context_makes_nobody_somebody_else(replica: Replica, asker: str | None) -> None:
    def agent(replica: Replica) -> Any:
        return create_agent(scripted(AIMessage("hi")), [], middleware=replica.middleware())  # takes any context

    app = create_app(replica, {"agent": agent}, authenticate=by_header if asker else None)
    async with in_process(app, asker) as client:
        thread_id: str = (await client.post("/threads", json={})).json()["thread_id"]
        question = {"messages": [{"role": "user", "content": "x"}]}
        body = {"assistant_id": "agent", "input": question, "context": {"user_id": "alice"}}
        done = await client.post(f"/threads/{thread_id}/runs/wait", json=body)
        assert done.json()["messages"][-1]["content"] == "hi"
    assert await replica.threads.owner_of(thread_id) == asker
    assert await replica.threads.count("alice") == 0


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
