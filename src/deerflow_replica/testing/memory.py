"""The contract of every `MemoryStorage` that keeps whole documents with revisions.

```python
class TestMyMemoryStorage(MemoryStorageContract):
    @pytest.fixture
    def build(self, tmp_path):
        return partial(MyMemoryStorage, tmp_path / "memory")
```
"""

from __future__ import annotations

from ._memory_changes import ChangeContract
from ._memory_clearing import ClearContract
from ._memory_common import Build
from ._memory_documents import DocumentContract
from ._memory_saves import SaveContract
from ._memory_summaries import SummariesContract

__all__ = ["Build", "MemoryStorageContract"]


class MemoryStorageContract(DocumentContract, SaveContract, ChangeContract, ClearContract, SummariesContract):
    """Subclass it and provide the fixture `build`: a function that returns one more storage on the test's own place.

    Each call is another replica; keywords are `history`, `summaries` and `max_facts`.
    """
