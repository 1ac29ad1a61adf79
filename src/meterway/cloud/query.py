"""The query of the public specification, ``POST /v1/meterReadings``: from a JSON body to SQL. Pure.

What it does: checks every field, bounds every size, and builds statements whose values are parameters, never text.
What it does not do: run them, or decide who may see what. What you must do: run them with a time limit.

Semantics, decided here because the specification is silent:

- The time range is half-open, ``readingTimeStart <= readingTime < readingTimeEnd``.
- Comparisons of all entries of ``operationalProperties`` must hold (AND). An entry without comparison only names
  a property to list. If properties are named, a reading that has none of them is left out, and the answer lists the
  named ones only (data minimisation); otherwise it lists all. An entry without name compares every property.
- The order is reading time, then meter (by first appearance), then identifier.
- The first page is number 1. ``maxRows`` bounds all pages together.

Source: Open Meter Data Platform, Cloud, "Data Query Interface"; ``meterIds``, ``pageToken`` and
``preferredDownload`` are ours.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from meterway.core.errors import BadDataError
from meterway.core.properties import catalogue
from meterway.core.topics import check_id

DEFAULT_PAGE_ROWS = 100
LIMIT_PAGE_ROWS = 10_000
LIMIT_NUMBERED_ROWS = 100_000
"""Pages by number read everything before them, so they end here; ``nextPageToken`` and the bulk download do not."""
LIMIT_METERS = 200
LIMIT_PROPERTIES = 50
LIMIT_NAME_CHARACTERS = 128
LIMIT_TEXT_CHARACTERS = 1000
LIMIT_EXPONENT = 60
"""Numbers are compared up to 10**60 and down to 10**-60: far beyond any register, far below what hurts."""

YEARS = range(1900, 2500)


class PropertyFilter(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True
):
    """One property to list or compare. All comparisons given must hold for the same value."""

    specific_property_name: (
        Annotated[str, Meta(min_length=1, max_length=LIMIT_NAME_CHARACTERS, examples=["OBIS_1.8.0"])] | None
    ) = None
    """A property (``OBIS_1.8.0``, or short ``1.8.0``); without it the comparison is made with every property."""
    numerical_value_greater_than: Decimal | None = None
    numerical_value_less_than: Decimal | None = None
    numerical_value_equal_to: Decimal | None = None
    """Numbers are compared as numbers: 1.50 equals 1.5."""
    text_value_equal_to: Annotated[str, Meta(max_length=LIMIT_TEXT_CHARACTERS)] | None = None

    def comparisons(self) -> list[tuple[str, str, Decimal]]:
        """Return (wire name, SQL operator, number) of the numerical comparisons given."""
        found = (
            ("numericalValueGreaterThan", ">", self.numerical_value_greater_than),
            ("numericalValueLessThan", "<", self.numerical_value_less_than),
            ("numericalValueEqualTo", "=", self.numerical_value_equal_to),
        )
        return [(name, operator, number) for name, operator, number in found if number is not None]

    @property
    def compares(self) -> bool:
        return bool(self.comparisons()) or self.text_value_equal_to is not None


class ReadingQuery(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True
):
    """The body of ``POST /v1/meterReadings``; everything is optional."""

    reading_time_start: Annotated[datetime, Meta(tz=True)] | None = None
    """The first instant of the range, RFC 3339 with zone."""
    reading_time_end: Annotated[datetime, Meta(tz=True)] | None = None
    """The first instant after the range."""
    max_rows: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    """The most readings in all pages, or in the bulk download, together."""
    page_number: Annotated[int, Meta(ge=1, le=2**53)] | UnsetType = UNSET
    """The first page is 1."""
    page_size: Annotated[int, Meta(ge=1, le=LIMIT_PAGE_ROWS)] = DEFAULT_PAGE_ROWS
    operational_properties: Annotated[tuple[PropertyFilter, ...], Meta(max_length=LIMIT_PROPERTIES)] = ()
    meter_ids: Annotated[tuple[str, ...], Meta(max_length=LIMIT_METERS)] = ()
    """Only these meters; none means all."""
    page_token: Annotated[str, Meta(max_length=500)] | None = None
    """``nextPageToken`` of the answer before, sent with the same query: neither skips nor repeats a reading while
    others are being stored."""
    preferred_download: Literal["json", "bulk"] = "json"
    """``bulk``: answer only ``linkToBulk``."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last reading that was answered, and how many there were up to it."""

    rows: int
    reading_time: datetime
    meter_key: int
    identifier: UUID


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with numbered parameters, and their values."""

    sql: str
    args: tuple[object, ...]


def parse_query(body: bytes) -> ReadingQuery:
    """Return the query in a request body; an empty body asks for everything.

    Raises:
        BadDataError: with a sentence that names the field and what it may be.
    """
    try:
        query = msgspec.json.decode(body or b"{}", type=ReadingQuery)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadDataError(f"The body is not a query: {error}. See /openapi.json.", reason="bad-query") from error
    return check_query(query)


def check_query(query: ReadingQuery) -> ReadingQuery:
    """Return ``query`` with property names in their full form.

    Raises:
        BadDataError: a value is outside what the types alone can say.
    """
    start, end = query.reading_time_start, query.reading_time_end
    for name, instant in (("readingTimeStart", start), ("readingTimeEnd", end)):
        if instant is not None and instant.year not in YEARS:
            raise bad_query(f"`{name}` must lie between the years {YEARS.start} and {YEARS.stop - 1}.")
    if start is not None and end is not None and start >= end:
        raise bad_query("`readingTimeEnd` must be later than `readingTimeStart`: the range is [start, end).")
    for meter_id in query.meter_ids:
        _check_meter_id(meter_id)
    if query.page_token is not None and query.page_number is not UNSET:
        raise bad_query("`pageToken` and `pageNumber` exclude each other: send the token alone to go on where it ends.")
    checked = tuple(_check_property(index, entry) for index, entry in enumerate(query.operational_properties))
    return msgspec.structs.replace(query, operational_properties=checked)


def property_id_of(name: str, where: str) -> str:
    """Return the id of the property that is called ``name``; an alias or any written form of its OBIS code will do.

    Raises:
        BadDataError: there is none; names the nearest.
    """
    found = catalogue().find(name)
    if found is not None:
        return found.property_id
    near = get_close_matches(name, [each.property_id for each in catalogue()], n=1)
    hint = f"did you mean {near[0]}?" if near else "docs/properties.md lists all."
    raise bad_query(f"{where}.specificPropertyName` {name[:80]!r} is no property; {hint}")


def select_readings(
    query: ReadingQuery,
    limit: int,
    *,
    offset: int = 0,
    after: Cursor | None = None,
    meter_key: int | None = None,
    signed: bool = False,
) -> Statement:
    """Return the statement for at most ``limit`` readings, in order.

    Columns: meter_id, meter_key, reading_time, reading_identifier, sequence_number, fault_code, property_ids, units,
    numerical_values, text_values, dates, stored_time, signature_verified; with ``signed``, which leaves out what is
    unsigned, signed_payload too.
    Each meter is read along its primary key and contributes at most ``offset + limit`` rows, so the cost is bounded
    by the page, not by the table. ``meter_key`` narrows to one meter, for the bulk download.
    """
    sql = Values()
    meters = "true"
    if meter_key is not None:
        meters = f"meter_key = {sql.value(meter_key, 'integer')}"
    elif query.meter_ids:
        meters = f"meter_id = any({sql.value(list(query.meter_ids), 'text[]')})"
    conditions = ["r.meter_key = m.meter_key", *_time_range(query, sql), *_properties(query, sql)]
    if after is not None:
        conditions.extend(_behind(after, sql))
    if signed:
        conditions.append("r.signed_payload is not null")
    inner_rows = sql.value(offset + limit, "bigint")
    return Statement(
        # Only placeholders and our own words are put in.
        f"""
        select m.meter_id, m.meter_key, x.reading_time, x.reading_identifier, x.sequence_number, x.fault_code,
               x.property_ids, x.units, x.numerical_values, x.text_values, x.dates, x.stored_time,
               x.signature_verified{", x.signed_payload" if signed else ""}
          from (select meter_id, meter_key from meter where {meters}) m
         cross join lateral (
               select r.*, s.property_ids, s.units
                 from reading r join property_set s using (property_set_key)
                where {" and ".join(conditions)}
                order by r.reading_time, r.reading_identifier
                limit {inner_rows}) x
         order by x.reading_time, m.meter_key, x.reading_identifier
         limit {sql.value(limit, "bigint")} offset {sql.value(offset, "bigint")}
        """,  # noqa: S608
        tuple(sql.args),
    )


class Values:
    """Collects values and hands out their placeholders."""

    def __init__(self) -> None:
        self.args: list[object] = []

    def value(self, value: object, kind: str) -> str:
        self.args.append(value)
        return f"${len(self.args)}::{kind}"


def _time_range(query: ReadingQuery, sql: Values) -> list[str]:
    conditions = []
    if query.reading_time_start is not None:
        conditions.append(f"r.reading_time >= {sql.value(query.reading_time_start, 'timestamptz')}")
    if query.reading_time_end is not None:
        conditions.append(f"r.reading_time < {sql.value(query.reading_time_end, 'timestamptz')}")
    return conditions


def _behind(after: Cursor, sql: Values) -> list[str]:
    instant, key = sql.value(after.reading_time, "timestamptz"), sql.value(after.meter_key, "integer")
    identifier = sql.value(after.identifier, "uuid")
    same_time = f"r.meter_key > {key} or (r.meter_key = {key} and r.reading_identifier > {identifier})"
    return [f"r.reading_time >= {instant}", f"(r.reading_time > {instant} or {same_time})"]


def _properties(query: ReadingQuery, sql: Values) -> list[str]:
    conditions = []
    names = [entry.specific_property_name for entry in query.operational_properties if entry.specific_property_name]
    if names:
        conditions.append(f"s.property_ids && {sql.value(names, 'text[]')}")
    conditions.extend(_comparison(entry, sql) for entry in query.operational_properties if entry.compares)
    return conditions


def _comparison(entry: PropertyFilter, sql: Values) -> str:
    number_value, text_value = "v.n", "v.t"
    if entry.specific_property_name is not None:  # which a reading has at most once
        place = f"array_position(s.property_ids, {sql.value(entry.specific_property_name, 'text')})"
        number_value, text_value = f"r.numerical_values[{place}]", f"r.text_values[{place}]"
    terms = [f"{number_value} {operator} {sql.value(number, 'numeric')}" for _, operator, number in entry.comparisons()]
    if entry.text_value_equal_to is not None:
        terms.append(f"{text_value} = {sql.value(entry.text_value_equal_to, 'text')}")
    condition = " and ".join(terms)
    if entry.specific_property_name is not None:
        return f"({condition})"
    return f"exists (select from unnest(r.numerical_values, r.text_values) v(n, t) where {condition})"


def _check_meter_id(meter_id: str) -> None:
    try:
        check_id(meter_id, "`meterIds`: meter id")
    except BadDataError as error:
        raise bad_query(f"{error}.") from error


def _check_property(index: int, entry: PropertyFilter) -> PropertyFilter:
    where = f"`operationalProperties[{index}]"
    if not entry.compares and entry.specific_property_name is None:
        raise bad_query(f"{where}` is empty: name a property in `specificPropertyName`, or give a comparison.")
    for name, _, number in entry.comparisons():
        if not number.is_finite() or (number and abs(number.adjusted()) > LIMIT_EXPONENT):
            raise bad_query(f"{where}.{name}` must be a number up to 1e{LIMIT_EXPONENT}.")
        if len(number.as_tuple().digits) > 2 * LIMIT_EXPONENT:
            raise bad_query(f"{where}.{name}` has more than {2 * LIMIT_EXPONENT} digits.")
    if "\0" in (entry.text_value_equal_to or ""):
        raise bad_query(f"{where}.textValueEqualTo` has a NUL character, which no stored text has.")
    if entry.specific_property_name is None:
        return entry
    return msgspec.structs.replace(entry, specific_property_name=property_id_of(entry.specific_property_name, where))


def bad_query(sentence: str) -> BadDataError:
    return BadDataError(sentence, reason="bad-query")
