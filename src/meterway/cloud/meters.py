"""Meters as the API shows them: who they are, how they are, what they said last. Pure."""

from datetime import datetime, timedelta
from typing import Annotated, Literal, TypeAlias
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from meterway.cloud.answers import PropertyAnswer, Row, property_answers
from meterway.cloud.query import Statement
from meterway.core import reports
from meterway.core.errors import BadDataError

DEFAULT_METERS = 200
LIMIT_METERS = 1000
LIMIT_NAME_CHARACTERS = 80

UNKNOWN_INTERVAL_S = 180.0
"""What is assumed where nobody said how often readings come."""
LATE_INTERVALS = 5
LATE_LEAST_S = 60.0
"""A meter is silent after five intervals without a reading, but not before a minute."""

State: TypeAlias = Literal["online", "waiting", "silent", "offline"]

_ELECTRICITY = frozenset({"OBIS_1.8.0", "OBIS_2.8.0", "OBIS_1.7.0", "OBIS_2.7.0", "OBIS_16.7.0"})

_SELECT = """
select m.meter_key, m.meter_id, m.claimed, m.name, m.household_key, m.first_seen_time, m.concentrator_id,
       m.last_reading_time, m.last_reading_identifier, m.last_sequence_number, m.last_fault_code, m.last_stored_time,
       m.status::text as status, m.status_time, m.description::text as description,
       coalesce(s.property_ids, '{}') as property_ids, coalesce(s.units, '{}') as units,
       m.last_numerical_values as numerical_values, m.last_text_values as text_values, m.last_dates as dates
  from meter m left join property_set s on s.property_set_key = m.last_property_set_key
"""


class LastReading(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The newest reading by reading time."""

    reading_id: UUID | None
    reading_time: datetime
    stored_time: datetime | None
    """When the cloud stored it."""
    sequence_number: int | None
    fault_code: str | None
    property_values: tuple[PropertyAnswer, ...]


class MeterAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One meter."""

    meter_id: str
    name: str | None
    claimed: bool
    """Whether somebody said that this meter is known; false for one that just appeared."""
    household_id: int | None
    """Whose residents see it."""
    state: State
    """online: readings come. waiting: none yet. silent: none for longer than is usual. offline: says its adapter."""
    state_detail: str | None
    """A sentence of the adapter: why, and what to do."""
    physical_meter_class: Literal["ELECTRICITY", "GAS", "WATER", "HEAT"] | None
    protocol: str | None
    says: str | None
    """How the meter calls itself."""
    interval_s: float | None
    """How often a reading is expected."""
    late_after_s: float
    """A reading older than this is stale."""
    concentrator_id: str | None
    first_seen_time: datetime
    last_reading: LastReading | None


class MeterList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A page of meters, ordered by id."""

    content: tuple[MeterAnswer, ...]
    next_after: str | None
    """Send as ``after`` for the next page; null at the end."""


class MeterChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """The body of ``PATCH /v1/meters/{meterId}``; what is not given stays."""

    claimed: bool | UnsetType = UNSET
    name: Annotated[str, Meta(max_length=LIMIT_NAME_CHARACTERS)] | UnsetType | None = UNSET
    """null or an empty text removes the name."""
    household_id: Annotated[int, Meta(ge=1, lt=2**31)] | UnsetType | None = UNSET
    """Whose residents see it, from when they moved in; null: nobody's. Needs the permission ``people`` too."""


def parse_change(body: bytes) -> MeterChange:
    """Return the change in a request body.

    Raises:
        BadDataError: with a sentence that names the field.
    """
    try:
        change = msgspec.json.decode(body, type=MeterChange)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadDataError(f"The body is not a change of a meter: {error}.", reason="bad-change") from error
    if change == MeterChange():
        raise BadDataError("Nothing to change: send `claimed`, `name` or `householdId`.", reason="bad-change")
    if isinstance(change.name, str) and not change.name.isprintable():
        raise BadDataError("`name` must not have control characters.", reason="bad-change")
    return change


def select_meters(after: str, limit: int) -> Statement:
    """Return the statement for ``limit`` meters whose id follows ``after``."""
    return Statement(f"{_SELECT} where m.meter_id > $1 order by m.meter_id limit $2::bigint", (after, limit))


def select_meter(meter_id: str) -> Statement:
    """Return the statement for one meter."""
    return Statement(f"{_SELECT} where m.meter_id = $1", (meter_id,))


def select_meter_keys(meter_keys: list[int]) -> Statement:
    """Return the statement for the meters with these keys."""
    return Statement(f"{_SELECT} where m.meter_key = any($1::integer[])", (meter_keys,))


def change_meter(meter_id: str, change: MeterChange) -> Statement:
    """Return the statement that changes a meter and returns its key, if it exists."""
    name = change.name.strip() or None if isinstance(change.name, str) else None
    claimed = None if change.claimed is UNSET else change.claimed
    moves = change.household_id is not UNSET
    household = change.household_id if isinstance(change.household_id, int) else None
    return Statement(
        "update meter set claimed = coalesce($2::boolean, claimed), "
        "name = case when $3::boolean then $4::text else name end, "
        "household_key = case when $5::boolean then $6::integer else household_key end "
        "where meter_id = $1 returning meter_key",
        (meter_id, claimed, change.name is not UNSET, name, moves, household),
    )


def meter_answer(row: Row, now: datetime) -> MeterAnswer:
    """Return the meter in a row; ``now`` decides what is stale."""
    status = _report(row["status"], reports.Status)
    description = _report(row["description"], reports.MeterDescription)
    interval_s = description.interval_s if description else None
    late_after_s = max(LATE_LEAST_S, LATE_INTERVALS * (interval_s or UNKNOWN_INTERVAL_S))
    stored_time = _time(row["last_stored_time"])
    values = property_answers(row)
    return MeterAnswer(
        meter_id=str(row["meter_id"]),
        name=_text(row["name"]),
        claimed=bool(row["claimed"]),
        household_id=household if isinstance(household := row["household_key"], int) else None,
        state=state_of(status, _time(row["status_time"]), stored_time, now - timedelta(seconds=late_after_s)),
        state_detail=status.detail if status else None,
        physical_meter_class=description.physical_meter_class if description else _guess_class(values),
        protocol=description.protocol if description else None,
        says=description.says if description else None,
        interval_s=interval_s,
        late_after_s=late_after_s,
        concentrator_id=_text(row["concentrator_id"]),
        first_seen_time=_time(row["first_seen_time"]) or now,
        last_reading=_last_reading(row, stored_time, values),
    )


def state_of(
    status: reports.Status | None, status_time: datetime | None, stored_time: datetime | None, late: datetime
) -> State:
    """Return how a meter is; a reading stored before ``late`` is too old.

    What the adapter says counts, except that a reading after it proves it outdated, and that "online" without
    readings is not believed.
    """
    fresh = stored_time is not None and stored_time >= late
    newer = stored_time is not None and (status_time is None or stored_time >= status_time)
    if fresh and (status is None or status.state == "online" or newer):
        return "online"
    if status is None or status.state == "online":
        return "waiting" if stored_time is None else "silent"
    return status.state


def _last_reading(row: Row, stored_time: datetime | None, values: tuple[PropertyAnswer, ...]) -> LastReading | None:
    reading_time = _time(row["last_reading_time"])
    if reading_time is None:
        return None
    identifier, sequence_number = row["last_reading_identifier"], row["last_sequence_number"]
    return LastReading(
        reading_id=identifier if isinstance(identifier, UUID) else None,
        reading_time=reading_time,
        stored_time=stored_time,
        sequence_number=sequence_number if isinstance(sequence_number, int) else None,
        fault_code=_text(row["last_fault_code"]),
        property_values=values,
    )


def _guess_class(values: tuple[PropertyAnswer, ...]) -> Literal["ELECTRICITY"] | None:
    """Return the class of a meter that nobody described: only electricity has these properties."""
    return "ELECTRICITY" if any(value.property_name in _ELECTRICITY for value in values) else None


def _report(value: object, kind: type[reports.Report]) -> reports.Report | None:
    if not isinstance(value, str):
        return None
    try:
        return reports.decode(value.encode(), kind)
    except BadDataError:  # Stored by another version: shown as if it were not there.
        return None


def _time(value: object) -> datetime | None:
    return value if isinstance(value, datetime) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
