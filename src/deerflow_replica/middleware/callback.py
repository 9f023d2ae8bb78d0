"""Counts model calls outside of agents."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from time import perf_counter
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.language_models import BaseChatModel
from langchain_core.outputs import LLMResult

from ..counters.base import ModelCounters
from ..counters.outcome import classify
from ._carrying import Hearing
from ._outcome import LONGEST_NAME, checked_models, model_name_of, usage_of, usage_of_error

_LOG = logging.getLogger(__name__)
_MOST_OPEN = 10_000
_NAMES = ("name", "model_name", "model")


class _Call(NamedTuple):
    model_name: str
    started: float


class ModelCounterCallback(Hearing):
    """A LangChain callback handler that records each model call: `model.invoke(..., config={"callbacks": [it]})`.

    A call that a `ModelCounterMiddleware` of the same counters counts is left to it. Calls count under `model_name`; or
    under the key of the model in `models`, recognised by the name that the model gives itself; or under that name.
    LangChain says nothing of a cancelled call that does not stream: it is missing from `cancelled_count`. Counting
    never makes a model call fail, and never waits: with `durability="sync"`, too, the flusher writes what is counted.
    """

    def __init__(
        self,
        counters: ModelCounters,
        *,
        model_name: str | None = None,
        models: Mapping[str, BaseChatModel] | None = None,
    ) -> None:
        self._counters = counters
        self._model_name = model_name
        self._given = {model_name_of(model, {}): name for name, model in checked_models(models).items()}
        self._open: dict[UUID, _Call] = {}
        counters._runs.are_asked_for = True

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **details: Any) -> None:
        self._begin(serialized, run_id, details)

    def on_llm_start(self, serialized: Any, prompts: Any, *, run_id: UUID, **details: Any) -> None:
        self._begin(serialized, run_id, details)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **details: Any) -> None:
        call = self._ended(run_id)
        if call is not None:
            self._record(call, outcome="success", usage=_usage(response))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **details: Any) -> None:
        call = self._ended(run_id)
        if call is not None:
            found = classify(error)
            self._record(
                call,
                outcome=found.outcome,
                usage=usage_of_error(error),
                error_type=found.kind,
                retry_after_seconds=found.retry_after_seconds,
            )

    def _begin(self, serialized: Any, run_id: UUID, details: Mapping[str, Any]) -> None:
        while len(self._open) >= _MOST_OPEN:  # calls that LangChain never said the end of
            self._open.pop(next(iter(self._open)), None)
        self._open[run_id] = _Call(self._name(serialized, details), perf_counter())

    def _ended(self, run_id: UUID) -> _Call | None:
        call = self._open.pop(run_id, None)
        return None if run_id in self._counters._runs else call

    def _name(self, serialized: Any, details: Mapping[str, Any]) -> str:
        if self._model_name is not None:
            return self._model_name
        own = next(filter(None, map(_stripped, _own_names(serialized, details))), "unknown")
        return self._given.get(own, own)

    def _record(self, call: _Call, **event: Any) -> None:
        try:
            self._counters.record(call.model_name, duration_seconds=perf_counter() - call.started, **event)
        except Exception as error:
            _LOG.warning("a model call could not be counted: %s: %s", type(error).__name__, error)


def _own_names(serialized: Any, details: Mapping[str, Any]) -> list[object]:
    """All that LangChain tells of a model's name, as `model_name_of` would look for it."""
    known = serialized if isinstance(serialized, Mapping) else {}
    arguments = known.get("kwargs") or {}
    parameters = details.get("invocation_params") or {}
    told = [
        _given_name(known),
        *(source.get(name) for name in _NAMES for source in (arguments, parameters) if isinstance(source, Mapping)),
    ]
    return [*told, (details.get("metadata") or {}).get("ls_model_name"), known.get("name")]


def _given_name(serialized: Mapping[str, Any]) -> object:
    """LangChain puts the class there for a model without a name."""
    name, path = serialized.get("name"), serialized.get("id")
    return None if path and name == path[-1] else name


def _stripped(name: object) -> str:
    return name.strip()[:LONGEST_NAME].rstrip() if isinstance(name, str) else ""


def _usage(response: LLMResult) -> Mapping[str, Any] | None:
    for generations in response.generations:
        for generation in generations:
            return usage_of(getattr(generation, "message", None))
    return None
