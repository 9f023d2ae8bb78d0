"""The contract of every `ModelCounters`, and of the `ModelHealth` on it.

```python
class TestMyCounters(ModelCountersContract):
    @pytest.fixture
    def build(self, tmp_path):
        return partial(MyCounters, tmp_path / "counters.db")
```
"""

from __future__ import annotations

from ._counters_common import Build
from ._counters_health import HealthContract
from ._counters_lifetime import LifetimeContract, WindowContract
from ._counters_records import RecordContract
from ._counters_votes import IncrementContract, VoteContract

__all__ = ["Build", "ModelCountersContract"]


class ModelCountersContract(
    RecordContract, IncrementContract, VoteContract, WindowContract, LifetimeContract, HealthContract
):
    """Define the fixture `build`: a function that makes new counters (not opened) of its keywords.

    Counters that replicas share pass `SharedModelCountersContract`, too.
    """
