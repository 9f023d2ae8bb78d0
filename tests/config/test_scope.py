"""The one `ContextVar`."""

from __future__ import annotations

import asyncio
import threading

import pytest

from deerflow_replica import AppConfig, app_config_scope, get_app_config, init_app_config
from deerflow_replica.errors import ContextError

pytestmark = pytest.mark.anyio
ONE, TWO = AppConfig(log_level="debug"), AppConfig(log_level="error")


def test_unset_is_an_error_that_names_the_ways_out() -> None:
    with pytest.raises(ContextError) as raised:
        get_app_config()
    for way in ("context=DeerFlowContext(", "app_config_scope(", "init_app_config("):
        assert way in str(raised.value)


def fail_inside() -> None:
    assert get_app_config() is TWO
    raise ZeroDivisionError


def test_scopes_nest_and_end_also_after_an_error() -> None:
    with app_config_scope(ONE) as entered:
        assert entered is ONE
        with pytest.raises(ZeroDivisionError), app_config_scope(TWO):
            fail_inside()
        assert get_app_config() is ONE
    with pytest.raises(ContextError):
        get_app_config()


@pytest.mark.parametrize("wrong", [None, {}, AppConfig().memory, "config.yaml"])
def test_only_an_app_config_enters(wrong: object) -> None:
    with pytest.raises(TypeError, match="AppConfig"):
        init_app_config(wrong)  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(TypeError, match="AppConfig"), app_config_scope(wrong):  # type: ignore[arg-type]  # as above
        pass


async def test_tasks_and_to_thread_inherit_siblings_do_not() -> None:
    async def sibling(config: AppConfig) -> AppConfig:
        init_app_config(config)
        await asyncio.sleep(0)
        return get_app_config()

    assert tuple(await asyncio.gather(sibling(ONE), sibling(TWO))) == (ONE, TWO)
    with pytest.raises(ContextError):
        get_app_config()
    with app_config_scope(ONE):
        assert await asyncio.create_task(asyncio.to_thread(get_app_config)) is ONE


def test_a_bare_thread_starts_empty() -> None:
    seen: list[object] = []

    def look() -> None:
        try:
            seen.append(get_app_config())
        except ContextError as error:
            seen.append(type(error))

    with app_config_scope(ONE):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert seen == [ContextError]
