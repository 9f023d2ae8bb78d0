"""What tests of replicas need: the contract suites that our own backends pass, and real servers to run them on.

```python
from deerflow_replica.testing import ThreadMapContract


class TestMyThreadMap(ThreadMapContract):
    ...  # the fixtures that the suite's docstring names
```

Needs the extra `testing`; the servers need `embedded`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .._extras import extra

if TYPE_CHECKING:
    from .._drivers.embedded import EmbeddedPostgres, EmbeddedValkey
    from .assistants import AssistantsContract
    from .counters import ModelCountersContract
    from .counters_shared import SharedModelCountersContract
    from .memory import MemoryStorageContract
    from .runs import RunRegistryContract
    from .store import StoreContract
    from .stream import StreamBridgeContract
    from .threads import ThreadMapContract

__all__ = [
    "AssistantsContract",
    "EmbeddedPostgres",
    "EmbeddedValkey",
    "MemoryStorageContract",
    "ModelCountersContract",
    "RunRegistryContract",
    "SharedModelCountersContract",
    "StoreContract",
    "StreamBridgeContract",
    "ThreadMapContract",
]


def __getattr__(name: str) -> Any:
    """Imported when asked for: the servers need no pytest, and the suites no servers."""
    homes = {
        "AssistantsContract": ".assistants",
        "EmbeddedPostgres": ".._drivers.embedded",
        "EmbeddedValkey": ".._drivers.embedded",
        "MemoryStorageContract": ".memory",
        "ModelCountersContract": ".counters",
        "RunRegistryContract": ".runs",
        "SharedModelCountersContract": ".counters_shared",
        "StoreContract": ".store",
        "StreamBridgeContract": ".stream",
        "ThreadMapContract": ".threads",
    }
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with extra("testing"):
        return getattr(import_module(homes[name], __name__), name)
