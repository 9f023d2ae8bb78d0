"""Runs that another replica accepted and left before they began: executed here, as it would have done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from .bodies import CreateRun
from .starting import request_of

if TYPE_CHECKING:
    from ..runs.registry.records import RunRecord, ThreadHead
    from ..runs.request import RunRequest
    from ..runs.sweeping import Adopt
    from .gateway import Gateway

_BODY = TypeAdapter(CreateRun)


def adopting(gateway: Gateway) -> Adopt:
    """What this app's replica is asked for such a run: None for a graph that is not served here."""

    async def adopted(record: RunRecord, head: ThreadHead) -> RunRequest | None:
        graph = gateway.graph_of_run(record)
        if graph is None or record.assistant_id is None:
            return None
        return request_of(
            gateway,
            _BODY.validate_python({**record.kwargs, "assistant_id": record.assistant_id, "metadata": record.metadata}),
            {"graph_id": graph.name, "assistant_id": record.assistant_id},
            thread_id=record.thread_id,
            run_id=record.run_id,
            user_id=head.user_id,
            hidden=head.hidden,
        )

    return adopted
