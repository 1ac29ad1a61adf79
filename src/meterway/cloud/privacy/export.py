"""All that is known of a person, as one ZIP that is made while it is sent: memory stays bounded however long it is."""

import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from zipfile import ZIP_DEFLATED, ZipFile

import msgspec

from meterway.cloud.answers import encoder, reading_answer
from meterway.cloud.context import Context
from meterway.cloud.privacy.statements import select_consents, select_residences
from meterway.cloud.query import Cursor, ReadingQuery, Statement, select_readings
from meterway.cloud.store import Row
from meterway.cloud.store.erasure import digest_of

ROWS = 1000
"""What is in memory at a time; no transaction stays open while a slow client reads."""

README = """\
Everything that this Meterway keeps about {login}, made {now}.

account.json      login, name, role, when it was made
residences.json   where they live or lived, from when to when, and the meters there
{readings}
consents.json     consents they gave, also revoked and expired ones
sessions.json     browsers they are signed in with, and API tokens (never the secrets themselves)
audit.ndjson      what they did, and what others did to their account, an entry a line
erasures.json     erasures of this account, if it was restored from a backup of before one

Not in it: passwords (only a digest is kept), what other people did, and readings of the time when they lived elsewhere.
"""
_READINGS = """\
readings/         the readings of those meters in that time: a file a meter and residence, a reading a line (JSON);
                  numbers have exactly the digits that the meter sent; times are in UTC"""
_NO_READINGS = """\
readings/         not here, because a researcher sees no reading; if you lived with a meter, an operator can export its
                  readings of that time for you"""


@dataclass(frozen=True, slots=True)
class Person:
    """Whose data."""

    account_key: int
    login: str
    with_readings: bool
    """Whether the readings of where they lived are in it."""


class _Sink:
    """Where a ZIP is written to; what was written is taken away piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Nothing is to be closed."""

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


class _Place(NamedTuple):
    """The readings of one file."""

    meter_id: str
    start: datetime
    end: datetime


async def export(api: Context, person: Person) -> AsyncIterator[bytes]:
    """Yield the ZIP.

    Raises:
        HttpError: 503, the database is away; a client sees a ZIP without an end.
    """
    sink = _Sink()
    now = api.clock()
    archive = ZipFile(sink, "w", ZIP_DEFLATED, compresslevel=zlib.Z_BEST_SPEED)
    readme = README.format(
        login=person.login,
        now=now.isoformat(timespec="seconds"),
        readings=_READINGS if person.with_readings else _NO_READINGS,
    )
    archive.writestr("README.txt", readme)
    await api.in_time(api.audit.flush())
    for name, statement in _small(person):
        rows = await api.fetch_all(statement)
        archive.writestr(name, encoder.encode([_plain(row) for row in rows]))
        yield sink.take()
    with archive.open("audit.ndjson", "w", force_zip64=True) as entries:
        async for lines in _audit(api, person):
            entries.write(lines)
            yield sink.take()
    places = await _places(api, person, now) if person.with_readings else []
    for number, place in enumerate(places, 1):
        with archive.open(f"readings/{number}-{place.meter_id}.ndjson", "w", force_zip64=True) as file:
            async for lines in _readings(api, place):
                file.write(lines)
                yield sink.take()
    archive.close()
    yield sink.take()


def _small(person: Person) -> list[tuple[str, Statement]]:
    key = (person.account_key,)
    return [
        (
            "account.json",
            Statement(
                "select login, a.name, role, tenant_id, disabled, oidc_issuer, oidc_subject, a.created_time, "
                "last_sign_in_time from account a left join tenant using (tenant_key) where account_key = $1",
                key,
            ),
        ),
        ("residences.json", select_residences(person.account_key)),
        ("consents.json", select_consents(person.account_key)),
        (
            "sessions.json",
            Statement(
                "select 'session' as kind, null as name, created_time, last_used_time, expires_time from session "
                "where account_key = $1 union all select 'token', name, created_time, last_used_time, expires_time "
                "from api_token where account_key = $1 order by 3",
                key,
            ),
        ),
        (
            "erasures.json",
            Statement(
                "select erasure_key as erasure_id, reason, requested_time, finished_time from erasure "
                "where subject_digest = $1 order by 1",
                (digest_of("account", person.login),),
            ),
        ),
    ]


async def _audit(api: Context, person: Person) -> AsyncIterator[bytes]:
    """Yield what they did, and what was done to their account."""
    after = 0
    while rows := await api.fetch_all(
        Statement(
            "select audit_key, audit_time, case when account_key = $1 then actor else '(staff)' end as actor, action, "
            "subject, detail::text as detail from audit "
            "where (account_key = $1 or subject = $2) and audit_key > $3::bigint order by audit_key limit $4::bigint",
            (person.account_key, f"account/{person.login}", after, ROWS),
        )
    ):
        after = rows[-1]["audit_key"]
        yield b"".join(
            encoder.encode({**_plain(row), "detail": msgspec.Raw((row["detail"] or "null").encode())}) + b"\n"
            for row in rows
        )


async def _places(api: Context, person: Person, now: datetime) -> list[_Place]:
    rows = await api.fetch_all(select_residences(person.account_key))
    return [
        _Place(meter_id, row["from_time"], min(row["until_time"] or now, now))
        for row in rows
        for meter_id in row["meter_ids"]
        if row["from_time"] < now
    ]


async def _readings(api: Context, place: _Place) -> AsyncIterator[bytes]:
    query = ReadingQuery(reading_time_start=place.start, reading_time_end=place.end, meter_ids=(place.meter_id,))
    after: Cursor | None = None
    while rows := await api.fetch_all(select_readings(query, ROWS, after=after)):
        last = rows[-1]
        after = Cursor(len(rows), last["reading_time"], last["meter_key"], last["reading_identifier"])
        yield encoder.encode_lines([reading_answer(row, frozenset()) for row in rows])


def _plain(row: Row) -> dict[str, object]:
    return dict(row.items())
