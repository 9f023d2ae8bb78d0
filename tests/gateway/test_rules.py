"""The pure rules of the gateway: cursors, filters, identifiers, and what a client may say in a run's config."""

from __future__ import annotations

import pytest
from starlette.exceptions import HTTPException

from deerflow_replica.gateway.bodies import CreateRun
from deerflow_replica.gateway.cursors import plan
from deerflow_replica.gateway.filters import asked_modes, event_filter, query_of
from deerflow_replica.gateway.ids import as_uuid, new_run_id, system_assistant_id
from deerflow_replica.gateway.starting import run_config

ID = "1700000000000000-3"


@pytest.mark.parametrize(
    ("cursor", "running", "retained", "gone"),
    [
        (None, "now", "nothing", "nothing"),
        ("nonsense", "now", "nothing", "nothing"),
        ("01-1", "now", "nothing", "nothing"),
        ("\u0661-\u0661", "now", "nothing", "nothing"),
        (f"{2**64}-0", "now", "nothing", "nothing"),
        ("-2", "now", "nothing", "nothing"),
        ("-1", "all", "all", "nothing"),
        ("0", "all", "all", "gap"),
        ("0-0", "all", "all", "gap"),
        (ID, "after", "after", "gap"),
    ],
)
def test_a_join_is_planned_by_its_cursor(cursor: str | None, running: str, retained: str, gone: str) -> None:
    assert plan(cursor, over=False, retained=True) == running
    assert plan(cursor, over=False, retained=False) == running
    assert plan(cursor, over=True, retained=True) == retained
    assert plan(cursor, over=True, retained=False) == gone


@pytest.mark.parametrize(
    ("given", "modes"),
    [
        ([], ()),
        (["values"], ("values",)),
        (["values", "updates"], ("values", "updates")),
        (['["values","messages-tuple"]'], ("values", "messages-tuple")),
    ],
)
def test_modes_are_single_repeated_or_a_json_array(given: list[str], modes: tuple[str, ...]) -> None:
    assert asked_modes(given) == modes


@pytest.mark.parametrize("given", ["events", '["values"', '{"a":1}', "[1]"])
def test_an_unknown_mode_is_refused(given: str) -> None:
    with pytest.raises(HTTPException) as refused:
        asked_modes([given])
    assert refused.value.status_code == 422


def test_a_filter_passes_its_modes_and_what_every_reader_needs() -> None:
    wanted = event_filter(("updates", "messages"))
    names = ["updates", "updates|sub:1", "messages/partial", "messages", "metadata", "error", "values", "custom"]
    assert [name for name in names if wanted(name)] == names[:6]
    assert all(map(event_filter(()), names))


def test_the_way_back_to_a_filtered_join_keeps_its_filter() -> None:
    assert query_of(()) == ""
    assert query_of(("values", "updates")) == "?stream_mode=%5B%22values%22%2C%22updates%22%5D"


@pytest.mark.parametrize("value", ["", "abc", "{11111111-1111-4111-8111-111111111111}", 1, None, "1" * 32])
def test_only_a_uuid_is_one(value: object) -> None:
    with pytest.raises(ValueError, match="not a UUID"):
        as_uuid(value)


def test_a_uuid_has_one_spelling() -> None:
    assert as_uuid("ABCDEF12-1111-4111-8111-111111111111") == "abcdef12-1111-4111-8111-111111111111"


def test_run_ids_sort_by_time_and_assistants_have_one_id_everywhere() -> None:
    ids = [new_run_id() for _ in range(50)]
    assert ids == sorted(ids)
    assert as_uuid(ids[0])[14] == "7"
    assert system_assistant_id("agent") == "fe096781-5601-53d2-b2f6-0d3403f7e9ca"


def test_a_client_cannot_say_who_it_is() -> None:
    body = CreateRun.model_validate(
        {
            "assistant_id": "agent",
            "config": {
                "tags": ["t"],
                "callbacks": ["x"],
                "configurable": {
                    "thread_id": "theirs",
                    "user_id": "them",
                    "langgraph_auth_user_id": "them",
                    "__pregel_resuming": True,
                    "run_id": "other",
                    "color": "red",
                },
            },
            "checkpoint": {"thread_id": "theirs", "checkpoint_ns": "", "checkpoint_id": "c1"},
            "metadata": {"m": 1},
        }
    )
    identity = {"thread_id": "mine", "run_id": "r", "user_id": "me"}
    config = run_config(body, identity)
    assert config["configurable"] == {"color": "red", "checkpoint_ns": "", "checkpoint_id": "c1", **identity}
    assert config["tags"] == ["t"]
    assert "callbacks" not in config
    assert config["metadata"] == {"m": 1, **identity}
