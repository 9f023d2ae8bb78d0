"""Request bodies. Unknown fields are ignored; a wrong type is answered with 422 and the field's name."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ..runs.registry.documents import to_json
from ..runs.registry.rules import check_metadata
from .ids import as_uuid
from .problems import unprocessable

T = TypeVar("T")

Uuid = Annotated[str, BeforeValidator(as_uuid)]
Document = dict[str, Any]
Limit = Annotated[int, Field(ge=1, le=1000)]
Offset = Annotated[int, Field(ge=0, le=2**31)]
Positive = Annotated[int, Field(ge=1)]
Delay = Annotated[int | float, Field(ge=0, le=365 * 86_400)]
Pair = Annotated[list[Any], Field(min_length=2, max_length=2)]


def _searchable(metadata: Document) -> Document:
    check_metadata(metadata)
    return metadata


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not have a NUL")
    return text


Metadata = Annotated[Document, AfterValidator(_searchable)]
Text = Annotated[str, AfterValidator(_without_nul)]


class Body(BaseModel):
    """A JSON object. Nothing is converted: a number as text is a wrong type."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class CreateThread(Body):
    thread_id: Uuid | None = None
    metadata: Metadata | None = None
    if_exists: Literal["raise", "do_nothing"] | None = None


class UpdateThread(Body):
    metadata: Metadata | None = None


class PruneThreads(Body):
    thread_ids: list[Uuid] = Field(max_length=1000)
    strategy: Literal["delete", "keep_latest"] | None = None


class CountThreads(Body):
    metadata: Metadata | None = None
    values: Document | None = None
    status: Literal["idle", "busy", "interrupted", "error"] | None = None
    ids: list[Uuid] | None = None


class SearchThreads(CountThreads):
    limit: Limit = 10
    offset: Offset = 0
    sort_by: Literal["created_at", "updated_at", "thread_id", "status"] | None = None
    sort_order: Literal["asc", "desc"] | None = None
    select: list[str] | None = None


class ConfigBody(Body):
    model_config = ConfigDict(extra="allow")

    tags: list[str] | None = None
    recursion_limit: Positive | None = None
    max_concurrency: Positive | None = None
    configurable: Document | None = None
    metadata: Document | None = None


class CommandBody(Body):
    resume: Any = None
    update: Document | list[Pair] | None = None
    goto: Any = None


class CreateRun(Body):
    assistant_id: str
    input: Any = None
    command: CommandBody | None = None
    config: ConfigBody | None = None
    context: Document | None = None
    metadata: Document | None = None
    stream_mode: str | list[str] | None = None
    stream_subgraphs: bool | None = None
    stream_resumable: bool | None = None
    interrupt_before: str | list[str] | None = None
    interrupt_after: str | list[str] | None = None
    checkpoint: Document | None = None
    checkpoint_id: str | None = None
    durability: Literal["sync", "async", "exit"] | None = None
    multitask_strategy: Literal["enqueue", "reject", "interrupt", "rollback"] | None = None
    if_not_exists: Literal["reject", "create"] | None = None
    on_disconnect: Literal["continue", "cancel"] | None = None
    on_completion: Literal["delete", "keep"] | None = None
    after_seconds: Delay | None = None
    webhook: Any = None


class CancelRuns(Body):
    thread_id: Uuid | None = None
    run_ids: list[Uuid] | None = None
    status: Literal["pending", "running", "all"] | None = None


async def read_body(request: Request, adapter: TypeAdapter[T], *, max_bytes: int) -> T:
    """The body, checked. 413 above `max_bytes`; 422 for what is no JSON, cannot be stored (too deep, an integer beyond
    64 bits) or has a wrong type. No body is `{}`.
    """
    raw = await _read(request, max_bytes)
    try:
        document = orjson.loads(raw) if raw.strip() else {}
    except orjson.JSONDecodeError as error:
        raise unprocessable(f"the body is not JSON: {error}") from None
    try:
        to_json(document)
    except TypeError as error:
        raise unprocessable(_unstorable(document, error)) from None
    return validated(adapter, document)


def validated(adapter: TypeAdapter[T], document: Any) -> T:
    """422 naming the fields that are wrong."""
    try:
        return adapter.validate_python(document)
    except ValidationError as error:
        raise unprocessable(_worded(error)) from None


def _unstorable(document: Any, reason: TypeError) -> str:
    """Names the field, if it is one alone."""
    for name, part in document.items() if isinstance(document, dict) else ():
        try:
            to_json(part)
        except TypeError as error:
            return f"{name}: cannot be stored: {error}; send what JSON cannot hold as text"
    return f"the body cannot be stored: {reason}"


async def _read(request: Request, max_bytes: int) -> bytes:
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > max_bytes:
            raise HTTPException(413, f"the body has more than {max_bytes} bytes", {"connection": "close"})
    return bytes(chunks)


def _worded(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, problem['loc'])) or 'body'}: {problem['msg']}" for problem in problems)
