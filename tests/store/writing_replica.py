"""A process of several that set up and write one store at once: `KIND KEYWORDS NUMBER`; says how many races it won."""

from __future__ import annotations

import json
import sys
from typing import Any

from deerflow_replica import store as stores
from deerflow_replica.errors import VersionConflictError
from deerflow_replica.store import SharedStore

ROUNDS = 10
UPDATES = 20


def added(value: dict[str, Any] | None) -> dict[str, Any]:
    return {"n": (value or {"n": 0})["n"] + 1}


def races_won(store: SharedStore, number: int) -> int:
    won = 0
    for round_ in range(ROUNDS):
        try:
            store.put(("race",), str(round_), {"by": number}, if_version=0)
            won += 1
        except VersionConflictError:
            continue
    return won


def main(kind: str, keywords: str, number: int) -> None:
    with getattr(stores, kind)(**json.loads(keywords)) as store:
        store.setup()
        store.put(("replicas",), str(number), {})
        won = races_won(store, number)
        for _ in range(UPDATES):
            store.update(("sum",), "k", added)
    sys.stdout.write(f"{won}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
