"""The one check before any graph is entered: may this run use this thread?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ThreadOwnershipError
from .hidden import is_hidden

if TYPE_CHECKING:
    from ..context import DeerFlowContext
    from .base import ThreadMap


async def claim_for_run(threads: ThreadMap, context: DeerFlowContext, *, always: bool = False) -> None:
    """Claim the context's thread for its user, or raise `ThreadOwnershipError`.

    Ask before the graph is entered: with a checkpointer the input is stored before any middleware runs. A run without
    user follows `user_thread_mapping.anonymous`: `open` claims nothing and passes only where there is neither owner
    nor tombstone, `user` acts as `anonymous_user_id`, `deny` refuses. `user_thread_mapping.enabled: false` turns the
    check off, unless `always`. A hidden thread is checked and not claimed, so that no list shows it.
    """
    if not (context.app_config.user_thread_mapping.enabled or always):
        return
    user_id = acting_user(context)
    if user_id is None or is_hidden(context.thread_id):
        await check_for_run(threads, context)
    elif not await threads.hold(context.thread_id, user_id):
        raise ThreadOwnershipError(context.thread_id)


async def check_for_run(threads: ThreadMap, context: DeerFlowContext) -> None:
    """Raise `ThreadOwnershipError` where a claim for this run would be refused, and claim nothing."""
    user_id = acting_user(context)
    is_anyones = user_id is not None or context.app_config.user_thread_mapping.anonymous == "open"
    if not is_anyones or not await threads.check_access(context.thread_id, user_id, require_existing=False):
        raise ThreadOwnershipError(context.thread_id)


def acting_user(context: DeerFlowContext) -> str | None:
    """The user whose threads this run may use; None: a run without identity."""
    section = context.app_config.user_thread_mapping
    if context.user_id is None and section.anonymous == "user":
        return section.anonymous_user_id
    return context.user_id
