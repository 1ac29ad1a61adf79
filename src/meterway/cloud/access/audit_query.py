"""The audit log as the API shows it, and its statement. Pure."""

from datetime import datetime

import msgspec

from meterway.cloud.access.people import answer
from meterway.cloud.answers import Row
from meterway.cloud.query import Statement

DEFAULT_ENTRIES = 100
LIMIT_ENTRIES = 500


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Who did what to what."""

    id: int
    time: datetime
    actor: str
    """The login; ``(open)`` where everybody may do everything."""
    action: str
    """read, changed, exported, deleted, signed-in, sign-in-failed, signed-out."""
    subject: str
    """A meter id, or a kind and a name, as ``account/ada``."""
    detail: msgspec.Raw | None
    """Filters and ids."""


class AuditList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A page of the audit log, newest first."""

    content: tuple[AuditEntry, ...]
    next_before: int | None
    """Send as ``before`` for the next page; null at the end."""


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What to list; None: whatever it is."""

    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    start: datetime | None = None
    end: datetime | None = None


def select_audit(wanted: AuditFilter, before: int | None, limit: int) -> Statement:
    """Return the statement for ``limit`` entries before the id ``before``, newest first."""
    return Statement(
        """
        select audit_key, audit_time, actor, action, subject, detail::text as detail from audit
        where ($1::bigint is null or audit_key < $1) and ($2::text is null or actor = $2)
              and ($3::text is null or action = $3) and ($4::text is null or subject = $4)
              and ($5::timestamptz is null or audit_time >= $5) and ($6::timestamptz is null or audit_time < $6)
        order by audit_key desc limit $7::bigint
        """,
        (before, wanted.actor, wanted.action, wanted.subject, wanted.start, wanted.end, limit),
    )


def entry(row: Row) -> AuditEntry:
    """Return what a row shows."""
    detail = row["detail"]
    return answer(
        row,
        AuditEntry,
        id=row["audit_key"],
        time=row["audit_time"],
        detail=None if detail is None else msgspec.Raw(str(detail).encode()),
    )
