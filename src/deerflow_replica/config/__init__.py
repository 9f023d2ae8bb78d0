"""Configuration as a value: built once, frozen to the leaf, carried by the context."""

from __future__ import annotations

from .agents import (
    CircuitBreakerConfig,
    ExtensionsConfig,
    GatewayConfig,
    MemoryConfig,
    ModelConfig,
    ReplicaConfig,
    RunOwnershipConfig,
    TitleConfig,
)
from .app import AppConfig
from .explaining import Change, Explanation
from .scope import app_config_scope, get_app_config, init_app_config
from .section import Section
from .storage import (
    CheckpointerConfig,
    DatabaseConfig,
    ModelFeedbackConfig,
    ModelHealthConfig,
    StoreConfig,
    StreamBridgeConfig,
    UserThreadMappingConfig,
)

__all__ = [
    "AppConfig",
    "Change",
    "CheckpointerConfig",
    "CircuitBreakerConfig",
    "DatabaseConfig",
    "Explanation",
    "ExtensionsConfig",
    "GatewayConfig",
    "MemoryConfig",
    "ModelConfig",
    "ModelFeedbackConfig",
    "ModelHealthConfig",
    "ReplicaConfig",
    "RunOwnershipConfig",
    "Section",
    "StoreConfig",
    "StreamBridgeConfig",
    "TitleConfig",
    "UserThreadMappingConfig",
    "app_config_scope",
    "get_app_config",
    "init_app_config",
]
