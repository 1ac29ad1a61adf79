"""The query's decider: what a body means, and what is refused with which sentence."""

import contextlib
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterway.cloud.bulk import bulk_link, parse_bulk
from meterway.cloud.paging import encode_token, page_of, rows_of
from meterway.cloud.query import Cursor, PropertyFilter, ReadingQuery, parse_query, select_readings
from meterway.core.errors import BadDataError

CURSOR = Cursor(7, datetime(2026, 11, 23, 10, 15, tzinfo=UTC), 4, UUID(int=5))


def test_an_empty_body_asks_for_everything() -> None:
    assert parse_query(b"") == parse_query(b"{}") == ReadingQuery()


def test_a_short_obis_code_is_completed() -> None:
    query = parse_query(b'{"operationalProperties": [{"specificPropertyName": "1.8.0"}]}')
    assert query.operational_properties[0].specific_property_name == "OBIS_1.8.0"


def test_values_are_parameters_and_never_text() -> None:
    hostile = "x'; drop table reading; --"  # past the checks, as if they had failed
    query = ReadingQuery(
        reading_time_start=CURSOR.reading_time,
        operational_properties=(
            PropertyFilter(specific_property_name=hostile, numerical_value_less_than=Decimal("987654321.5")),
            PropertyFilter(text_value_equal_to=hostile),
        ),
        meter_ids=("meter-with-a-name",),
    )
    statement = select_readings(query, 10, after=CURSOR)
    assert "drop table" not in statement.sql
    assert "987654321" not in statement.sql
    assert "meter-with-a-name" not in statement.sql
    assert statement.args.count(hostile) == 2
    assert all(f"${number}::" in statement.sql for number in range(1, len(statement.args) + 1))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "The body is not a query: Input data was truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b"\xff\xfe", "The body is not a query"),
        (b'{"pageSiz": 1}', "unknown field `pageSiz`"),
        (b'{"readingTimeStart": "2026-11-23T00:00:00"}', "with a timezone component - at `$.readingTimeStart`"),
        (b'{"readingTimeStart": "yesterday"}', "at `$.readingTimeStart`"),
        (b'{"readingTimeEnd": "0001-01-01T00:00:00+14:00"}', "`readingTimeEnd` must lie between the years 1900"),
        (
            b'{"readingTimeStart": "2026-11-23T00:00:00Z", "readingTimeEnd": "2026-11-23T01:00:00+01:00"}',
            "`readingTimeEnd` must be later than `readingTimeStart`",
        ),
        (b'{"maxRows": 0}', "at `$.maxRows`"),
        (b'{"pageNumber": 0}', "at `$.pageNumber`"),
        (b'{"pageSize": 10001}', "`int` <= 10000 - at `$.pageSize`"),
        (b'{"meterIds": ["a b"]}', "`meterIds`: meter id 'a b' is not 1 to 64 letters"),
        (b'{"meterIds": ["#"]}', "`meterIds`: meter id '#'"),
        (b'{"operationalProperties": [{}]}', "`operationalProperties[0]` is empty: name a property"),
        (
            b'{"operationalProperties": [{"numericalValueEqualTo": 1e999999999}]}',
            "`operationalProperties[0].numericalValueEqualTo` must be a number up to 1e60",
        ),
        (b'{"operationalProperties": [{"numericalValueEqualTo": "NaN"}]}', "must be a number up to 1e60"),
        (
            b'{"operationalProperties": [{"numericalValueEqualTo": 0.' + b"1" * 130 + b"}]}",
            "has more than 120 digits",
        ),
        (
            b'{"operationalProperties": [{"specificPropertyName": "GAS_volumes"}]}',
            "`operationalProperties[0].specificPropertyName` 'GAS_volumes' is no property; did you mean GAS_volume?",
        ),
        (b'{"operationalProperties": [{"textValueEqualTo": "a\\u0000b"}]}', "has a NUL character"),
        (b'{"pageToken": "AAAA"}', "`pageToken` is damaged"),
        (b'{"pageToken": "\xc3\xa4"}', "`pageToken` is damaged"),
        (b'{"pageToken": "AAAA", "pageNumber": 2}', "`pageToken` and `pageNumber` exclude each other"),
        (b'{"pageNumber": 1002}', "`pageNumber` 1002 of 100 rows lies beyond row 100000"),
    ],
)
def test_a_bad_query_is_refused_with_a_sentence_that_names_the_field(body: bytes, sentence: str) -> None:
    with pytest.raises(BadDataError) as caught:
        page_of(parse_query(body))
    assert sentence in str(caught.value)
    assert caught.value.reason == "bad-query"


def test_a_token_continues_its_query_with_another_page_size() -> None:
    query = ReadingQuery(meter_ids=("m1",), max_rows=10)
    token = encode_token(query, CURSOR)
    page = page_of(ReadingQuery(meter_ids=("m1",), max_rows=10, page_token=token, page_size=5))
    assert page.after == CURSOR
    assert rows_of(query, page) == 3


def test_a_token_of_another_query_is_refused() -> None:
    token = encode_token(ReadingQuery(meter_ids=("m1",)), CURSOR)
    with pytest.raises(BadDataError, match="belongs to another query"):
        page_of(ReadingQuery(meter_ids=("m2",), page_token=token))


def test_max_rows_bounds_all_pages_together() -> None:
    query = ReadingQuery(max_rows=250, page_number=3)
    assert rows_of(query, page_of(query)) == 50
    beyond = ReadingQuery(max_rows=250, page_number=4)
    assert rows_of(beyond, page_of(beyond)) == 0


properties = st.builds(
    PropertyFilter,
    specific_property_name=st.sampled_from(["OBIS_1.8.0", "OBIS_1.7.0", "GAS_volume"]),
    numerical_value_greater_than=st.none() | st.decimals(-(10**9), 10**9, allow_nan=False, places=3),
    text_value_equal_to=st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
)
queries = st.builds(
    ReadingQuery,
    reading_time_start=st.none() | st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    max_rows=st.none() | st.integers(1, 10**9),
    operational_properties=st.lists(properties, max_size=3).map(tuple),
    meter_ids=st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True), max_size=3).map(tuple),
)


@given(queries)
def test_the_link_to_bulk_carries_the_whole_query(query: ReadingQuery) -> None:
    parameters = parse_qsl(urlsplit(bulk_link(query, "csv")).query, keep_blank_values=True)
    assert parse_bulk(parameters) == (query, "csv")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_query_or_bad_data(body: bytes) -> None:
    with contextlib.suppress(BadDataError):
        page_of(parse_query(body))


@given(st.text(max_size=80))
def test_any_token_is_a_page_or_bad_data(token: str) -> None:
    with pytest.raises(BadDataError, match="`pageToken`"):
        page_of(ReadingQuery(page_token=token))


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ([("format", "xml")], "`format` 'xml' does not exist; there are ndjson, csv and signed"),
        ([("limit", "3")], "Parameter `limit` does not exist; there are format, readingTimeStart"),
        ([("maxRows", "many")], "`maxRows` 'many' is not a number"),
        ([("maxRows", "1"), ("maxRows", "2")], "`maxRows` is given twice"),
        ([("operationalProperties", "{")], "`operationalProperties` must be a JSON array"),
        ([("readingTimeStart", "2026-11-23")], "The parameters are not a query"),
    ],
)
def test_bad_bulk_parameters_are_refused(parameters: list[tuple[str, str]], sentence: str) -> None:
    with pytest.raises(BadDataError) as caught:
        parse_bulk(parameters)
    assert sentence in str(caught.value)


def test_a_bare_plus_in_a_url_is_understood_as_part_of_the_zone() -> None:
    query, _ = parse_bulk([("readingTimeStart", "2026-11-23T00:00:00 01:00")])
    assert query.reading_time_start == datetime(2026, 11, 22, 23, tzinfo=UTC)
