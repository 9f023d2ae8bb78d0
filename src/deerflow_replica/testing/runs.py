"""What every run registry must do.

```python
class TestMyRunRegistry(RunRegistryContract):
    @pytest.fixture
    def build(self, tmp_path):
        return lambda: MyRunRegistry(tmp_path / "runs.db")
```
"""

from __future__ import annotations

from ._runs_admission import AdmissionContract
from ._runs_adoption import AdoptionContract
from ._runs_cancelling import CancelContract
from ._runs_common import Build
from ._runs_endings import EndingContract
from ._runs_leases import LeaseContract
from ._runs_threads import ThreadRowContract

__all__ = ["Build", "RunRegistryContract"]


class RunRegistryContract(
    AdmissionContract, EndingContract, LeaseContract, CancelContract, AdoptionContract, ThreadRowContract
):
    """Subclass it and provide the fixture `build`: a function that makes one more replica's registry, each on the same
    new rows.
    """
