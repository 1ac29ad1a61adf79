"""The store of the cloud: readings, meters, and what could not become a reading, in PostgreSQL.

The only package that knows the database driver. ``Store`` is what the other parts of the cloud use.
"""

from meterway.cloud.store.database import Row
from meterway.cloud.store.store import Store

__all__ = ["Row", "Store"]
