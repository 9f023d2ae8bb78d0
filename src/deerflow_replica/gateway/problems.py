"""What went wrong, as an HTTP answer: `{"detail": ...}`."""

from __future__ import annotations

import logging

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from ..errors import ReplicaError, RunConflictError, StoreUnavailableError, StreamUnavailableError, ThreadOwnershipError

_log = logging.getLogger(__name__)

THREAD_NOT_FOUND = "Thread not found"
RUN_NOT_FOUND = "Run not found"
CHECKPOINT_NOT_FOUND = "Checkpoint not found"
ASSISTANT_NOT_FOUND = "Assistant not found"


def bad_request(detail: str) -> HTTPException:
    return HTTPException(400, detail)


def not_found(detail: str) -> HTTPException:
    return HTTPException(404, detail)


def unprocessable(detail: str) -> HTTPException:
    return HTTPException(422, detail)


def conflict(detail: str) -> HTTPException:
    return HTTPException(409, detail)


def answer_of(error: Exception) -> Response:
    """The answer to a request that failed before its response began. The unforeseen is logged, and says nothing."""
    match error:
        case HTTPException():
            return _problem(error.status_code, error.detail, dict(error.headers or {}))
        case ClientDisconnect():
            return _problem(400, "The client left before its request was complete")
        case ThreadOwnershipError():
            return _problem(404, THREAD_NOT_FOUND)
        case RunConflictError():
            return _problem(409, str(error))
        case StoreUnavailableError() | StreamUnavailableError():
            _log.warning("answered 503: %s", error)
            return _problem(503, "A server that this replica needs cannot be reached")
        case ReplicaError() if type(error) is ReplicaError:
            return _problem(503, str(error), {"retry-after": "1"})
        case _:
            _log.error("a request failed", exc_info=error)
            return _problem(500, "Internal Server Error")


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps({"detail": detail}), status, headers, media_type="application/json")
