"""Identifiers that go into SQL text."""

from __future__ import annotations

import pytest

from deerflow_replica._drivers.statements import quoted
from deerflow_replica.errors import ConfigError


def test_a_part_that_is_none_is_left_out() -> None:
    assert quoted("schema", "table") == '"schema"."table"'
    assert quoted(None, "table") == '"table"'


@pytest.mark.parametrize("part", ["", " ", "a.b", 'a"b', "1a", "ä", "a" * 64, "a\n"])
def test_what_is_no_plain_identifier_is_refused(part: str) -> None:
    for parts in ((part, "table"), ("schema", part), (part,)):
        with pytest.raises(ConfigError, match="plain SQL identifier"):
            quoted(*parts)
