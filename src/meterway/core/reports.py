"""What adapters and concentrators say beside readings: status, description of the meter, faults. JSON, camelCase."""

from datetime import datetime
from typing import Annotated, Literal, TypeVar

import msgspec

from meterway.core.errors import BadDataError

Instant = Annotated[datetime, msgspec.Meta(tz=True)]

FAULT_DATA_LIMIT_BYTES = 4096
"""A fault carries at most this much of what was rejected; ``size_bytes`` tells how much there was."""

LIMIT_PAYLOAD_BYTES = 256 * 1024
"""A longer report is refused unread."""


class _Report(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Unknown fields are ignored, so that an old cloud understands a new edge."""


class Status(_Report, frozen=True):
    """On ``.../status``, retained. The last will is the same with ``state = offline``."""

    state: Literal["online", "waiting", "silent", "offline"]
    """online: readings come. waiting: link open, none yet. silent: none for longer than the watchdog allows.
    offline: the link or the adapter is down."""
    since: Instant
    """When this state began; in a last will, when the connection began."""
    detail: str | None = None
    """A sentence for people: why, and what to do."""
    reason: str | None = None
    """With ``offline``, a short stable word: ``stopped`` or ``died`` (the sender), ``link`` (the way to the meter)."""
    counters: dict[str, int] = msgspec.field(default_factory=dict)
    """What was counted since the process began, by name."""


class OfferedProperty(_Report, frozen=True):
    property_id: str
    unit: str | None = None


class MeterDescription(_Report, frozen=True):
    """On ``.../meter``, retained: what the meter is, and which link, protocol and properties it offers."""

    meter_individual_id: str
    physical_meter_class: Literal["ELECTRICITY", "GAS", "WATER", "HEAT"]
    protocol: str
    link: str
    """serial, tcp, replay, ... without address or secret."""
    family: str
    """The family of meters (``meter/families``) that the adapter uses."""
    says: str | None = None
    """How the meter calls itself, with the individual part of the number elided."""
    interval_s: float | None = None
    """How often a reading is expected."""
    properties: tuple[OfferedProperty, ...] = ()
    unmapped: tuple[str, ...] = ()
    """OBIS codes that the meter sends and no property was found for."""
    signing_key: str | None = None
    """The public key of those who sign its readings (``core.signatures``); for people, the cloud learns it from the
    readings themselves."""


class Fault(_Report, frozen=True):
    """On ``.../faults``: something that was rejected, with the reason and the bytes."""

    time: Instant
    reason: str
    """A short stable word: ``bad-checksum``, ``bad-identifier``, ..."""
    message: str
    """A sentence for people."""
    data: bytes = b""
    """Base64 on the wire; redacted; at most ``FAULT_DATA_LIMIT_BYTES``."""
    size_bytes: int = 0
    """How long ``data`` was before it was cut."""
    topic: str | None = None
    """Where a concentrator received it."""


Report = TypeVar("Report", Status, MeterDescription, Fault)

_encoder = msgspec.json.Encoder()


def encode(report: _Report) -> bytes:
    """Return the payload."""
    return _encoder.encode(report)


def decode(payload: bytes, kind: type[Report]) -> Report:
    """Return the report in a payload.

    Raises:
        BadDataError: it is longer than ``LIMIT_PAYLOAD_BYTES`` (reason ``too-large``), or not JSON of that shape
            (``bad-report``).
    """
    if len(payload) > LIMIT_PAYLOAD_BYTES:
        raise BadDataError(
            f"a {kind.__name__} report has at most {LIMIT_PAYLOAD_BYTES} bytes, this one {len(payload)}",
            reason="too-large",
        )
    try:
        return msgspec.json.decode(payload, type=kind)
    except RecursionError as error:
        raise BadDataError(f"not a {kind.__name__} report: nested too deeply", reason="bad-report") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadDataError(f"not a {kind.__name__} report: {error}", reason="bad-report") from error
