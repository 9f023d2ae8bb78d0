"""What is remembered of a user, shown to the model with each call."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
from langchain_core.messages import SystemMessage

from ..config import AppConfig
from ..context import DeerFlowContext, resolve_context
from ..errors import StoreUnavailableError
from ..memory.base import HISTORY_SECTIONS, NOTHING, USER_SECTIONS, MemoryStorage
from ..memory.merge import confidence_of

T = TypeVar("T")

logger = logging.getLogger(__name__)

_OPEN, _CLOSE = "<memory>\n", "</memory>"
_CHARACTERS_PER_TOKEN = 4
_DEFAULT_TOKENS = 2000
_SHORTEST_SUMMARY = 40
_MOST_TEXTS = 256
_TITLES = {
    "workContext": "Work",
    "personalContext": "Personal",
    "topOfMind": "Top of mind",
    "recentMonths": "Recent months",
    "earlierContext": "Earlier",
    "longTermBackground": "Long-term background",
}


class MemoryMiddleware(AgentMiddleware[AgentState[Any], DeerFlowContext]):
    """Appends the memory of the run's user and agent to the system message of each model call; writes nothing.

    Read at run time from `config.memory`: nothing is shown unless `enabled`, `injection_enabled` and mode "middleware".
    At most `backend_config.max_injection_tokens` (2000; a token counts as 4 characters), summaries first, then facts
    by falling confidence. It reaches neither the graph's state nor a checkpoint. A storage that is away or corrupt
    costs a warning, not the call.
    """

    def __init__(self, memory: MemoryStorage) -> None:
        super().__init__()
        self.tools = []
        self._memory = memory
        self._can_peek = hasattr(memory, "peek")
        self._texts = _Texts()

    def wrap_model_call(
        self,
        request: ModelRequest[DeerFlowContext],
        handler: Callable[[ModelRequest[DeerFlowContext]], ModelResponse[Any]],
    ) -> ModelResponse[Any]:
        context = resolve_context(request.runtime)
        if shows_memory(context):
            text = self._peeked_text(context)
            request = with_memory(request, self._loaded_text(context) if text is None else text)
        return handler(request)

    async def awrap_model_call(
        self,
        request: ModelRequest[DeerFlowContext],
        handler: Callable[[ModelRequest[DeerFlowContext]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        context = resolve_context(request.runtime)
        if shows_memory(context):
            text = self._peeked_text(context)
            if text is None:  # what may wait is never done on the loop's thread
                text = await asyncio.get_running_loop().run_in_executor(None, self._loaded_text, context)
            request = with_memory(request, text)
        return await handler(request)

    def _peeked_text(self, context: DeerFlowContext) -> str | None:
        document = _or_nothing(self._memory.peek, context) if self._can_peek else None
        return None if document is None else self._texts.of(document, context)

    def _loaded_text(self, context: DeerFlowContext) -> str:
        return _text_for(context.app_config, _or_nothing(self._memory.load, context))


class _Made(NamedTuple):
    """A text, and what it was made of."""

    document: Mapping[str, Any]
    config: AppConfig
    text: str


class _Texts:
    """The texts of the documents peeked last, made anew for any other object. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[tuple[str | None, str | None], _Made] = {}

    def of(self, document: Mapping[str, Any], context: DeerFlowContext) -> str:
        if not document:
            return ""
        scope = context.agent_name, context.user_id
        made = self._made.get(scope)
        if made is None or made.document is not document or made.config is not context.app_config:
            made = _Made(document, context.app_config, _text_for(context.app_config, document))
            self._keep(scope, made)
        return made.text

    def _keep(self, scope: tuple[str | None, str | None], made: _Made) -> None:
        with self._lock:
            self._made.pop(scope, None)
            self._made[scope] = made
            if len(self._made) > _MOST_TEXTS:
                del self._made[next(iter(self._made))]


def _or_nothing(read: Callable[..., T], context: DeerFlowContext) -> T | Mapping[str, Any]:
    try:
        return read(context.agent_name, user_id=context.user_id)
    except StoreUnavailableError as error:
        logger.warning("the model is called without memory: %s", error)
        return NOTHING


def shows_memory(context: DeerFlowContext) -> bool:
    memory = context.app_config.memory
    return memory.enabled and memory.injection_enabled and memory.mode == "middleware"


def with_memory(request: ModelRequest[DeerFlowContext], text: str) -> ModelRequest[DeerFlowContext]:
    """The request with the memory in its system message; the very same one if there is nothing to remember."""
    return request.override(system_message=_extended(request.system_message, text)) if text else request


def _text_for(config: AppConfig, document: Mapping[str, Any]) -> str:
    tokens = config.memory.backend_config.get("max_injection_tokens") if document else None
    return memory_text(document, max_tokens=tokens if isinstance(tokens, int) else _DEFAULT_TOKENS)


def memory_text(document: Mapping[str, Any], *, max_tokens: int) -> str:
    """The document between `<memory>` tags, within the budget; empty if nothing is remembered or fits.

    What does not fit is left out, a summary down to what does. `<` is escaped: what was remembered cannot end the tag.
    """
    room = max_tokens * _CHARACTERS_PER_TOKEN - len(_OPEN) - len(_CLOSE)
    if room <= 0:
        return ""
    summaries = _within(_summaries(document), room, shorten=True)
    text = summaries + _within(_facts(document), room - len(summaries))
    return f"{_OPEN}{text}{_CLOSE}" if text else ""


def _within(lines: Iterable[str], room: int, *, shorten: bool = False) -> str:
    kept: list[str] = []
    for line in lines:
        if len(line) > room and shorten and room > _SHORTEST_SUMMARY:
            line = f"{line[: room - 2]}…\n"
        if len(line) <= room:
            kept.append(line)
            room -= len(line)
    return "".join(kept)


def _summaries(document: Mapping[str, Any]) -> Iterator[str]:
    for part, names in (("user", USER_SECTIONS), ("history", HISTORY_SECTIONS)):
        sections = document.get(part)
        if not isinstance(sections, Mapping):
            continue
        for name in names:
            section = sections.get(name)
            summary = section.get("summary") if isinstance(section, Mapping) else None
            if summary and (line := _line(summary)):
                yield f"{_TITLES[name]}: {line}\n"


def _facts(document: Mapping[str, Any]) -> Iterator[str]:
    facts = [fact for fact in document.get("facts") or () if isinstance(fact, Mapping)]
    for fact in sorted(facts, key=confidence_of, reverse=True):
        content = _line(fact.get("content"))
        if content:
            yield f"- {content}\n"


def _line(text: object) -> str:
    return " ".join(text.split()).replace("<", "&lt;") if isinstance(text, str) else ""


def _extended(message: SystemMessage | None, text: str) -> SystemMessage:
    if message is None:
        return SystemMessage(content=text)
    if isinstance(message.content, str):
        content: str | list[str | dict[Any, Any]] = f"{message.content}\n\n{text}" if message.content else text
    else:
        content = [*message.content, {"type": "text", "text": text}]
    return message.model_copy(update={"content": content})
