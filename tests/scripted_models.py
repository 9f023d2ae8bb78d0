"""Models that do what their scripts say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import PrivateAttr

USAGE: Any = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
ANSWER = AIMessage("hello there", usage_metadata=USAGE)
COUNTED = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
INPUT: Any = {"messages": [("user", "hi")]}

Step = AIMessage | BaseException | Callable[[], AIMessage]


class Scripted(BaseChatModel):
    """Answers one step of its script after the other; waits for ever where the script says `HANG`."""

    name: str | None = "scripted"
    _script: Iterator[Step] = PrivateAttr(default_factory=lambda: iter(()))
    _waiting: asyncio.Event = PrivateAttr(default_factory=asyncio.Event)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **_: Any) -> Runnable[Any, AIMessage]:
        return self

    def next(self) -> AIMessage:
        step = next(self._script)
        if isinstance(step, BaseException):
            raise step
        return step if isinstance(step, AIMessage) else step()

    async def hang(self) -> None:
        self._waiting.set()
        await asyncio.Event().wait()

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.next())])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> ChatResult:
        answer = self.next()
        if answer is HANG:
            await self.hang()
        return ChatResult(generations=[ChatGeneration(message=answer)])


class Streaming(Scripted):
    """Sends a token first, and then does what its script says."""

    first: str = "token "

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        yield ChatGenerationChunk(message=AIMessageChunk(content=self.first))
        answer = self.next()
        if answer is HANG:
            await self.hang()
        yield ChatGenerationChunk(message=AIMessageChunk(content=answer.content, usage_metadata=answer.usage_metadata))


HANG = AIMessage("never")


def scripted(*script: Step) -> Scripted:
    model = Scripted()
    model._script = iter(script)
    return model


def streaming(*script: Step) -> Streaming:
    model = Streaming()
    model._script = iter(script)
    return model
