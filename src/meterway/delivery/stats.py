"""What spool and relay count, for metrics and status pages."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SpoolStats:
    """What a spool holds and has done; counters count since it was opened."""

    pending: int
    """Messages appended and not done."""
    size_bytes: int
    """On the disk, with what is done but not yet deleted."""
    oldest_age_s: float
    """How long the oldest pending message has waited, exact to a second for short backlogs; 0 if there is none."""
    overdue: bool
    """Whether that is longer than ``alarm_age_s``."""
    appended: int
    done: int
    groups: int
    """Groups written, each with one ``fdatasync``."""
    refused: int
    """Appends refused because the spool was full or the disk too slow."""
    failed: int
    """Messages whose group could not be written; their senders were told."""
    lost: int
    """Messages that were stored and could not be read again; the bytes are in ``*.corrupt`` files."""
    torn_bytes: int
    """Cut off the end at opening: a write that a crash interrupted, never acknowledged."""


@dataclass(frozen=True, slots=True)
class RelayStats:
    """What a relay is doing; counters count since it was made."""

    in_flight: int
    in_flight_bytes: int
    sent: int
    """Messages handed to the broker, repetitions included."""
    resent: int
    """Of these, repetitions."""
    confirmed: int
    unknown: int
    """Digests in receipts that belong to nothing on its way: repeated receipts, or from before a restart."""
    bad_receipts: int
    """Receipts that could not be read."""
    undeliverable: int
    """Messages that no broker takes (see ``Bus.publish``); logged and given up."""
