"""Handlers that hear of the model calls inside a middleware, carried in LangChain's own run config."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables.config import ensure_config, merge_configs, var_child_runnable_config


@contextmanager
def carrying(handler: BaseCallbackHandler) -> Iterator[None]:
    """Model calls of the block, sync or async, tell `handler`, beside those who are told anyway."""
    config = merge_configs(ensure_config(), {"callbacks": [handler]})
    token = var_child_runnable_config.set(config)
    try:
        yield
    finally:
        # A coroutine that is closed, not finished, may end in another context, where nothing was set.
        with suppress(ValueError):
            var_child_runnable_config.reset(token)


class Hearing(BaseCallbackHandler):
    """Called in turn with the model call itself, on its thread. Chat messages are not made into prompts for it."""

    run_inline = True

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **details: Any) -> None:
        """Nothing by itself; without it LangChain would write all messages out for `on_llm_start`."""
