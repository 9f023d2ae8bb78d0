"""What an exception at the model boundary means. Nothing is imported from any model's SDK."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import langchain_core.exceptions
from langgraph.errors import GraphBubbleUp

from .values import FailureKind, Outcome

_BY_CLASS: dict[str, FailureKind] = {
    "ContextOverflowError": "request",
    "ModelInvalidRequestError": "request",
    "ModelAuthenticationError": "auth",
    "ModelPermissionDeniedError": "auth",
    "ModelNotFoundError": "auth",
    "ModelRateLimitError": "rate_limit",
    "ModelAPIError": "transient",
    "ModelConnectionError": "transient",
    "ModelTimeoutError": "transient",
}
_KIND_OF_CLASS: tuple[tuple[type[Exception], FailureKind], ...] = (
    tuple(  # the older of the supported langchain-core versions lack most of them
        (getattr(langchain_core.exceptions, name), kind)
        for name, kind in _BY_CLASS.items()
        if hasattr(langchain_core.exceptions, name)
    )
)
_BY_STATUS: dict[int, FailureKind] = {
    401: "auth", 402: "auth", 403: "auth", 404: "auth", 408: "transient", 409: "transient", 425: "transient",
    429: "rate_limit",
}  # fmt: skip
_BY_NAME: tuple[tuple[str, FailureKind], ...] = (
    ("RateLimit", "rate_limit"),
    ("TooManyRequests", "rate_limit"),
    ("ResourceExhausted", "rate_limit"),
    ("Throttl", "rate_limit"),
    ("Authentication", "auth"),
    ("PermissionDenied", "auth"),
    ("Unauthorized", "auth"),
    ("Timeout", "transient"),
    ("Connect", "transient"),
    ("NetworkError", "transient"),
    ("TransportError", "transient"),
    ("InternalServer", "transient"),
    ("ServiceUnavailable", "transient"),
    ("Overloaded", "transient"),
    ("BadGateway", "transient"),
    ("BadRequest", "request"),
    ("InvalidRequest", "request"),
    ("UnprocessableEntity", "request"),
)


@dataclass(frozen=True, slots=True)
class Classification:
    """What to record: `kind` with a failure only, `retry_after_seconds` where the server said so."""

    outcome: Outcome
    kind: FailureKind | None = None
    retry_after_seconds: float | None = None


def classify(error: BaseException) -> Classification:
    """What `error`, raised by a model call, counts as.

    In this order: LangGraph's control flow, cancellation, an answer that does not parse, langchain-core's own model
    errors, the HTTP status of the exception or its response, the names of its classes. What nothing of this
    recognises is a failure of the kind `unknown`. `retry-after` is read in seconds (RFC 9110, 10.2.3); a date, or
    anything else that is not a number of seconds, is None.
    """
    if isinstance(error, GraphBubbleUp):
        return Classification("control_flow")
    if not isinstance(error, Exception) or isinstance(
        error, (asyncio.CancelledError, concurrent.futures.CancelledError)
    ):
        return Classification("cancelled")
    if _is_parse_error(error):
        return Classification("parse_error")
    return Classification("failure", _kind(error), _retry_after(error))


def _is_parse_error(error: Exception) -> bool:
    """By name: importing LangChain's agents for it would load them for everybody who only counts."""
    return any(
        base.__name__ == "StructuredOutputError" and base.__module__.startswith("langchain.")
        for base in type(error).__mro__
    )


def _kind(error: Exception) -> FailureKind:
    for error_class, kind in _KIND_OF_CLASS:
        if isinstance(error, error_class):
            return kind
    return _kind_of_status(_status(error)) or _kind_of_names(error) or "unknown"


def _kind_of_status(status: int | None) -> FailureKind | None:
    if status is None:
        return None
    if 500 <= status <= 599:
        return "transient"
    return _BY_STATUS.get(status) or ("request" if 400 <= status <= 499 else None)


def _kind_of_names(error: Exception) -> FailureKind | None:
    if isinstance(error, (TimeoutError, ConnectionError)):
        return "transient"
    names = [base.__name__ for base in type(error).__mro__ if base.__module__ != "builtins"]
    for part, kind in _BY_NAME:
        if any(part in name for name in names):
            return kind
    return None


def _status(error: Exception) -> int | None:
    return next((status for status in _statuses(error) if isinstance(status, int) and 100 <= status <= 599), None)


def _statuses(error: Exception) -> Iterator[object]:
    """Where SDKs put it, the surest first: `status` is aiohttp's, `code` google-genai's and urllib's."""
    response = _attribute(error, "response")
    yield _attribute(error, "status_code")
    yield _attribute(response, "status_code")
    yield _metadata(response).get("HTTPStatusCode")
    yield _attribute(error, "status")
    yield _attribute(error, "code")


def _retry_after(error: Exception) -> float | None:
    response = _attribute(error, "response")
    headers = _attribute(response, "headers") or _metadata(response).get("HTTPHeaders")
    if not isinstance(headers, Mapping):
        return None
    value = next((headers[name] for name in headers if str(name).lower() == "retry-after"), None)
    try:
        seconds = float(value)  # type: ignore[arg-type]  # whatever it is: what cannot be a number raises
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _metadata(response: Any) -> Mapping[str, Any]:
    """botocore's way: the response is a dict."""
    found = response.get("ResponseMetadata") if isinstance(response, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _attribute(owner: object, name: str) -> Any:
    try:
        return getattr(owner, name, None)
    except Exception:  # a foreign property may raise anything; then the error does not say
        return None
