"""What the replicas of a fleet have stored, and how it adds up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ._counts import UPDATED, Counts, add, subtract

BASE = ""  # the boot id of the row that compaction folds others into
FOLDED_KEPT_SECONDS = 30 * 86400.0  # how long a replica may sleep and still be recognised
ABANDONED_SECONDS = 2 * 3600.0  # live replicas drop their own buckets long before


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One row of a store. `folded` is the part of `counts` that the base row has already."""

    boot_id: str
    model_name: str
    counts: Counts
    folded: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Vote:
    """One user's vote on one run. `sentiment` is 1, -1, or None: no vote."""

    thread_id: str
    run_id: str
    user_id: str
    model_name: str
    sentiment: int | None

    @property
    def key(self) -> str:
        """A digest of the three ids as three: an index entry of fixed size, whatever is in them."""
        return hashlib.sha256(json.dumps([self.thread_id, self.run_id, self.user_id]).encode()).hexdigest()


def fleet_counts(
    stored: Iterable[StoredRow], local: Mapping[str, Iterable[Mapping[str, Any]]], boot_id: str
) -> dict[str, Counts]:
    """The sum over the fleet by model, with this process's own rows (`boot_id`) as they are here and now."""
    result: dict[str, Counts] = {}
    for row in stored:
        counts = result.setdefault(row.model_name, {})
        if row.boot_id != boot_id:
            add(counts, row.counts)
        subtract(counts, row.folded)
    for name, parts in local.items():
        for part in parts:
            add(result.setdefault(name, {}), part)
    return {name: counts for name, counts in sorted(result.items()) if counts}


def unfolded(row: StoredRow) -> Counts:
    """What the base row does not have yet."""
    counts = dict(row.counts)
    subtract(counts, row.folded)
    return counts


def vote_counts(positive: int, negative: int, voted_at: float) -> Counts:
    return {"positive_feedback_count": positive, "negative_feedback_count": negative, UPDATED: voted_at}


def dump(counts: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in counts.items() if value})


def storable(text: str) -> str:
    """`text` where a database can hold it: NUL and lone surrogates are escaped as in JSON, readable text is not."""
    return text if text.isprintable() and "\\" not in text else json.dumps(text)[1:-1]


def restored(text: str) -> str:
    return str(json.loads(f'"{text}"')) if "\\" in text else text
