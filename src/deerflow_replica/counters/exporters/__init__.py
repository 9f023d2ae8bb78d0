"""What one process counted, for Prometheus and OpenTelemetry."""

from __future__ import annotations


def label(model_name: str) -> str:
    """A name may be any string, and an export with one lone surrogate in it would fail as a whole."""
    return model_name.encode("utf-8", "backslashreplace").decode()
