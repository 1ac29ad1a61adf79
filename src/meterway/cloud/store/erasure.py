"""Erasing all that tells of a person, a household or a meter.

An erasure begins with what must not come back (``erased_span``), in one small transaction. The work follows in many,
so that ingest goes on beside it; a process that is killed meanwhile goes on where it was. The proof is made last.
"""

import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Literal, NamedTuple, TypeAlias

from meterway.cloud.store import ledger, proofs
from meterway.cloud.store.database import Connection, Database, Row
from meterway.cloud.store.removal import renew_newest

SubjectKind: TypeAlias = Literal["account", "household", "meter"]

EVER = datetime(1, 1, 2, tzinfo=UTC)
"""Before any reading."""

SLICE = timedelta(days=7)
"""So much of one meter is deleted in one transaction: 600,000 readings if it speaks each second."""

_LIVED_ALONE = """
with lived as (
    select household_key, tstzrange(from_time, least(coalesce(until_time, 'infinity'), $2)) as span
    from resident where account_key = $1 and from_time < $2
), alone as (
    select household_key, range_agg(span) - coalesce((
        select range_agg(tstzrange(from_time, coalesce(until_time, 'infinity'))) from resident o
        where o.household_key = lived.household_key and o.account_key <> $1), '{}') as spans
    from lived group by household_key
)
select meter_id, lower(span) as from_time, upper(span) as until_time
from alone cross join unnest(spans) as span join meter using (household_key) order by 1, 2
"""
"""What is another's too, who lived there at the same time, stays theirs."""

_NEW_SPANS = """
insert into erased_span (erasure_key, meter_digest, from_time, until_time, is_forgotten)
select $1, sha256(convert_to(meter_id, 'UTF8')), from_time, until_time, $5
from unnest($2::text[], $3::timestamptz[], $4::timestamptz[]) as v (meter_id, from_time, until_time)
"""

_TABLES = {
    "conflict": "meter_id = $1 and reading_time >= $2 and reading_time < $3",
    "fault": "meter_id = $1 and fault_time >= $2 and fault_time < $3",
    "state_change": "subject = $1 and change_time >= $2 and change_time < $3",
    "quarantine": "split_part(topic, '/', 4) = $1 and received_time >= $2 and received_time < $3",
}
"""What is kept beside the readings, and which rows of it belong to a meter and a time."""

_RECOUNT = """
with span as (
    select * from erased_span where erasure_key = $1
), known as (
    select s.*, meter_key, last_reading_time
    from span s join meter m on sha256(convert_to(m.meter_id, 'UTF8')) = s.meter_digest
)
select (select count(*) from known s join reading r using (meter_key)
        where r.reading_time >= from_time and r.reading_time < until_time) as reading,
       (select count(*) from known where last_reading_time >= from_time and last_reading_time < until_time) as meter,
       (select count(*) from known join meter_day d using (meter_key)
        where day > (from_time at time zone 'UTC')::date and day < (until_time at time zone 'UTC')::date) as meter_day,
       (select count(*) from span s join conflict t on sha256(convert_to(t.meter_id, 'UTF8')) = meter_digest
        where reading_time >= from_time and reading_time < until_time) as conflict,
       (select count(*) from span s join fault t on sha256(convert_to(t.meter_id, 'UTF8')) = meter_digest
        where fault_time >= from_time and fault_time < until_time) as fault,
       (select count(*) from span s join state_change t on sha256(convert_to(t.subject, 'UTF8')) = meter_digest
        where change_time >= from_time and change_time < until_time) as state_change,
       (select count(*) from span s
        join quarantine t on sha256(convert_to(split_part(t.topic, '/', 4), 'UTF8')) = meter_digest
        where received_time >= from_time and received_time < until_time) as quarantine,
       (select count(*) from account a join erasure e on erasure_key = $1 and a.created_time < requested_time
        and subject_digest = sha256(convert_to('account/' || login, 'UTF8'))) as account
"""

_UNFINISHED = "select erasure_key from erasure where finished_time is null order by erasure_key"

_COUNTED = """
update erasure set counts = counts || (
    select coalesce(jsonb_object_agg(name, coalesce((counts->>name)::bigint, 0) + count), '{}')
    from unnest($2::text[], $3::bigint[]) as v (name, count)
) where erasure_key = $1
"""


class Subject(NamedTuple):
    """What to erase."""

    kind: SubjectKind
    name: str
    """A login, the number of a household, or a meter id."""
    start: datetime
    """``EVER``: from the beginning."""
    end: datetime | None
    """None: until now."""

    @property
    def digest(self) -> bytes:
        return digest_of(self.kind, self.name)

    @property
    def is_whole(self) -> bool:
        """Whether all of it is to go."""
        return self.start == EVER and self.end is None


def digest_of(kind: SubjectKind, name: str) -> bytes:
    """Return by what a proof knows its subject."""
    return sha256(f"{kind}/{name}".encode()).digest()


async def begin(
    database: Database, subject: Subject, *, reason: str, tenant_key: int | None, by_account: int | None, now: datetime
) -> int:
    """Note what is to be erased, which from then on is not stored again; return the key of the erasure.

    Raises:
        TransientError: the database is away; nothing is noted.
    """
    async with database.transaction() as connection:
        await connection.execute("select pg_advisory_xact_lock($1)", proofs.LOCK)
        key: int = await connection.fetchval(
            "insert into erasure (tenant_key, subject_kind, subject_digest, reason, by_account, requested_time) "
            "values ($1, $2, $3, $4, $5, $6) returning erasure_key",
            tenant_key,
            subject.kind,
            subject.digest,
            reason,
            by_account,
            now,
        )
        spans = await _spans(connection, subject, now)
        await connection.execute(
            _NEW_SPANS,
            key,
            [meter_id for meter_id, _, _ in spans],
            [start for _, start, _ in spans],
            [end for _, _, end in spans],
            subject.kind == "meter" and subject.is_whole,
        )
    return key


async def _spans(connection: Connection, subject: Subject, now: datetime) -> list[tuple[str, datetime, datetime]]:
    if subject.kind == "account":
        key = await connection.fetchval("select account_key from account where login = $1", subject.name)
        return [tuple(row) for row in await connection.fetch(_LIVED_ALONE, key, now)]
    chosen = "meter_id = $1" if subject.kind == "meter" else "household_key = $1::text::integer"
    rows = await connection.fetch(
        # Only our own words are put in. A clock that is ahead has readings of after now.
        f"select meter_id, greatest($2, last_reading_time + interval '1 microsecond') from meter where {chosen}",  # noqa: S608
        subject.name,
        now,
    )
    return [(meter_id, subject.start, subject.end or until) for meter_id, until in rows]


async def work(database: Database, *, now: datetime) -> int:
    """Do what was begun and is not finished, by whatever process; return how many erasures were finished.

    Raises:
        TransientError: the database is away; call again.
    """
    done = 0
    for (key,) in await database.fetch(_UNFINISHED):
        await _erase_person(database, key)
        for span in await database.fetch("select * from erased_span where erasure_key = $1 and not is_done", key):
            await _erase_span(database, span)
        done += await proofs.prove(database, key, now)
    return done


async def recount(database: Database, erasure_key: int) -> Mapping[str, int]:
    """Return how many rows there are now, by table, of what was erased: 0 everywhere if it is gone.

    Raises:
        TransientError: the database is away.
    """
    (row,) = await database.fetch(_RECOUNT, erasure_key)
    return dict(row.items())


async def _erase_person(database: Database, key: int) -> None:
    """Remove an account with all that hangs on it; the audit log keeps ``erased/[number]`` in its place."""
    async with database.transaction() as connection:
        row = await connection.fetchrow(
            "select account_key, login from erasure e join account a on subject_kind = 'account' "
            "and subject_digest = sha256(convert_to('account/' || a.login, 'UTF8')) where erasure_key = $1 "
            "and a.created_time < e.requested_time",
            key,
        )
        if row is None:
            return
        counts = Counter(account=1)
        for table in ("password", "session", "api_token", "sign_in_link", "resident", "consent"):
            gone = await connection.execute(f"delete from {table} where account_key = $1", row["account_key"])  # noqa: S608
            counts[table] = _count(gone)
        await connection.execute("delete from account where account_key = $1", row["account_key"])
        counts["audit"] = await _pseudonymise(connection, key, row["login"], f"account/{row['login']}")
        changed = await connection.execute(
            "update audit set actor = $2, account_key = null where account_key = $1 or actor = $3",
            row["account_key"],
            f"erased/{key}",
            row["login"],
        )
        counts["audit"] += _count(changed)
        await _add(connection, key, counts)


async def _pseudonymise(connection: Connection, key: int, name: str, subject: str) -> int:
    """Put ``erased/[number]`` where the audit log names somebody or something; return how many entries changed.

    Of what was done to them nothing more is kept.
    """
    changed = await connection.execute(
        "update audit set subject = case when subject in ($2, $3) then $4 else subject end, "
        "detail = case when subject not in ($2, $3) then replace(detail::text, $1, $5)::jsonb end "
        "where subject in ($2, $3) or position($1 in detail::text) > 0",
        json.dumps(name),
        name,
        subject,
        f"erased/{key}",
        json.dumps(f"erased/{key}"),
    )
    return _count(changed)


async def _erase_span(database: Database, span: Row) -> None:
    rows = await database.fetch(
        "select meter_key, meter_id from meter where sha256(convert_to(meter_id, 'UTF8')) = $1", span["meter_digest"]
    )
    for row in rows:
        await _erase_readings(database, span, row["meter_key"])
        await _erase_rest(database, span, row["meter_key"], row["meter_id"])
    await database.fetch("update erased_span set is_done = true where erased_span_key = $1", span["erased_span_key"])


async def _erase_readings(database: Database, span: Row, meter_key: int) -> None:
    """Delete the readings of a meter in ``span``, slice by slice."""
    start, end = span["from_time"], span["until_time"]
    while True:
        async with database.transaction() as connection:
            await connection.execute("select from meter where meter_key = $1 for no key update", meter_key)
            first = await connection.fetchval(
                "select min(reading_time) from reading where meter_key = $1 and reading_time >= $2 "
                "and reading_time < $3",
                meter_key,
                start,
                end,
            )
            if first is None:
                return
            gone = await connection.execute(
                "delete from reading where meter_key = $1 and reading_time >= $2 and reading_time < $3",
                meter_key,
                first,
                min(first + SLICE, end),
            )
            await _add(connection, span["erasure_key"], Counter(reading=_count(gone)))


async def _erase_rest(database: Database, span: Row, meter_key: int, meter_id: str) -> None:
    """Delete what is kept beside the readings, and what sums them up."""
    start, end, key = span["from_time"], span["until_time"], span["erasure_key"]
    counts: Counter[str] = Counter()
    async with database.transaction() as connection:
        await ledger.lock(connection)
        await connection.execute("select from meter where meter_key = $1 for no key update", meter_key)
        days = (start.date(), end.date())
        counts["meter_day"] = await ledger.enter_anew(connection, meter_key, *days)
        for table, condition in _TABLES.items():
            gone = await connection.execute(f"delete from {table} where {condition}", meter_id, start, end)  # noqa: S608
            counts[table] = _count(gone)
        await renew_newest(connection, [meter_key])
        if span["is_forgotten"]:
            counts += await _forget_meter(connection, key, meter_key, meter_id)
        await connection.execute("select pg_notify('reading_stored', $1)", str(meter_key))
        await _add(connection, key, counts)


async def _forget_meter(connection: Connection, key: int, meter_key: int, meter_id: str) -> Counter[str]:
    """Delete all that names a meter; if it speaks again, it is a new one."""
    counts: Counter[str] = Counter()
    for table, condition in (
        ("reading", "meter_key = $1::text::integer"),
        ("meter_day", "meter_key = $1::text::integer"),
        ("meter", "meter_key = $1::text::integer"),
    ):
        counts[table] = _count(await connection.execute(f"delete from {table} where {condition}", str(meter_key)))  # noqa: S608
    for table, condition in _TABLES.items():
        forgotten = condition.partition(" and ")[0]
        counts[table] = _count(await connection.execute(f"delete from {table} where {forgotten}", meter_id))  # noqa: S608
    changed = await connection.execute(
        "update device set meter_ids = array_remove(meter_ids, $1) where $1 = any(meter_ids)", meter_id
    )
    counts["device"] = _count(changed)
    changed = await connection.execute("delete from refusal where position($1 in topic || detail) > 0", meter_id)
    counts["refusal"] = _count(changed)
    counts["audit"] = await _pseudonymise(connection, key, meter_id, meter_id)
    return counts


async def _add(connection: Connection, key: int, counts: Counter[str]) -> None:
    found = {name: count for name, count in counts.items() if count}
    if found:
        await connection.execute(_COUNTED, key, list(found), list(found.values()))


def _count(status: str) -> int:
    """Return the number in what the database says of a statement, as ``DELETE 5``."""
    return int(status.rpartition(" ")[2])
