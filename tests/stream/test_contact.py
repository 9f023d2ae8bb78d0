"""How long readers wait for a server that is away."""

from __future__ import annotations

import pytest

from deerflow_replica.errors import StreamUnavailableError
from deerflow_replica.stream import RedisStreamBridge
from deerflow_replica.stream.contact import Contact

pytestmark = pytest.mark.anyio


async def test_who_came_while_it_was_away_is_given_the_same_time() -> None:
    hub = RedisStreamBridge()._feed.hub  # touches no server
    contact = Contact(hub, lambda: None, unavailable_after_seconds=60)
    early, late = hub.attach("r", None), hub.attach("r", None)
    early.started -= 100
    contact.lost("reads", StreamUnavailableError("away"))
    assert (early.take(), late.take()) == (None, None)
    contact._down_since["reads"] -= 100  # a minute takes a minute
    contact.lost("reads", StreamUnavailableError("away"))
    with pytest.raises(StreamUnavailableError, match="no contact for 60 s"):
        early.take()
    assert late.take() is None
    assert contact.losses == 1
