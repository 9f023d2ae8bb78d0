"""What an `authenticate` hook may return, and what is said of the rest."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from deerflow_replica import AppConfig
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import Replica, open_replica
from gateway.serving import IN_MEMORY, in_process

pytestmark = pytest.mark.anyio

USERS = ["é" * 255, "a:b", "{x}", "*", " ", "\u00fc", "u\u0308", "../..", "a%b_c", "null"]

HUSH = "s3cret"


def _kind(wrong: object) -> str:
    return type(wrong).__name__


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "x" * 256,
        f"{HUSH}\0",
        f"{HUSH}\n",
        "\ud800",
        HUSH.encode(),
        7,
        True,
        {"id": HUSH},
        [HUSH],
        object(),
    ],
    ids=_kind,
)
async def test_what_is_no_user_id_is_told_to_the_log_and_named_without_secrets(
    replica: Replica, graphs: dict[str, Any], wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with in_process(create_app(replica, graphs, authenticate=lambda request: wrong)) as client:
        with caplog.at_level(logging.ERROR):
            answer = await client.post("/threads", json={})
    assert answer.status_code == 500
    assert answer.json()["detail"].startswith("authenticate returned no valid user id: user_id must")
    assert HUSH not in answer.text
    [record] = caplog.records
    assert type(wrong).__name__ in record.getMessage()
    assert HUSH not in record.getMessage()


@pytest.mark.parametrize("user", USERS, ids=ascii)
async def test_any_other_text_is_a_user_of_its_own(replica: Replica, graphs: dict[str, Any], user: str) -> None:
    answers = iter([user, user, "another", "another", user])
    async with in_process(create_app(replica, graphs, authenticate=lambda request: next(answers))) as client:
        made = (await client.post("/threads", json={})).json()
        assert (await client.get(f"/threads/{made['thread_id']}")).json() == made
        assert (await client.get(f"/threads/{made['thread_id']}")).status_code == 404
        assert (await client.post("/threads/search", json={})).json() == []
        done = await client.post(
            f"/threads/{made['thread_id']}/runs/wait", json={"assistant_id": "agent", "input": {"count": 1}}
        )
        assert done.json()["total"] == 1
    assert await replica.threads.owner_of(made["thread_id"]) == user


async def _threads_of_nobody(graphs: dict[str, Any], anonymous: str) -> tuple[int, list[str | None]]:
    """Without a hook: what making a thread answers, and whose the threads are after a run."""
    config = {**IN_MEMORY, "user_thread_mapping": {"anonymous": anonymous, "anonymous_user_id": "everybody"}}
    async with (
        open_replica(AppConfig.from_mapping(config)) as replica,
        in_process(create_app(replica, graphs)) as client,
    ):
        made = await client.post("/threads", json={})
        if made.status_code != 200:
            return made.status_code, []
        thread_id = made.json()["thread_id"]
        run = {"assistant_id": "agent", "input": {"count": 1}}
        assert (await client.post(f"/threads/{thread_id}/runs/wait", json=run)).json()["total"] == 1
        found = (await client.post("/threads/search", json={})).json()
        return 200, [await replica.threads.owner_of(one["thread_id"]) for one in found]


async def test_nobody_is_who_the_configuration_says(graphs: dict[str, Any]) -> None:
    assert await _threads_of_nobody(graphs, "open") == (200, [None])
    assert await _threads_of_nobody(graphs, "user") == (200, ["everybody"])
    assert await _threads_of_nobody(graphs, "deny") == (401, [])
