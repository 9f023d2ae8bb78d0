"""Checked by the type checkers, not run."""

from __future__ import annotations

from typing import assert_type

from langchain.tools import ToolRuntime
from langgraph.runtime import Runtime

from deerflow_replica import AppConfig, DeerFlowContext, app_config_scope, get_app_config, resolve_context
from deerflow_replica.config import MemoryConfig, ModelConfig
from deerflow_replica.config.targets import Target, target_of


def contexts(runtime: Runtime[DeerFlowContext], tool: ToolRuntime[DeerFlowContext]) -> None:
    assert_type(resolve_context(runtime), DeerFlowContext)
    assert_type(resolve_context(tool).app_config, AppConfig)
    assert_type(runtime.context.thread_id, str)
    assert_type(runtime.context.user_id, str | None)


def configs(config: AppConfig) -> None:
    assert_type(config.memory, MemoryConfig)
    assert_type(config.memory.enabled, bool)
    assert_type(config.models, tuple[ModelConfig, ...])
    assert_type(config.get_model_config("m"), ModelConfig | None)
    assert_type(config.evolve({}), AppConfig)
    assert_type(config.memory.model_copy(update={}), MemoryConfig)
    assert_type(AppConfig.from_file(), AppConfig)
    assert_type(get_app_config(), AppConfig)
    assert_type(target_of(config, "store"), Target)
    with app_config_scope(config) as entered:
        assert_type(entered, AppConfig)
    config.log_level = "debug"  # type: ignore[misc]  # frozen
    AppConfig(log_level=5)  # type: ignore[arg-type]  # checked
