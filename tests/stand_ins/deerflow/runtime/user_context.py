"""Whose request this is: what a store falls back to when nobody says."""

from __future__ import annotations

from typing import Final


class _AutoSentinel:
    """`AUTO`: the user of the request under way."""


AUTO: Final = _AutoSentinel()


def resolve_user_id(value: str | _AutoSentinel | None, *, method_name: str = "repository method") -> str | None:
    """No request is under way in a test."""
    if isinstance(value, _AutoSentinel):
        raise RuntimeError(f"{method_name} called with user_id=AUTO but no user context is set")  # noqa: TRY004  # as there
    return value
