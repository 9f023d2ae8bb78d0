"""What the model is shown of memory, through real agents, sync and async."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import PrivateAttr

from deerflow_replica import AppConfig, DeerFlowContext
from deerflow_replica.errors import ContextError, MemoryCorruptError, StoreUnavailableError
from deerflow_replica.memory import FileMemoryStorage, MemoryStorage, StoreMemoryStorage
from deerflow_replica.middleware.memory import MemoryMiddleware, memory_text
from deerflow_replica.store import SqliteStore

pytestmark = pytest.mark.anyio

DOCUMENT = {
    "user": {
        "workContext": {"summary": "builds bridges", "updatedAt": ""},
        "topOfMind": {"summary": "", "updatedAt": ""},
    },
    "history": {"recentMonths": {"summary": "moved to Rome", "updatedAt": ""}},
    "facts": [
        {"id": "1", "content": "likes tea", "confidence": 0.4},
        {"id": "2", "content": "is </memory> tall", "confidence": 0.9},
    ],
}
SHOWN = "<memory>\nWork: builds bridges\nRecent months: moved to Rome\n- is &lt;/memory> tall\n- likes tea\n</memory>"


class Listener(BaseChatModel):
    """Answers "ok" and keeps what it was shown."""

    _shown: list[list[BaseMessage]] = PrivateAttr(default_factory=list)

    @property
    def shown(self) -> list[list[BaseMessage]]:
        return self._shown

    @property
    def _llm_type(self) -> str:
        return "listener"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self._shown.append(messages)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("ok"))])


class Away(MemoryStorage):
    """A storage that cannot be read."""

    def __init__(self, error: StoreUnavailableError) -> None:
        self.error = error

    def load(self, agent_name: str | None = None, *, user_id: str | None = None) -> dict[str, Any]:
        raise self.error

    reload = load

    def save(self, *args: Any, **kwargs: Any) -> bool:
        return False


class Watching(Away):
    """A storage that says on which thread it was asked."""

    def load(self, agent_name: str | None = None, *, user_id: str | None = None) -> dict[str, Any]:
        self.thread = threading.current_thread()
        return {}


@pytest.fixture
def storage(tmp_path: Path) -> FileMemoryStorage:
    storage = FileMemoryStorage(tmp_path)
    assert storage.save(DOCUMENT, "coder", user_id="ann")
    return storage


def context(memory: dict[str, Any] | None = None, user_id: str | None = "ann") -> DeerFlowContext:
    config = AppConfig.from_mapping({"memory": memory or {}})
    return DeerFlowContext(config, "t1", agent_name="coder", user_id=user_id)


def agent(model: Listener, memory: MemoryStorage, **options: Any) -> Any:
    return create_agent(model, middleware=[MemoryMiddleware(memory)], context_schema=DeerFlowContext, **options)


async def run(agent: Any, sync: bool, given: DeerFlowContext, **options: Any) -> Any:
    messages = {"messages": [HumanMessage("hi")]}
    if sync:
        return await asyncio.to_thread(agent.invoke, messages, context=given, **options)
    return await agent.ainvoke(messages, context=given, **options)


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize(
    ("prompt", "content"),
    [
        (None, SHOWN),
        ("Be kind.", f"Be kind.\n\n{SHOWN}"),
        (
            SystemMessage([{"type": "text", "text": "Be kind."}]),
            [{"type": "text", "text": "Be kind."}, {"type": "text", "text": SHOWN}],
        ),
    ],
)
async def test_memory_is_appended_to_the_system_message(
    storage: FileMemoryStorage, sync: bool, prompt: Any, content: Any
) -> None:
    model = Listener()
    await run(agent(model, storage, system_prompt=prompt), sync, context())
    [(system, human)] = model.shown
    assert isinstance(system, SystemMessage)
    assert system.content == content
    assert human.content == "hi"


@pytest.mark.parametrize("sync", [True, False])
async def test_nothing_of_it_reaches_the_state_or_a_checkpoint(storage: FileMemoryStorage, sync: bool) -> None:
    saver = InMemorySaver()
    built = agent(Listener(), storage, checkpointer=saver)
    config = {"configurable": {"thread_id": "t1"}}
    state = await run(built, sync, context(), config=config)
    assert [message.content for message in state["messages"]] == ["hi", "ok"]
    assert "bridges" not in repr([list(saver.list(None)), saver.storage, saver.writes, saver.blobs])


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize(
    "memory",
    [
        {"enabled": False},
        {"injection_enabled": False},
        {"mode": "tool"},
        {"backend_config": {"max_injection_tokens": 0}},
    ],
)
async def test_the_runs_own_configuration_decides(
    storage: FileMemoryStorage, sync: bool, memory: dict[str, Any]
) -> None:
    model = Listener()
    built = agent(model, storage)
    await run(built, sync, context(memory))
    await run(built, sync, context())
    await run(built, sync, context(user_id="bob"))
    assert [len(messages) for messages in model.shown] == [1, 2, 1]


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("error", [StoreUnavailableError("gone"), MemoryCorruptError("unreadable")])
async def test_a_storage_that_is_away_costs_one_warning(
    sync: bool, error: StoreUnavailableError, caplog: pytest.LogCaptureFixture
) -> None:
    model = Listener()
    await run(agent(model, Away(error), system_prompt="Be kind."), sync, context())
    assert [message.content for message in model.shown[0]] == ["Be kind.", "hi"]
    assert [record.getMessage() for record in caplog.records] == [f"the model is called without memory: {error}"]


@pytest.mark.parametrize("sync", [True, False])
async def test_memory_in_a_store_is_shown_until_the_store_is_away(
    sync: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Listener()
    async with SqliteStore(tmp_path / "store.db") as store:
        await store.asetup()
        writer, reader = StoreMemoryStorage(store), StoreMemoryStorage(store)
        assert writer.save(DOCUMENT, "coder", user_id="ann")
        await run(agent(model, reader), sync, context())
        await run(agent(model, reader), sync, context(user_id="bob"))
    await run(agent(model, reader), sync, context())  # the last copy that it has seen
    await run(agent(model, reader), sync, context(user_id="bob"))
    assert [len(messages) for messages in model.shown] == [2, 1, 2, 1]
    assert [messages[0].content for messages in model.shown if len(messages) == 2] == [SHOWN, SHOWN]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


async def test_the_loop_never_waits_for_a_storage() -> None:
    storage = Watching(StoreUnavailableError(""))
    await run(agent(Listener(), storage), False, context())
    assert storage.thread is not threading.current_thread()


async def test_a_storage_that_can_tell_at_once_is_asked_at_once() -> None:
    class Immediate(Watching):
        peek = Watching.load

    storage = Immediate(StoreUnavailableError(""))
    await run(agent(Listener(), storage), False, context())
    assert storage.thread is threading.current_thread()


async def test_nothing_that_may_wait_is_called_on_the_loops_thread(storage: FileMemoryStorage) -> None:
    model = Listener()
    built = agent(model, storage)
    await run(built, False, context())
    other = FileMemoryStorage(storage.base_dir)
    assert other.save({**DOCUMENT, "facts": []}, "coder", user_id="ann")
    storage._detours = 0
    called = await calls_on_this_thread(run(built, False, context()))
    called |= await calls_on_this_thread(run(built, False, context(user_id="nobody")))
    assert "lstat" in called
    assert not called & {"stat", "open", "open_code", "read", "BufferedReader.read", "listdir", "scandir", "mkdir"}
    assert [len(messages) for messages in model.shown] == [2, 2, 1]
    assert "tea" in str(model.shown[0])
    assert "tea" not in str(model.shown[1])


@pytest.mark.parametrize("sync", [True, False])
async def test_what_is_shown_follows_the_document(storage: FileMemoryStorage, sync: bool) -> None:
    model, given = Listener(), context()
    built = agent(model, storage)
    for fact in ("likes tea", "likes milk"):
        assert storage.save({"facts": [{"content": fact}]}, "coder", user_id="ann")
        for _ in range(3):
            storage._detours = 0
            await run(built, sync, given)
    shown = ["<memory>\n- likes tea\n</memory>"] * 3 + ["<memory>\n- likes milk\n</memory>"] * 3
    assert [messages[0].content for messages in model.shown] == shown


async def test_what_is_shown_follows_the_user_and_the_budget(storage: FileMemoryStorage) -> None:
    model = Listener()
    built = agent(model, storage)
    assert storage.save({"facts": [{"content": "likes milk"}]}, "coder", user_id="bob")
    small = {"backend_config": {"max_injection_tokens": 10}}
    for given in (context(), context(user_id="bob"), context(small), context()):
        storage._detours = 0
        await run(built, False, given)
    contents = [str(messages[0].content) for messages in model.shown]
    assert contents[0] == contents[3] == SHOWN
    assert "milk" in contents[1]
    assert len(contents[2]) <= 40


async def calls_on_this_thread(work: Coroutine[Any, Any, Any]) -> set[str]:
    """The names of the built-in functions that were called."""
    called: set[str] = set()
    before = sys.getprofile()
    sys.setprofile(lambda _, event, function: called.add(function.__qualname__) if event == "c_call" else None)
    try:
        await work
    finally:
        sys.setprofile(before)
    return called


@pytest.mark.parametrize("sync", [True, False])
async def test_a_run_without_context_fails(storage: FileMemoryStorage, sync: bool) -> None:
    built = agent(Listener(), storage)
    with pytest.raises(ContextError, match="context="):
        await run(built, sync, None)  # type: ignore[arg-type]  # what a caller may forget


def test_the_budget_holds() -> None:
    facts = [{"content": "x" * 50, "confidence": number / 100} for number in range(100)]
    document = {
        "user": {"topOfMind": {"summary": "y" * 500}},
        "facts": [*facts, {"content": "<" * 400, "confidence": 1}],
    }
    for tokens in range(300):
        text = memory_text(document, max_tokens=tokens)
        assert len(text) <= 4 * tokens
        assert not text or (text.startswith("<memory>\n") and text.endswith("\n</memory>"))
    assert memory_text(document, max_tokens=-1) == ""
    assert "…" in memory_text(document, max_tokens=100)
    assert memory_text(document, max_tokens=300).count("- x") == 12


def test_only_what_can_be_shown_is_shown() -> None:
    assert memory_text({}, max_tokens=100) == ""
    odd = {"user": None, "history": {"recentMonths": "x"}, "facts": ["x", {"content": 1}, {"content": " a\n b "}]}
    assert memory_text(odd, max_tokens=100) == "<memory>\n- a b\n</memory>"
