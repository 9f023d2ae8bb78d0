"""The page on streams: what it shows runs, and what it lists is all there is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import CodeType
from typing import Any

import httpx
import pytest

from deerflow_replica.stream import RedisStreamBridge
from deerflow_replica.stream.base import StreamSettings
from pages import blocks

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[2] / "docs" / "stream.md").read_text(encoding="utf-8")


@pytest.fixture
def programs(redis_url: str, key_prefix: str) -> list[CodeType]:
    mine = f"redis_url={redis_url!r}, key_prefix={key_prefix!r}"
    return list(blocks("stream.md", {'redis_url="redis://localhost:6379/0"': mine}))


def test_the_first_program_runs(programs: list[CodeType], capsys: pytest.CaptureFixture[str]) -> None:
    eval(programs[0], {})  # noqa: S307  # our own page
    event, end = capsys.readouterr().out.splitlines()
    assert event.endswith("-0 messages {'content': 'Hello'}")
    assert end.startswith("over:")
    assert "__end__" in end


async def test_the_second_one_serves_the_first_ones_events(programs: list[CodeType]) -> None:
    names: dict[str, Any] = {}
    eval(programs[1], names)  # noqa: S307  # our own page
    async with names["bridge"] as bridge, client_of(names["app"]) as client:
        await bridge.publish("run-1", "messages", {"content": "Hello"})
        await bridge.publish_end("run-1")
        whole = (await client.get("/runs/run-1/events")).text
        assert re.fullmatch(
            r'event: messages\ndata: {"content":"Hello"}\nid: \d+-0\n\nevent: end\ndata: null\n\n', whole
        )
        last_id = re.findall(r"^id: (.*)$", whole, re.MULTILINE)[-1]
        rest = await client.get("/runs/run-1/events", headers={"Last-Event-ID": last_id})
        assert rest.text == "event: end\ndata: null\n\n"
        assert rest.headers["content-type"].startswith("text/event-stream")
        assert (await client.get("/runs/nothing/events")).status_code == 404


def client_of(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")


def test_every_keyword_is_listed_with_its_default() -> None:
    keywords = {name: made.default for name, made in inspect.signature(RedisStreamBridge).parameters.items()}
    keywords |= {name: made.default for name, made in inspect.signature(StreamSettings).parameters.items()}
    listed = dict(re.findall(r"`(\w+)` \(([^)]*)\)", PAGE.partition("## Options")[2]))
    assert {*listed, "redis_url", "client", "options"} == set(keywords)
    for name, text in listed.items():
        assert text in (f'`"{keywords[name]}"`', f"`{keywords[name]}`", *_in_figures(keywords[name])), name


def _in_figures(number: Any) -> list[str]:
    return (
        [] if isinstance(number, str) or number is None else [f"{number:g}", f"{number:,}", f"{number / 2**20:g} MiB"]
    )
