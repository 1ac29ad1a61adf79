"""The statements of privacy, as ``Context.fetch`` runs them for a viewer, or the store for itself. Pure.

Those that change something run with all rights: they take who asks, and do nothing to what is not theirs.
"""

from datetime import date, datetime, timedelta
from decimal import Decimal

from meterway.cloud.access.viewer import Viewer
from meterway.cloud.privacy.answers import ConsentNew, Retention
from meterway.cloud.query import Statement
from meterway.core.properties import Kind, OperationalProperty
from meterway.core.units import UNITS

_CONSENT = """
select consent_key as consent_id, a.login, household_key as household_id, purpose, property_ids, step_s, from_time,
       until_time, given_time, expires_time, revoked_time
from {consents} c join account a using (account_key)
"""

LIMIT_CONSENTS = 1000


def select_consents(account_key: int | None = None) -> Statement:
    """Return the statement for the consents that a viewer may see, or those of an account."""
    ordered = "where $1::integer is null or account_key = $1 order by consent_key desc limit $2"
    return Statement(_CONSENT.format(consents="consent") + ordered, (account_key, LIMIT_CONSENTS))


def add_consent(who: Viewer, new: ConsentNew, now: datetime) -> Statement:
    """Return the statement that stores a consent and returns it.

    Nothing if they never lived in that household, or gave ``LIMIT_CONSENTS`` already.
    """
    added = """
        with added as (
            insert into consent (account_key, household_key, purpose, property_ids, step_s, from_time, until_time,
                                 given_time, expires_time)
            select $1, $2, $3, $4, $5, $6, $7, $8, $9
            where exists (select from resident where account_key = $1 and household_key = $2)
            and (select count(*) from consent where account_key = $1) < $10
            returning *)
    """
    return Statement(
        added + _CONSENT.format(consents="added"),
        (
            who.account_key,
            new.household_id,
            new.purpose,
            list(new.property_ids),
            new.step_s,
            new.from_time,
            new.until_time,
            now,
            new.expires_time,
            LIMIT_CONSENTS,
        ),
    )


def revoke_consent(who: Viewer, consent_id: int, now: datetime) -> Statement:
    """Return the statement that revokes one of the own consents, at once."""
    return Statement(
        "update consent set revoked_time = $3 where account_key = $1 and consent_key = $2::bigint "
        "and revoked_time is null returning 1",
        (who.account_key, consent_id, now),
    )


def select_residences(account_key: int | None) -> Statement:
    """Return the statement for where somebody lives and lived, with the meters that are there."""
    return Statement(
        "select household_key as household_id, h.name, r.from_time, r.until_time, "
        "array(select meter_id from meter m where m.household_key = h.household_key order by 1) as meter_ids "
        "from resident r join household h using (household_key) where account_key = $1 order by r.from_time",
        (account_key,),
    )


def select_properties(account_key: int | None) -> Statement:
    """Return the statement for the properties of somebody's meters, of their newest readings."""
    return Statement(
        "select distinct unnest(property_ids) as property_id from resident join meter using (household_key) "
        "join property_set on property_set_key = last_property_set_key where account_key = $1 order by 1",
        (account_key,),
    )


def request_erasure(who: Viewer, now: datetime) -> Statement:
    """Return the statement that notes that somebody wants to be erased."""
    return Statement(
        "insert into erasure_request (account_key, requested_time) values ($1, $2) on conflict do nothing",
        (who.account_key, now),
    )


def withdraw_request(who: Viewer) -> Statement:
    """Return the statement that takes the own request back."""
    return Statement("delete from erasure_request where account_key = $1", (who.account_key,))


def select_request(who: Viewer) -> Statement:
    """Return the statement for the own request."""
    return Statement("select requested_time from erasure_request where account_key = $1", (who.account_key,))


def select_requests() -> Statement:
    """Return the statement for the requests that a viewer may see."""
    return Statement(
        "select login, requested_time from erasure_request join account using (account_key) "
        "order by requested_time limit 1000",
        (),
    )


def select_subject(kind: str, name: str, who: Viewer) -> Statement:
    """Return the statement for key and tenant of what is to be erased; nothing if it is another tenant's."""
    table, column = {
        "account": ("account", "login"),
        "household": ("household", "household_key::text"),
        "meter": ("meter", "meter_id"),
    }[kind]
    return Statement(
        # Only our own words are put in.
        f"select {table}_key as key, tenant_key from {table} where {column} = $1 "  # noqa: S608
        "and ($2::integer is null or tenant_key = $2)",
        (name, who.tenant_key),
    )


_ERASURE = """
select erasure_key as erasure_id, subject_kind, encode(subject_digest, 'hex') as subject_digest, reason,
       (select login from account where account_key = by_account) as by, requested_time, finished_time,
       counts::text as counts, encode(previous_digest, 'hex') as previous_digest, encode(digest, 'hex') as digest
from erasure
"""


def select_erasure(erasure_id: int) -> Statement:
    """Return the statement for one erasure."""
    return Statement(_ERASURE + "where erasure_key = $1::bigint", (erasure_id,))


def select_erasures(before: int, limit: int) -> Statement:
    """Return the statement for ``limit`` erasures older than ``before``, newest first."""
    return Statement(
        _ERASURE + "where erasure_key < $1::bigint order by erasure_key desc limit $2::bigint", (before, limit)
    )


def select_retention() -> Statement:
    """Return the statement for the rules that a viewer may see."""
    return Statement(
        "select tenant_id, property_id, keep_days from tenant left join retention using (tenant_key) "
        "order by tenant_key, property_id limit 10000",
        (),
    )


def set_retention(who: Viewer, new: Retention) -> Statement:
    """Return the statement that replaces the rules of a tenant; nothing if it is not one's own."""
    return Statement(
        """
        with mine as (
            select tenant_key, tenant_id from tenant where ($1::integer is null or tenant_key = $1)
            and case when $2::text is null then tenant_key = coalesce($1, 1) else tenant_id = $2 end
        ), gone as (
            delete from retention r using mine where r.tenant_key = mine.tenant_key and r.property_id <> all($3::text[])
        ), kept as (
            insert into retention (tenant_key, property_id, keep_days)
            select tenant_key, property_id, keep_days from mine, unnest($3::text[], $4::integer[])
                   as v (property_id, keep_days)
            on conflict (tenant_key, property_id) do update set keep_days = excluded.keep_days
        )
        select tenant_id from mine
        """,
        (
            who.tenant_key,
            new.tenant_id,
            [each.property_id for each in new.rules],
            [each.keep_days for each in new.rules],
        ),
    )


_HOUSEHOLDS = """
with lived as (
    select household_key, account_key, from_time, coalesce(until_time, 'infinity') as until_time
    from resident join household using (household_key)
    where from_time < $2 and coalesce(until_time, 'infinity') > $1 and ($7::integer is null or tenant_key = $7)
), agreed as (
    select l.*, exists (
        select from consent c where c.account_key = l.account_key and c.household_key = l.household_key
        and purpose = 'research' and revoked_time is null and given_time <= $3 and expires_time > $3
        and $4 = any(property_ids) and step_s <= $5
        and coalesce(c.from_time, '-infinity') <= $1 and coalesce(c.until_time, 'infinity') >= $2) as consents
    from lived l
), household_of as (
    select household_key from agreed group by household_key
    having bool_and(consents) and bool_or(from_time <= $1 and until_time >= $2)
), sample as (
    select household_key, meter_key, reading_time, number * factor as value,
           floor(extract(epoch from reading_time - $1) / $5)::integer as cell
    from household_of join meter using (household_key) join reading using (meter_key)
    join property_set using (property_set_key)
    cross join lateral unnest(property_ids, property_set.units, numerical_values) as v (property_id, unit, number)
    join unnest($8::text[], $9::numeric[]) as u (unit, factor) on u.unit is not distinct from v.unit
    where reading_time >= $1 and reading_time < $6 and property_id = $4 and number is not null
)
"""
"""The readings of the households in which everybody with an account who lived there on the day agrees, and somebody
all day."""

_MEANS = """
, meter_cell as (
    select household_key, meter_key, cell, avg(value) as value from sample group by 1, 2, 3
)
"""

_GROWTH = """
, first as (
    select distinct on (meter_key, cell) household_key, meter_key, cell, value from sample
    order by meter_key, cell, reading_time
), meter_cell as (
    select household_key, meter_key, cell,
           case when lead(cell) over w = cell + 1 then lead(value) over w - value end as value
    from first window w as (partition by meter_key order by cell)
)
"""
"""What a register grows by from the first reading of a cell to the first of the next one."""

_PER_HOUSEHOLD = """
, household_cell as (
    select household_key, cell, case when bool_and(value is not null) then sum(value) end as value
    from meter_cell where cell < $10 group by 1, 2
)
select household_key, array_agg(cell order by cell) as cells, array_agg(value order by cell) as values
from household_cell group by 1
"""


def select_day(who: Viewer, asked: OperationalProperty, day: datetime, step_s: int, now: datetime) -> Statement:
    """Return the statement for the cells of a day (UTC): a row a household with ``cells`` and their ``values``.

    ``asked`` is a register, or the state at the reading time; in its usual unit.
    """
    next_day = day + timedelta(days=1)
    is_register = asked.kind is Kind.REGISTER
    units, factors = _factors(asked)
    return Statement(
        _HOUSEHOLDS + (_GROWTH if is_register else _MEANS) + _PER_HOUSEHOLD,
        (
            day,
            next_day,
            now,
            asked.property_id,
            step_s,
            next_day + timedelta(seconds=step_s) if is_register else next_day,
            who.tenant_key,
            units,
            factors,
            86_400 // step_s,
        ),
    )


def select_answered(property_id: str, day: date) -> Statement:
    """Return the statement for the households of each earlier answer about a day."""
    return Statement("select household_keys from research_day where property_id = $1 and day = $2", (property_id, day))


def note_answered(property_id: str, days: list[date], household_keys: list[list[int]]) -> Statement:
    """Return the statement that notes which households are in an answer, by day."""
    return Statement(
        "insert into research_day (property_id, day, household_keys) "
        "select $1, day, keys::integer[] from unnest($2::date[], $3::text[]) as v (day, keys) on conflict do nothing",
        (property_id, days, ["{" + ",".join(map(str, sorted(keys))) + "}" for keys in household_keys]),
    )


def _factors(asked: OperationalProperty) -> tuple[list[str | None], list[Decimal]]:
    """Return the units that a value may have, and what makes each the usual one."""
    if asked.unit is None:
        return [None], [Decimal(1)]
    usual = UNITS[asked.unit]
    chosen = [UNITS[name] for name in asked.allowed_units if UNITS[name].dimension == usual.dimension]
    factors = [Decimal(u.numerator * usual.denominator) / (u.denominator * usual.numerator) for u in chosen]
    return [each.name for each in chosen], factors
