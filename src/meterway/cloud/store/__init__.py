"""The store of the cloud: readings, meters, and what could not become a reading, in PostgreSQL.

The only package that knows the database driver. ``Store`` is what the other parts of the cloud use.
"""

from meterway.cloud.store.aside import Bounds
from meterway.cloud.store.database import Row
from meterway.cloud.store.rows import Arrived, ArrivedFault, ArrivedReading, ArrivedReport, Rejected
from meterway.cloud.store.store import Store
from meterway.cloud.store.writer import Committed

__all__ = [
    "Arrived",
    "ArrivedFault",
    "ArrivedReading",
    "ArrivedReport",
    "Bounds",
    "Committed",
    "Rejected",
    "Row",
    "Store",
]
