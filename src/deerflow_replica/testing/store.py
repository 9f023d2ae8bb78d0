"""The contract of every store: a `SharedStore` over a `Backend` of yours.

```python
class TestMyStore(StoreContract):
    @pytest.fixture
    def build(self, tmp_path):
        return partial(MyStore, tmp_path / "store.db")
```
"""

from __future__ import annotations

from ._store_batches import BatchContract, LifeContract
from ._store_common import BuildStore
from ._store_expiry import ExpiryContract
from ._store_import import ImportContract
from ._store_items import ItemContract
from ._store_plain import PlainStoreContract
from ._store_search import NamespaceContract, SearchContract
from ._store_versions import ScopeContract, SyncContract, VersionContract

__all__ = ["BuildStore", "PlainStoreContract", "StoreContract"]


class StoreContract(
    ItemContract,
    SearchContract,
    NamespaceContract,
    BatchContract,
    VersionContract,
    ScopeContract,
    ExpiryContract,
    ImportContract,
    SyncContract,
    LifeContract,
    PlainStoreContract,
):
    """Subclass it and provide the fixture `build`: a function that returns one more store on the test's own database.

    Each call is another replica; keywords are those that all backends share. The stores are not yet set up.
    """
