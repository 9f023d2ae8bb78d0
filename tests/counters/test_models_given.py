"""What may be given as models by name, to all who take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deerflow_replica.counters import InMemoryModelCounters, ModelHealth
from deerflow_replica.middleware import ModelCounterCallback, ModelCounterMiddleware, ModelRoutingMiddleware
from scripted_models import scripted

TAKERS = pytest.mark.parametrize(
    "take",
    [
        lambda models: ModelCounterMiddleware(InMemoryModelCounters(), models=models),
        lambda models: ModelCounterCallback(InMemoryModelCounters(), models=models),
        lambda models: ModelRoutingMiddleware(ModelHealth(InMemoryModelCounters()), models),
    ],
    ids=["middleware", "callback", "routing"],
)


@TAKERS
@pytest.mark.parametrize(
    ("models", "said"),
    [
        ({"fast": "gpt-5"}, "models: 'fast' should be a chat model, not str"),
        ({"fast": None}, "models: 'fast' should be a chat model, not NoneType"),
        (["fast"], "models should be chat models by name, not list"),
        ({1: scripted()}, "models: a name should be a text of 1 to 256 characters, not 1"),
        ({" ": scripted()}, "models: a name should be a text of 1 to 256 characters, not ' '"),
    ],
)
def test_what_is_no_model_is_refused_where_it_is_given(take: Callable[[Any], Any], models: Any, said: str) -> None:
    with pytest.raises(ValueError, match="models") as refused:
        take(models)
    assert str(refused.value) == said


@TAKERS
def test_a_model_with_settings_bound_to_it_is_one(take: Callable[[Any], Any]) -> None:
    take({"fast": scripted(), "careful": scripted().bind(temperature=0)})
