"""What a concentrator needs to know: two brokers, a place on the disk, and how delivery is confirmed."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from meterway.bus.bus import BrokerConfig
from meterway.core import topics
from meterway.core.config import Table
from meterway.delivery.config import RelayConfig, SpoolConfig
from meterway.delivery.metrics import MetricsConfig


class LimitsConfig(Table, frozen=True):
    """What a concentrator passes on."""

    payload_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1 << 20)] = 1 << 20
    """The longest payload; a longer one is reported on `concentrator/[concentratorId]/faults` instead."""


class ConcentratorConfig(Table, frozen=True, kw_only=True):
    """One concentrator."""

    id: str
    """The concentrator id: 1 to 64 letters, digits, `_` or `-`. It stands in every topic towards the cloud."""
    local: BrokerConfig = BrokerConfig()
    """The broker on which the adapters publish."""
    cloud: BrokerConfig
    """The cloud's broker; may be the same one."""
    spool_dir: Path
    """Where messages wait until the cloud has them; on a disk that survives a restart."""
    spool: SpoolConfig = SpoolConfig()
    relay: RelayConfig = RelayConfig()
    """`confirm = "broker"` is for a cloud that sends no receipts."""
    receipts: Literal["disk", "cloud"] = "disk"
    """When a sender is told that a message is safe, and deletes it: when it is on this disk, or when the cloud has it.
    With `cloud` nothing is lost even if this disk is, for the adapters still have it; while the cloud is away their
    spools fill."""
    limits: LimitsConfig = LimitsConfig()
    metrics: MetricsConfig = MetricsConfig()

    def __post_init__(self) -> None:
        topics.check_id(self.id, "concentrator id")
