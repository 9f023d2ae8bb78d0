"""The pure rules about model calls that the middlewares share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable

from ..counters.outcome import Classification, classify
from ..counters.values import ReleaseOutcome

LONGEST_NAME = 256


def checked_models(models: Any) -> dict[str, BaseChatModel]:
    """A copy; `ValueError` for anything but chat models under names that can be counted."""
    if not isinstance(models, Mapping | None):
        raise ValueError(f"models should be chat models by name, not {type(models).__name__}")  # noqa: TRY004  # one error for all of it
    for name, model in (models or {}).items():
        if not isinstance(name, str) or not 1 <= len(name.strip()) <= LONGEST_NAME:
            raise ValueError(f"models: a name should be a text of 1 to {LONGEST_NAME} characters, not {name!r}")
        if not isinstance(model, Runnable):
            raise ValueError(f"models: {name!r} should be a chat model, not {type(model).__name__}")  # noqa: TRY004  # as above
    return dict(models or {})


def names_by_identity(models: Mapping[str, object] | None) -> dict[int, str]:
    """The key of each model by the `id` of the object; whoever keeps this keeps `models`, too."""
    return {id(model): name for name, model in (models or {}).items()}


def model_name_of(model: object, names: Mapping[int, str]) -> str:
    """The given name of this very object, else what the model calls itself, else its class."""
    known = names.get(id(model))
    if known is not None:
        return known
    for attribute in ("name", "model_name", "model"):
        name = _attribute(model, attribute)
        if isinstance(name, str) and (stripped := name.strip()):
            return stripped[:LONGEST_NAME].rstrip()
    return type(model).__name__


def _attribute(model: object, name: str) -> object:
    """Not `getattr` at once: a chat model that lacks an attribute takes longer to say so than the rest of a count."""
    try:
        return object.__getattribute__(model, name)
    except AttributeError:
        return None if isinstance(model, BaseChatModel) else getattr(model, name, None)


def usage_of(response: Any) -> Mapping[str, Any] | None:
    """The token usage of an answer: of a message, or of the first one in a `ModelResponse`; None if it has none."""
    if isinstance(response, AIMessage):
        return response.usage_metadata
    response = getattr(response, "model_response", response)
    for message in getattr(response, "result", ()):
        if isinstance(message, AIMessage):
            return message.usage_metadata
    return None


def usage_of_error(error: BaseException) -> Mapping[str, Any] | None:
    """The token usage of an answer that came, but did not parse."""
    return usage_of(getattr(error, "ai_message", None))


def ending_of(error: BaseException) -> ReleaseOutcome:
    """What a probe that ended with `error` says about the model."""
    found = classify(error)
    if found.outcome == "parse_error":
        return "success"
    return "failure" if _is_against(found) else "abandoned"


def is_worth_another(error: BaseException) -> bool:
    """Whether another model may do better; none would with a request that was refused for what it is."""
    return _is_against(classify(error))


def _is_against(found: Classification) -> bool:
    return found.outcome == "failure" and found.kind != "request"
