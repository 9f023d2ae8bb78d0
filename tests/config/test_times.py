"""How long a time can be: a database takes none without end, and a wrong one is named where it was written."""

from __future__ import annotations

import math
from typing import Any

import pytest

from deerflow_replica import AppConfig
from deerflow_replica.errors import ConfigError

OURS = [
    ("stream_bridge", "publish_timeout_seconds"),
    ("stream_bridge", "lease_seconds"),
    ("user_thread_mapping", "ttl_seconds"),
    ("model_feedback", "flush_interval_seconds"),
    ("replica", "connect_timeout_seconds"),
    ("gateway", "lease_seconds"),
    ("gateway", "retention_seconds"),
]


@pytest.mark.parametrize(("section", "field"), OURS)
def test_a_time_of_ours_is_at_most_31_years(section: str, field: str) -> None:
    for seconds in (math.inf, math.nan, 1e18):
        with pytest.raises(ConfigError) as caught:
            AppConfig.from_mapping({section: {field: seconds}})
        assert [problem.key for problem in caught.value.problems] == [f"{section}.{field}"]
    assert AppConfig.from_mapping({section: {field: 1e9}}).get(f"{section}.{field}") == 1e9


def test_what_deerflow_takes_is_taken() -> None:
    data: Any = {
        "database": {"command_timeout": math.inf},
        "stream_bridge": {"recovered_stream_cleanup_delay_seconds": math.inf},
    }
    assert AppConfig.from_mapping(data).database.command_timeout == math.inf
