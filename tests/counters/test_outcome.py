"""What an exception counts as."""

from __future__ import annotations

import asyncio
import concurrent.futures
from types import SimpleNamespace
from typing import Any

import httpx
import langchain_core.exceptions
import pytest
from langchain.agents.structured_output import MultipleStructuredOutputsError, StructuredOutputValidationError
from langchain_core.messages import AIMessage
from langgraph import errors as langgraph_errors
from langgraph.errors import GraphBubbleUp, GraphInterrupt, GraphRecursionError, ParentCommand
from langgraph.types import Command

from deerflow_replica.counters import Classification, classify


class StatusError(Exception):
    def __init__(self, status_code: Any) -> None:
        self.status_code = status_code


class AnyError(Exception):
    """Carries what a driver's exception may carry."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class MuteError(Exception):
    @property
    def response(self) -> Any:
        raise RuntimeError("no response has been set")


def named(name: str, *bases: type[Exception]) -> Exception:
    error = type(name, bases or (Exception,), {"__module__": "vendor"})()
    assert isinstance(error, Exception)
    return error


@pytest.mark.parametrize(
    "error",
    [
        GraphBubbleUp(),
        GraphInterrupt(),
        ParentCommand(Command()),
        getattr(langgraph_errors, "GraphDrained", GraphBubbleUp)(),  # newer than the oldest langgraph we allow
        named("Timeout", GraphBubbleUp),
    ],
)
def test_control_flow_is_no_failure(error: Exception) -> None:
    assert classify(error) == Classification("control_flow")


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        concurrent.futures.CancelledError(),
        GeneratorExit(),
        KeyboardInterrupt(),
        SystemExit(1),
    ],
)
def test_cancellation_is_no_failure(error: BaseException) -> None:
    assert classify(error) == Classification("cancelled")


@pytest.mark.parametrize(
    "error",
    [
        StructuredOutputValidationError("tool", ValueError("x"), AIMessage("?")),
        MultipleStructuredOutputsError(["a", "b"], AIMessage("?")),
    ],
)
def test_an_answer_that_does_not_parse_is_an_answer(error: Exception) -> None:
    assert classify(error) == Classification("parse_error")


@pytest.mark.parametrize(
    ("statuses", "kind"),
    [
        ((408, 409, 425, 500, 502, 503, 504, 529, 599), "transient"),
        ((429,), "rate_limit"),
        ((401, 402, 403, 404), "auth"),
        ((400, 405, 413, 418, 422, 451), "request"),
        ((200, 302, 0, -1, None, "429", 3.5), "unknown"),
    ],
)
def test_the_status_decides(statuses: tuple[Any, ...], kind: str) -> None:
    for status in statuses:
        by_response = AnyError(response=SimpleNamespace(status_code=status))
        by_metadata = AnyError(response={"ResponseMetadata": {"HTTPStatusCode": status}})
        by_others = AnyError(status=status), AnyError(status="RESOURCE_EXHAUSTED", code=status)
        for error in (StatusError(status), by_response, by_metadata, *by_others):
            assert classify(error) == Classification("failure", kind)  # type: ignore[arg-type]  # kind is one of the five


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), "transient"),
        (ConnectionResetError(), "transient"),
        (httpx.ReadTimeout("x"), "transient"),
        (httpx.ConnectError("x"), "transient"),
        (httpx.RemoteProtocolError("x"), "transient"),
        (named("APIConnectionError"), "transient"),
        (named("InternalServerError"), "transient"),
        (named("Mine", type("ServiceUnavailable", (Exception,), {})), "transient"),
        (named("RateLimitError"), "rate_limit"),
        (named("ThrottlingException"), "rate_limit"),
        (named("AuthenticationError"), "auth"),
        (named("BadRequestError"), "request"),
        (ValueError("429 Timeout"), "unknown"),
        (FileNotFoundError(), "unknown"),
        (PermissionError(), "unknown"),
        (GraphRecursionError(), "unknown"),
        (named("Whatever"), "unknown"),
        (MuteError(), "unknown"),
        (AnyError(status_code=400, code=429), "request"),
        (AnyError(status_code=None, status=0, code=1006), "unknown"),
        (AnyError(status=lambda: 429, code="429"), "unknown"),
        (ExceptionGroup("g", [TimeoutError()]), "unknown"),
    ],
)
def test_then_the_names_decide(error: Exception, kind: str) -> None:
    assert classify(error) == Classification("failure", kind)  # type: ignore[arg-type]  # kind is one of the five


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ContextOverflowError", "request"),
        ("ModelInvalidRequestError", "request"),
        ("ModelAuthenticationError", "auth"),
        ("ModelPermissionDeniedError", "auth"),
        ("ModelNotFoundError", "auth"),
        ("ModelRateLimitError", "rate_limit"),
        ("ModelAPIError", "transient"),
        ("ModelConnectionError", "transient"),
        ("ModelTimeoutError", "transient"),
    ],
)
def test_langchains_own_errors_come_before_the_status(name: str, kind: str) -> None:
    own = getattr(langchain_core.exceptions, name, None)
    if own is None:
        pytest.skip(f"this langchain-core has no {name}")
    error = type("Vendor", (own,), {"status_code": 418 if kind != "request" else 503})()
    assert classify(error) == Classification("failure", kind)  # type: ignore[arg-type]  # kind is one of the five


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "20"}, 20.0),
        ({"Retry-After": "1.5"}, 1.5),
        (httpx.Headers({"RETRY-AFTER": "0"}), 0.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": None}, None),
        ({}, None),
        (None, None),
        ("retry-after: 3", None),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_none(headers: Any, seconds: float | None) -> None:
    error = AnyError(response=SimpleNamespace(status_code=429, headers=headers))
    assert classify(error) == Classification("failure", "rate_limit", seconds)
