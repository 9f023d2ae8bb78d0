"""The payload table: what arrives for what was published."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections import OrderedDict, UserDict, deque, namedtuple
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langgraph.types import Send
from pydantic import BaseModel, SecretBytes, SecretStr, computed_field

from ..errors import PayloadTooLargeError
from ..stream import StreamBridge, StreamEvent
from ._stream_common import Open, StreamFixtures, publish_all, read

_UUID = UUID("12345678-1234-5678-1234-567812345678")
_NOON = datetime(2026, 1, 2, 12, 0, 0, 5, tzinfo=UTC)
_Pair = namedtuple("_Pair", "left right")  # noqa: PYI024  # the untyped kind is a row of its own


class _Colour(Enum):
    RED = "red"
    NESTED = ("a", 1)


class _Level(IntEnum):
    HIGH = 3


class _Point(NamedTuple):
    x: int
    y: bytes


@dataclasses.dataclass
class _Step:
    name: str
    _hidden: int
    parts: set[int]


class _Model(BaseModel):
    name: str
    token: SecretStr
    when: datetime
    raw: bytes


class _Link(BaseModel):
    next: _Link | None = None


@dataclasses.dataclass
class _Node:
    next: Any = None


@dataclasses.dataclass
class _Unset:
    never: int = dataclasses.field(init=False)


class _Computed(BaseModel):
    @computed_field  # type: ignore[prop-decorator]  # the order that Pydantic's documentation gives
    @property
    def answer(self) -> int:
        raise KeyError("none")


class _UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class _Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


def _nested(levels: int, wrap: Callable[[Any], Any] = lambda value: [value], value: Any = None) -> Any:
    for _ in range(levels):
        value = wrap(value)
    return value


ARRIVES = [
    ("text", "text"),
    ("", ""),
    ("ünï\u2028cödé\n\"'\0", "ünï\u2028cödé\n\"'\0"),
    (True, True),
    (None, None),
    (1.5, 1.5),
    (-0.0, 0.0),
    (0, 0),
    (2**53 + 1, 2**53 + 1),
    (2**63 - 1, 2**63 - 1),
    (-(2**63), -(2**63)),
    ({"a": {"b": [1, {"c": None}]}}, {"a": {"b": [1, {"c": None}]}}),
    (OrderedDict(a=1), {"a": 1}),
    (UserDict({"a": 1}), {"a": 1}),
    ([1, [2]], [1, [2]]),
    ((1, (2,)), [1, [2]]),
    ({7}, [7]),
    (frozenset({7}), [7]),
    (deque([1, 2]), [1, 2]),
    ({2: "a", 1.5: "b", False: "c", None: "d"}, {"2": "a", "1.5": "b", "false": "c", "null": "d"}),
    ({1e16: 1}, {"1e+16": 1}),
    ({math.nan: 1}, {"NaN": 1}),
    ({10**30: 1}, {str(10**30): 1}),
    ({_UUID: 1}, {str(_UUID): 1}),
    ({date(2026, 1, 2): 1, _NOON: 2}, {"2026-01-02": 1, _NOON.isoformat(): 2}),
    ({_Colour.RED: 1, _Level.HIGH: 2}, {"red": 1, "3": 2}),
    (b"\xff\x00\x01", base64.b64encode(b"\xff\x00\x01").decode()),
    (b"a", "YQ=="),
    (bytearray(b"ab"), "YWI="),
    (memoryview(b"abc"), "YWJj"),
    (memoryview(b"a.b.c")[::2], "YWJj"),
    (_NOON, _NOON.isoformat()),
    (datetime(2026, 1, 2), "2026-01-02T00:00:00"),  # a naive one is a row too
    (date(2026, 1, 2), "2026-01-02"),
    (time(1, 2, 3), "01:02:03"),
    (timedelta(minutes=1, milliseconds=500), 60.5),
    (_UUID, str(_UUID)),
    (PurePosixPath("/a/b"), "/a/b"),
    (Decimal("1.10"), "1.10"),
    (ip_address("127.0.0.1"), "127.0.0.1"),
    (ip_address("::1"), "::1"),
    (_Colour.RED, "red"),
    (_Colour.NESTED, ["a", 1]),
    (_Level.HIGH, 3),
    (_Text("plain"), "plain"),
    (
        _Model(name="m", token=SecretStr("s3cret"), when=_NOON, raw=b"\xff"),
        {"name": "m", "token": "**********", "when": _NOON.isoformat(), "raw": "/w=="},
    ),
    (_Step("s", 1, {2}), {"name": "s", "_hidden": 1, "parts": [2]}),
    (_Point(1, b"a"), {"x": 1, "y": "YQ=="}),
    (_Pair(1, (2,)), {"left": 1, "right": [2]}),
    (SecretStr("s3cret"), "**********"),
    (SecretBytes(b"s3cret"), "**********"),
    (ValueError("bad\ud800"), {"error": "ValueError", "message": "bad\ufffd"}),
    (Send("node", {"k": _UUID}), {"node": "node", "args": {"k": str(_UUID)}}),
    (HumanMessage("hi", id="1"), HumanMessage("hi", id="1").model_dump()),
    (
        [AIMessageChunk(content="hi", id="1"), {"langgraph_step": 1}],
        [AIMessageChunk(content="hi", id="1").model_dump(), {"langgraph_step": 1}],
    ),
    (
        {"messages": [AIMessage([{"type": "text", "text": "x"}])]},
        {"messages": [AIMessage([{"type": "text", "text": "x"}]).model_dump()]},
    ),
    (math.nan, None),
    ([math.inf, -math.inf, {"x": math.nan}], [None, None, {"x": None}]),
    ("a\ud800b", "a\ufffdb"),
    ({"k\udfff": ["\ud800"]}, {"k\ufffd": ["\ufffd"]}),
    ([[[{"deep": {_UUID: (_Colour.RED, {b"x"})}}]]], [[[{"deep": {str(_UUID): ["red", ["eA=="]]}}]]]),
    (_nested(248), _nested(248)),
]

REFUSED = [
    (object(), "object"),
    ({"x": [object()]}, "object"),
    (2**63, "int"),
    (-(2**63) - 1, "int"),
    (10**400, "int"),
    (1j, "complex"),
    (len, "builtin"),
    (_Model, "Meta"),
    ((part for part in [1]), "generator"),
    ({(1, 2): 3}, "tuple"),
    ({b"x": 3}, "bytes"),
    ({1: "a", "1": "b"}, "'1'"),
    ({None: "a", "null": "b"}, "'null'"),
    (_nested(251), "list"),
    (_nested(251, _Node), "dict"),
    (_nested(125, value=_nested(126, _Node)), "dict"),
    (_nested(125, value={1, _nested(125, lambda value: (value,))}), "tuple"),
    (_Unset(), "_Unset"),
    (_Computed(), "_Computed"),
    (_UnspeakableError(), "_UnspeakableError"),
]


class PayloadContract(StreamFixtures):
    """The JSON value arrives, the same on every backend."""

    @pytest.mark.parametrize(("data", "arrives"), ARRIVES, ids=lambda value: type(value).__name__)
    async def test_data_arrive_as_the_table_says(
        self, bridge: StreamBridge, run_id: str, data: Any, arrives: Any
    ) -> None:
        await bridge.publish(run_id, "values", data)
        await bridge.publish(run_id, "nested", {"in": [data]})
        await bridge.flush()
        plain, nested = await read(bridge, run_id, items=2)
        assert isinstance(plain, StreamEvent)
        assert isinstance(nested, StreamEvent)
        assert plain.data == arrives
        assert nested.data == {"in": [arrives]}

    @pytest.mark.parametrize(("data", "named"), REFUSED, ids=lambda value: type(value).__name__)
    async def test_other_data_are_a_type_error_that_leaves_no_trace(
        self, bridge: StreamBridge, run_id: str, data: Any, named: str
    ) -> None:
        with pytest.raises(TypeError, match=f"(?s)'values'.*{run_id}.*{named}"):
            await bridge.publish(run_id, "values", data)
        assert not await bridge.stream_exists(run_id)
        await publish_all(bridge, run_id, 1)
        (first,) = await read(bridge, run_id, items=1)
        assert isinstance(first, StreamEvent)
        assert first.id.endswith("-0")

    async def test_as_many_levels_as_are_allowed(self, bridge: StreamBridge, run_id: str) -> None:
        every = [
            _nested(250),
            [_nested(249), {_UUID: 1}],
            _nested(250, _Node),
            _nested(250, lambda value: deque([value]), _NOON),
            _nested(125, value=_nested(125, _Node)),
        ]
        for data in every:
            await bridge.publish(run_id, "values", data)
        await bridge.publish_end(run_id)
        assert len(await read(bridge, run_id)) == len(every) + 1

    async def test_a_cycle_is_a_type_error(self, bridge: StreamBridge, run_id: str) -> None:
        cycle: dict[str, Any] = {}
        cycle["self"] = [cycle]
        with pytest.raises(TypeError, match="deeper"):
            await bridge.publish(run_id, "values", cycle)
        loop = _Link()
        loop.next = loop
        with pytest.raises(TypeError, match=run_id):
            await bridge.publish(run_id, "values", {"link": loop})

    async def test_data_are_encoded_in_the_call(self, bridge: StreamBridge, run_id: str) -> None:
        data = {"x": [1]}
        await bridge.publish(run_id, "values", data)
        data["x"].append(2)
        await bridge.publish_end(run_id)
        event, _ = await read(bridge, run_id)
        assert isinstance(event, StreamEvent)
        assert event.data == {"x": [1]}

    async def test_too_large_data_are_refused_with_size_and_limit(self, open_bridge: Open, run_id: str) -> None:
        bridge = await open_bridge(max_event_bytes=10)
        await bridge.publish(run_id, "e", "12345678")
        with pytest.raises(PayloadTooLargeError) as caught:
            await bridge.publish(run_id, "e", "123456789")
        assert (caught.value.size, caught.value.limit) == (11, 10)
        await bridge.publish_end(run_id)
        assert len(await read(bridge, run_id)) == 2
