"""DeerFlow's records of threads as rows, and what an update means in its terms."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from .rules import Row
from .validation import json_text, metadata_text

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def row_of(thread_id: str, record: Mapping[str, Any]) -> Row:
    """Its version is when it was changed last, which is all that DeerFlow keeps of its history."""
    updated_at = micros_of(record.get("updated_at"))
    return Row(
        thread_id=thread_id,
        user_id=str(record.get("user_id") or ""),
        assistant_id=record.get("assistant_id"),
        display_name=record.get("display_name"),
        status=record.get("status") or "idle",
        metadata=json_text(dict(record.get("metadata") or {})),
        created_at=micros_of(record.get("created_at")),
        updated_at=updated_at,
        version=updated_at,
        ttl=None,
        expires_at=None,
        deleted_at=None,
        change="",
    )


def micros_of(moment: object) -> int:
    """Of ISO text, UTC where it does not say, or of the seconds in old records; 0 for anything else."""
    text = moment.isoformat() if isinstance(moment, datetime) else str(moment)
    with contextlib.suppress(ValueError, OverflowError):
        return round(float(text) * 1_000_000)
    with contextlib.suppress(ValueError):
        told = datetime.fromisoformat(text)
        return ((told if told.tzinfo else told.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)
    return 0


def changed_metadata(old: Row, new: Row) -> dict[str, Any]:
    """What has to be merged into the old metadata; a key that went is null, as DeerFlow removes none."""
    before, after = json.loads(old.metadata), json.loads(new.metadata)
    changed = {key: value for key, value in after.items() if key not in before or _differ(before[key], value)}
    return changed | {key: None for key in before if key not in after and before[key] is not None}


def _differ(one: Any, other: Any) -> bool:
    """Also where Python sees none, as between 1 and true."""
    return metadata_text({"": one}) != metadata_text({"": other})
