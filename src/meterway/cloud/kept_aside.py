"""Quarantine, conflicts and faults as the API shows them. Pure.

What strangers sent stays bytes (base64) here; ``preview`` is text for eyes, without control characters.
"""

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta

from meterway.cloud.answers import Row
from meterway.cloud.query import Statement
from meterway.core.errors import BadDataError

DEFAULT_ITEMS = 50
LIMIT_ITEMS = 500
PREVIEW_BYTES = 240
LIMIT_REPLAY = 1000

Item = TypeVar("Item", bound=msgspec.Struct)


class QuarantineItem(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message that could not be understood."""

    id: int
    topic: str
    reason: str
    message: str
    size_bytes: int
    """How long the payload was when it arrived."""
    seen_count: int
    """How often the same message came."""
    received_time: datetime
    preview: str
    """The beginning of the payload as text."""


class QuarantineDetail(QuarantineItem, frozen=True, kw_only=True, rename="camel"):
    """One message with its bytes."""

    payload: str
    """Base64; shorter than ``sizeBytes`` where only the beginning was kept."""


class FaultItem(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A telegram that an adapter or a concentrator rejected."""

    id: int
    concentrator_id: str
    meter_id: str | None
    fault_time: datetime
    reason: str
    message: str
    preview: str
    received_time: datetime


class ConflictItem(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A reading whose identifier is taken by one with another content; that one stays."""

    id: int
    meter_id: str
    reading_time: datetime
    reading_id: UUID
    topic: str
    preview: str
    received_time: datetime


class QuarantineList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Newest first."""

    content: tuple[QuarantineItem, ...]
    next_before: int | None
    """Send as ``before`` for the next page; null at the end."""


class FaultList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Newest first."""

    content: tuple[FaultItem, ...]
    next_before: int | None


class ConflictList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Newest first."""

    content: tuple[ConflictItem, ...]
    next_before: int | None


class ReplayRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/quarantine/replay``."""

    ids: Annotated[tuple[Annotated[int, Meta(ge=1, le=2**63 - 1)], ...], Meta(min_length=1, max_length=LIMIT_REPLAY)]


def parse_replay(body: bytes) -> ReplayRequest:
    """Return the request in a body.

    Raises:
        BadDataError: with a sentence that names the field.
    """
    try:
        return msgspec.json.decode(body, type=ReplayRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadDataError(
            f'The body is not a list of ids: {error}. Send {{"ids": [1, 2]}}.', reason="bad-replay"
        ) from error


def select_quarantine(before: int | None, limit: int) -> Statement:
    """Return the statement for the ``limit`` messages before the id ``before``, newest first."""
    return Statement(
        "select quarantine_key as id, topic, reason, message, size_bytes, seen_count, received_time, "
        "substring(payload for $3::integer) as bytes from quarantine "
        "where $1::bigint is null or quarantine_key < $1 order by quarantine_key desc limit $2::bigint",
        (before, limit, PREVIEW_BYTES),
    )


def select_quarantined(key: int) -> Statement:
    """Return the statement for one message with all its bytes."""
    return Statement(
        "select quarantine_key as id, topic, reason, message, size_bytes, seen_count, received_time, payload as bytes "
        "from quarantine where quarantine_key = $1::bigint",
        (key,),
    )


def select_keys(keys: Sequence[int]) -> Statement:
    """Return the statement for which of the messages there are."""
    return Statement("select quarantine_key from quarantine where quarantine_key = any($1::bigint[])", (list(keys),))


def select_faults(before: int | None, limit: int) -> Statement:
    """Return the statement for faults, as ``select_quarantine``."""
    return Statement(
        "select fault_key as id, concentrator_id, meter_id, fault_time, reason, message, received_time, "
        "substring(data for $3::integer) as bytes from fault "
        "where $1::bigint is null or fault_key < $1 order by fault_key desc limit $2::bigint",
        (before, limit, PREVIEW_BYTES),
    )


def select_conflicts(before: int | None, limit: int) -> Statement:
    """Return the statement for conflicts, as ``select_quarantine``."""
    return Statement(
        "select conflict_key as id, meter_id, reading_time, reading_identifier as reading_id, topic, received_time, "
        "substring(payload for $3::integer) as bytes from conflict "
        "where $1::bigint is null or conflict_key < $1 order by conflict_key desc limit $2::bigint",
        (before, limit, PREVIEW_BYTES),
    )


def preview(data: bytes) -> str:
    """Return bytes as text for eyes: what is not printable becomes a middle dot."""
    text = data[:PREVIEW_BYTES].decode("utf-8", "replace")
    return "".join(mark if mark.isprintable() and mark != "\ufffd" else "·" for mark in text)


def item(row: Row, kind: type[Item]) -> Item:
    """Return what a row of one of the statements here shows."""
    data = row["bytes"] if isinstance(row["bytes"], bytes) else b""
    made = {"preview": preview(data), "payload": b64encode(data).decode()}
    return kind(**{name: made[name] if name in made else row[name] for name in kind.__struct_fields__})
