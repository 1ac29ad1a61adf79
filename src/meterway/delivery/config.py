"""How much the sending side of a hop may hold and how patient it is."""

from typing import Annotated, Literal

import msgspec

from meterway.core.config import Table


class SpoolConfig(Table, frozen=True):
    """How much a spool may hold."""

    limit_bytes: Annotated[int, msgspec.Meta(ge=8192)] = 2 << 30
    """The most bytes on the disk. At the bound nothing more is accepted until messages are delivered; nothing is
    ever dropped. At least twice ``segment_bytes``."""
    segment_bytes: Annotated[int, msgspec.Meta(ge=4096)] = 64 << 20
    """The size of one file; space comes back in steps of it."""
    alarm_age_s: Annotated[float, msgspec.Meta(gt=0)] = 86_400.0
    """A message that has waited longer raises an alarm (log, ``overdue``); it is kept."""
    linger_s: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.003
    """How long a group waits for company while messages come faster than the disk flushes; else none waits."""

    def __post_init__(self) -> None:
        if self.limit_bytes < 2 * self.segment_bytes:
            raise ValueError(
                f"limit_bytes = {self.limit_bytes} is less than twice segment_bytes = {self.segment_bytes}; raise the "
                "first or lower the second"
            )


class RelayConfig(Table, frozen=True):
    """How messages leave a spool."""

    confirm: Literal["receipt", "broker"] = "receipt"
    """What makes a message done: the receiver's receipt, or, for a foreign receiver that sends none, the broker's
    acknowledgement (then what the broker loses is lost)."""
    in_flight: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 4096
    """The most messages that are sent and not yet confirmed; the rest waits on the disk."""
    in_flight_bytes: Annotated[int, msgspec.Meta(ge=1)] = 16 << 20
    """The most payload bytes of such messages, which are held in memory (one message may pass it)."""
    retry_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    """What is not confirmed after this time is sent again; doubled with each attempt."""
    retry_limit_s: Annotated[float, msgspec.Meta(gt=0)] = 600.0
    """The longest pause between two attempts."""
