"""The contract of every `StreamBridge`.

```python
class TestMyStreamBridge(StreamBridgeContract):
    @pytest.fixture
    def build(self):
        return MyStreamBridge
```
"""

from __future__ import annotations

from ._stream_batches import BatchesContract
from ._stream_common import Build
from ._stream_cursor import CursorContract
from ._stream_lifetime import LifetimeContract
from ._stream_limits import LimitsContract
from ._stream_payload import PayloadContract
from ._stream_publishing import PublishingContract

__all__ = ["Build", "StreamBridgeContract"]


class StreamBridgeContract(
    PayloadContract, CursorContract, BatchesContract, PublishingContract, LimitsContract, LifetimeContract
):
    """Subclass it and provide the fixture `build`: a function that returns one more bridge on the test's own server.

    Keywords are those that all backends share. The bridges are not yet entered.
    """
