"""The contract of every `ThreadMap`.

```python
class TestMyThreadMap(ThreadMapContract):
    @pytest.fixture
    def build(self, tmp_path):
        return partial(MyThreadMap, tmp_path / "threads.db")
```
"""

from __future__ import annotations

from ._threads_claims import ClaimContract
from ._threads_common import Build
from ._threads_expiry import ExpiryContract
from ._threads_lists import ListContract
from ._threads_tenants import TenantContract
from ._threads_updates import UpdateContract

__all__ = ["Build", "ThreadMapContract"]


class ThreadMapContract(ClaimContract, ListContract, UpdateContract, ExpiryContract, TenantContract):
    """Subclass it and provide the fixture `build`: a function that returns one more map on the test's own store.

    Each call is another replica; keywords are those that all backends share. The maps are not yet set up.
    """
