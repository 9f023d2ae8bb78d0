"""What only MongoDB has: what was folded is in one document for each model."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pymongo import MongoClient

from deerflow_replica.counters import MongoModelCounters
from deerflow_replica.counters._fleet import FOLDED_KEPT_SECONDS

pytestmark = pytest.mark.anyio


async def test_rows_that_slept_too_long_go_and_their_counts_stay(mongo_url: str, mongo_database: str) -> None:
    async with MongoModelCounters(mongo_url, database=mongo_database, flush_interval_seconds=3600) as counters:
        counters.record("m", "success", duration_seconds=0.5)
        await counters.flush()
        assert await counters.compact(dead_after_seconds=0) == 1
    with MongoClient[dict[str, Any]](mongo_url) as client:
        rows = client[mongo_database]["model_usage_stats"]
        folded = client[mongo_database]["model_usage_stats_folded"]
        long_ago = time.time() - FOLDED_KEPT_SECONDS - 60
        rows.update_many({}, {"$set": {"written_at": int(long_ago * 1e6)}})
        (document,) = folded.find({})
        aged = document["folded"].rpartition(", ")[0] + f", {long_ago}]}}"
        folded.update_one({}, {"$set": {"folded": aged}})
        async with MongoModelCounters(mongo_url, database=mongo_database) as counters:
            before = await counters.totals()
            assert await counters.compact() == 0
            assert await counters.totals() == before
            assert before["m"].call_count == 1
        assert rows.count_documents({"bucket": 0}) == 0
        assert [one["folded"] for one in folded.find({})] == ["{}"]
