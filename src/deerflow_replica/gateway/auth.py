"""Who is asking: the application's hook, sync or async."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request

Authenticate = Callable[[Request], str | Awaitable[str | None] | None]


async def identify(authenticate: Authenticate | None, request: Request) -> str | None:
    """The user id of a request; None when there is no hook. 401 when the hook knows nobody.

    A sync hook runs on the event loop: it must not wait.
    """
    if authenticate is None:
        return None
    answer = authenticate(request)
    user_id = await answer if inspect.isawaitable(answer) else answer
    if user_id is None:
        raise HTTPException(401, "Unauthorized")
    if not user_id:
        raise ValueError("authenticate must return a user id, or None")
    return user_id
