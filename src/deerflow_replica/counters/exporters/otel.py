"""OpenTelemetry instruments with the names of its semantic conventions for generative AI."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..._extras import extra
from ..base import ModelCounters
from ..values import FAILURE_KINDS
from . import label

with extra("otel"):
    from opentelemetry.metrics import get_meter

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

_DURATION_BOUNDS = [0.01 * 2**power for power in range(14)]
_TOKEN_BOUNDS = [4**power for power in range(14)]
_FINISHED = ("success", "parse_error", "failure")
_TOKENS = {"input_tokens": "input", "output_tokens": "output"}


def otel_metrics(
    counters: ModelCounters,
    *,
    meter_provider: MeterProvider | None = None,
    provider_of: Callable[[str], str] | None = None,
) -> None:
    """Pass each call that this process counts from now on to OpenTelemetry, until the counters are closed.

    `gen_ai.client.operation.duration` in seconds, and `gen_ai.client.token.usage` for calls that tell their tokens.
    `meter_provider` is the global one by default; `provider_of` says who serves a model (`gen_ai.provider.name`), else
    it is `unknown`. `MissingExtraError` without `opentelemetry-api`.
    """
    counters._follow(_Instruments(meter_provider, provider_of or _unknown))


class _Instruments:
    def __init__(self, meter_provider: MeterProvider | None, provider_of: Callable[[str], str]) -> None:
        meter = get_meter("deerflow_replica", meter_provider=meter_provider)
        self._provider_of = provider_of
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_DURATION_BOUNDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKEN_BOUNDS,
        )

    def __call__(
        self,
        name: str,
        outcome: str,
        duration_seconds: float | None,
        usage: Mapping[str, Any] | None,
        error_type: str | None,
        retry_after_seconds: float | None,
        /,
    ) -> None:
        if outcome not in _FINISHED:
            return
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": self._provider_of(name),
            "gen_ai.request.model": label(name),
        }
        if duration_seconds is not None:
            failed = {"error.type": _kind(error_type)} if outcome == "failure" else {}
            self._duration.record(duration_seconds, {**attributes, **failed})
        for key, token_type in _TOKENS.items():
            count = (usage or {}).get(key)
            if type(count) is int and count >= 0:
                self._tokens.record(count, {**attributes, "gen_ai.token.type": token_type})


def _kind(error_type: str | None) -> str:
    return error_type if error_type in FAILURE_KINDS else "unknown"


def _unknown(_: str) -> str:
    return "unknown"
