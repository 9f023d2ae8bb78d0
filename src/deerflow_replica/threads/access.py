"""The one check before any graph is entered: may this run use this thread?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ThreadOwnershipError

if TYPE_CHECKING:
    from ..context import DeerFlowContext
    from .base import ThreadMap


async def claim_for_run(threads: ThreadMap, context: DeerFlowContext, *, always: bool = False) -> None:
    """Claim the context's thread for its user, or raise `ThreadOwnershipError`.

    Ask before the graph is entered: with a checkpointer the input is stored before any middleware runs. A run without
    user follows `user_thread_mapping.anonymous`: `open` claims nothing and passes only where there is neither owner
    nor tombstone, `user` acts as `anonymous_user_id`, `deny` refuses. `user_thread_mapping.enabled: false` turns the
    check off, unless `always`.
    """
    section = context.app_config.user_thread_mapping
    if not (section.enabled or always):
        return
    user_id = acting_user(context)
    if user_id is not None:
        granted = await threads.hold(context.thread_id, user_id)
    else:
        granted = section.anonymous == "open" and await threads.check_access(
            context.thread_id, None, require_existing=False
        )
    if not granted:
        raise ThreadOwnershipError(context.thread_id)


def acting_user(context: DeerFlowContext) -> str | None:
    """The user whose threads this run may use; None: a run without identity."""
    section = context.app_config.user_thread_mapping
    if context.user_id is None and section.anonymous == "user":
        return section.anonymous_user_id
    return context.user_id
