"""Who is asking: the application's hook, sync or async."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from ..config import UserThreadMappingConfig
from ..threads.validation import user_key

_log = logging.getLogger(__name__)

Authenticate = Callable[[Request], str | Awaitable[str | None] | None]


async def identify(authenticate: Authenticate | None, request: Request, threads: UserThreadMappingConfig) -> str | None:
    """The user id of a request. 401 when the hook knows nobody.

    Without a hook it is who `threads.anonymous` says: nobody, the one anonymous user, or 401. A sync hook runs on the
    event loop: it must not wait.
    """
    if authenticate is None:
        return _anonymous(threads)
    answer = authenticate(request)
    user_id = await answer if inspect.isawaitable(answer) else answer
    if user_id is None:
        raise HTTPException(401, "Unauthorized")
    return _checked(user_id)


def _anonymous(threads: UserThreadMappingConfig) -> str | None:
    if threads.anonymous == "deny":
        raise HTTPException(401, "Unauthorized")
    return threads.anonymous_user_id if threads.anonymous == "user" else None


def _checked(user_id: Any) -> str:
    """500 that says what is wrong with the hook's answer, and never what it was: it may hold a secret."""
    try:
        return user_key(user_id)
    except ValueError as error:
        _log.error("authenticate returned a %s that is no user id: %s", type(user_id).__name__, error)
        raise HTTPException(500, f"authenticate returned no valid user id: {error}") from error
