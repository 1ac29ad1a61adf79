"""The statements about devices. Pure.

Where a statement takes a tenant, null stands for all tenants.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from meterway.cloud.query import Statement

LIMIT_REFUSALS: Final = 50
"""So many topics a device are kept of what was refused to it; at the bound the oldest go."""

LIMIT_TOPIC_CHARACTERS: Final = 300
"""A longer topic is cut."""

_SELECT = """
select d.device_key, d.kind, d.device_id, t.tenant_id, d.kind || '-' || d.device_id as username, d.meter_ids,
       d.collects, d.created_time, d.enrolled_time, d.last_seen_time, d.revoked_time,
       case when c.used_time is null then c.expires_time end as code_expires_time,
       case when d.revoked_time is not null then 'revoked' when d.secret_digest is not null then 'enrolled'
            when c.expires_time > now() then 'waiting' else 'expired' end as state,
       coalesce(r.refused_count, 0)::bigint as refused_count, r.refused_time
  from device d join tenant t using (tenant_key) left join enrolment_code c using (device_key)
  left join lateral (
       select sum(refused_count) as refused_count, max(last_time) as refused_time
         from refusal r where r.device_key = d.device_key) r on true
"""

_MINE = "($1::integer is null or d.tenant_key = $1)"

_MAY_LOG_IN = "select device_key, kind, device_id, meter_ids, collects, secret_digest from device d"

_ADD = """
insert into device (tenant_key, kind, device_id, meter_ids, collects) values ($1, $2, $3, $4::text[], $5)
on conflict do nothing returning device_key
"""

# What registered itself is the first tenant's, until an operator of all tenants says more.
_CLAIM_METERS = """
insert into meter (meter_id, tenant_key, claimed) select meter_id, $2, true from unnest($1::text[]) as v (meter_id)
where not exists (select from concentrator c where c.concentrator_id = v.meter_id and c.tenant_key <> $2)
on conflict (meter_id) do update set tenant_key = excluded.tenant_key, claimed = true
where meter.tenant_key = excluded.tenant_key or ($3 and not meter.claimed and meter.household_key is null)
"""

_CLAIM_CONCENTRATOR = """
insert into concentrator (concentrator_id, tenant_key)
select $1, $2 where not exists (select from meter where meter_id = $1 and tenant_key <> $2)
on conflict (concentrator_id) do update set tenant_key = excluded.tenant_key where $3
"""

# Meters and concentrators share the topics of receipts, so an id of either kind is one tenant's.
_TAKEN = """
select meter_id from meter where meter_id = any($1::text[]) and tenant_key <> $2
union
select concentrator_id from concentrator where concentrator_id = any($1::text[]) and tenant_key <> $2
union
select unnest(d.meter_ids) from device d where d.meter_ids && $1::text[] and d.tenant_key <> $2 and revoked_time is null
intersect select unnest($1::text[])
order by 1 limit 5
"""

_ADD_CODE = """
insert into enrolment_code (device_key, digest, expires_time)
select d.device_key, $4, $5::timestamptz from device d where ($1::integer is null or d.tenant_key = $1)
   and d.kind = $2 and d.device_id = $3
on conflict (device_key) do update
set digest = excluded.digest, expires_time = excluded.expires_time, used_time = null
returning device_key
"""

# One statement: of two at once the second waits for the first, and then finds the code used.
_ENROL = """
with used as (
    update enrolment_code c set used_time = $2 from device d
     where c.digest = $1 and c.used_time is null and c.expires_time > $2
       and d.device_key = c.device_key and d.kind = $4
    returning c.device_key
), forgotten as (
    delete from refusal using used where refusal.device_key = used.device_key
)
update device d set secret_digest = $3, enrolled_time = $2, revoked_time = null from used
 where d.device_key = used.device_key
returning d.device_key, d.kind, d.device_id, d.meter_ids, d.collects
"""

_REVOKE = """
with closed as (
    delete from enrolment_code c using device d where c.device_key = d.device_key
       and ($1::integer is null or d.tenant_key = $1) and d.kind = $2 and d.device_id = $3
)
update device d set revoked_time = coalesce(revoked_time, $4::timestamptz), secret_digest = null
 where ($1::integer is null or d.tenant_key = $1) and d.kind = $2 and d.device_id = $3
returning device_key
"""

_SET_METERS = """
update device d set meter_ids = $4::text[] where ($1::integer is null or d.tenant_key = $1)
   and d.kind = $2 and d.device_id = $3 returning device_key
"""

_SEEN = """
update device d set last_seen_time = greatest(v.seen_time, d.last_seen_time)
  from unnest($1::text[], $2::timestamptz[]) as v (username, seen_time)
 where d.kind = split_part(v.username, '-', 1) and d.device_id = substr(v.username, strpos(v.username, '-') + 1)
"""

_REFUSED = """
with added as (
    insert into refusal (device_key, refused_kind, topic, detail, first_time, last_time, refused_count)
    select d.device_key, v.refused_kind, v.topic, v.detail, v.first_time, v.last_time, v.refused_count
      from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::bigint[])
           as v (username, refused_kind, topic, detail, first_time, last_time, refused_count)
      join device d on d.kind = split_part(v.username, '-', 1)
       and d.device_id = substr(v.username, strpos(v.username, '-') + 1)
     order by 1, 2, 3, 4
    on conflict (device_key, refused_kind, topic, detail) do update
    set last_time = greatest(refusal.last_time, excluded.last_time),
        refused_count = refusal.refused_count + excluded.refused_count
    returning device_key
)
select distinct device_key from added
"""

_TRIM = """
delete from refusal r using (
    select ctid, row_number() over (partition by device_key order by last_time desc) as place
      from refusal where device_key = any($1::integer[])) old
 where old.place > $2 and r.ctid = old.ctid
"""


def select_devices(tenant_key: int | None, after: tuple[str, str], limit: int) -> Statement:
    """Return the statement for ``limit`` devices that follow the kind and id ``after``."""
    return Statement(
        f"{_SELECT} where {_MINE} and (d.kind, d.device_id) > ($2, $3) order by d.kind, d.device_id limit $4::bigint",
        (tenant_key, *after, limit),
    )


def select_device(tenant_key: int | None, kind: str, device_id: str) -> Statement:
    """Return the statement for one device."""
    return Statement(f"{_SELECT} where {_MINE} and d.kind = $2 and d.device_id = $3", (tenant_key, kind, device_id))


def select_refusals(device_key: object) -> Statement:
    """Return the statement for what was refused to a device, newest first."""
    return Statement(
        'select refused_kind as kind, topic, detail, first_time, last_time, refused_count as "count" '
        "from refusal where device_key = $1 "
        "order by last_time desc, topic limit $2::bigint",
        (device_key, LIMIT_REFUSALS),
    )


def select_users(device_key: int | None) -> Statement:
    """Return the statement for all that may log in, or for one device whether it may or not."""
    if device_key is None:
        return Statement(f"{_MAY_LOG_IN} where secret_digest is not null", ())
    return Statement(f"{_MAY_LOG_IN} where device_key = $1", (device_key,))


def select_closed() -> Statement:
    """Return the statement for the devices that may not log in: not enrolled yet, or revoked."""
    return Statement(f"{_MAY_LOG_IN} where secret_digest is null", ())


def select_own(kind: str, device_id: str, secret_digest: bytes) -> Statement:
    """Return the statement for the device that has this password."""
    return Statement(
        f"{_MAY_LOG_IN} where kind = $1 and device_id = $2 and secret_digest = $3", (kind, device_id, secret_digest)
    )


def select_tenant(tenant_id: str) -> Statement:
    """Return the statement for a tenant's key."""
    return Statement("select tenant_key from tenant where tenant_id = $1", (tenant_id,))


def select_tenant_of(kind: str, device_id: str) -> Statement:
    """Return the statement for the tenant of a device."""
    return Statement("select tenant_key from device where kind = $1 and device_id = $2", (kind, device_id))


def add_device(tenant_key: int, kind: str, device_id: str, meter_ids: Sequence[str], *, collects: bool) -> Statement:
    """Return the statement that adds a device, unless it is there."""
    return Statement(_ADD, (tenant_key, kind, device_id, list(meter_ids), collects))


def claim_meters(tenant_key: int, meter_ids: Sequence[str], *, of_all: bool) -> Statement:
    """Return the statement by which meters become a tenant's; ``of_all`` takes unclaimed ones from another."""
    return Statement(_CLAIM_METERS, (list(meter_ids), tenant_key, of_all))


def claim_concentrator(tenant_key: int, concentrator_id: str, *, of_all: bool) -> Statement:
    """Return the statement by which a concentrator becomes a tenant's; ``of_all`` takes it from another."""
    return Statement(_CLAIM_CONCENTRATOR, (concentrator_id, tenant_key, of_all))


def select_concentrator_taken(tenant_key: int, concentrator_id: str) -> Statement:
    """Return the statement that finds a concentrator, or a meter of that id, that is another tenant's."""
    return Statement(
        "select 1 from concentrator where concentrator_id = $1 and tenant_key <> $2 "
        "union all select 1 from meter where meter_id = $1 and tenant_key <> $2",
        (concentrator_id, tenant_key),
    )


def select_taken(tenant_key: int, meter_ids: Sequence[str]) -> Statement:
    """Return the statement for those of the meters that are another tenant's."""
    return Statement(_TAKEN, (list(meter_ids), tenant_key))


def add_code(tenant_key: int | None, kind: str, device_id: str, digest: bytes, expires_time: datetime) -> Statement:
    """Return the statement that gives a device a new code in place of its last."""
    return Statement(_ADD_CODE, (tenant_key, kind, device_id, digest, expires_time))


def enrol_device(kind: str, digest: bytes, now: datetime, secret_digest: bytes) -> Statement:
    """Return the statement that uses a code up and gives its device a password."""
    return Statement(_ENROL, (digest, now, secret_digest, kind))


def select_code(digest: bytes) -> Statement:
    """Return the statement for what a code was for, and when it was used."""
    return Statement(
        "select kind, used_time, expires_time from enrolment_code join device using (device_key) where digest = $1",
        (digest,),
    )


def revoke_device(tenant_key: int | None, kind: str, device_id: str, now: datetime) -> Statement:
    """Return the statement after which a device has neither password nor code."""
    return Statement(_REVOKE, (tenant_key, kind, device_id, now))


def set_meters(tenant_key: int | None, kind: str, device_id: str, meter_ids: Sequence[str]) -> Statement:
    """Return the statement that changes for which meters a device publishes."""
    return Statement(_SET_METERS, (tenant_key, kind, device_id, list(meter_ids)))


def note_seen(seen: Sequence[tuple[str, datetime]]) -> Statement:
    """Return the statement that notes when devices (user names) were seen."""
    return Statement(_SEEN, _columns(seen))


def add_refusals(refused: Sequence[tuple[str, str, str, str, datetime, datetime, int]]) -> Statement:
    """Return the statement that counts refusals: user name, kind, topic, detail, first and last time, count."""
    return Statement(_REFUSED, _columns(refused))


def trim_refusals(device_keys: Sequence[int]) -> Statement:
    """Return the statement that keeps the newest refusals of each of the devices."""
    return Statement(_TRIM, (list(device_keys), LIMIT_REFUSALS))


def _columns(rows: Sequence[tuple[object, ...]]) -> tuple[object, ...]:
    return tuple(list(column) for column in zip(*rows, strict=True))
