"""Completeness over HTTP: what is expected, what is missing, and why."""

import subprocess
from asyncio import to_thread
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest

from meterway.cloud.api import create_app
from meterway.cloud.store import Store
from meterway.cloud.store.rows import Arrived, ArrivedReading, ArrivedReport
from meterway.core import reports
from meterway.core.reports import Fault, MeterDescription, Status
from meterway.core.topics import SpecificTopic, concentrator_own_topic
from support.cloud_http import CONCENTRATOR, client_of, fault, put, rejected, report, series
from support.platform import COMMAND

DAY = datetime(2026, 11, 20, tzinfo=UTC)
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
QUARTER_S = 900.0
Gaps = list[tuple[str, str, int, str, str]]


@pytest.fixture
async def client(store: Store) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_app(store, clock=lambda: NOW)) as client:
        yield client


def described(meter_id: str = "m1", interval_s: float | None = QUARTER_S) -> ArrivedReport:
    return report(
        meter_id,
        MeterDescription(
            meter_individual_id=meter_id,
            physical_meter_class="ELECTRICITY",
            protocol="p1",
            link="tcp",
            family="p1-generic",
            interval_s=interval_s,
        ),
    )


def quarters(count: int, *, meter_id: str = "m1", start: datetime = DAY) -> list[ArrivedReading]:
    return series(meter_id, start, count, step_s=QUARTER_S)


def numbered(arrived: ArrivedReading, number: int) -> ArrivedReading:
    changed = msgspec.structs.replace(arrived.reading, sequence_number=number)
    return msgspec.structs.replace(arrived, reading=changed)


def paused(at: int, hours: int) -> list[ArrivedReading]:
    """Two days of quarter-hours; from reading ``at`` on nothing was read for so many hours."""
    readings = quarters(2 * 96 + 48 + 1)
    kept = [*readings[:at], *readings[at + 4 * hours :]]
    return [numbered(each, number) for number, each in enumerate(kept, 1)]


def of_concentrator(status: Status) -> ArrivedReport:
    topic = concentrator_own_topic(CONCENTRATOR, SpecificTopic.STATUS)
    return ArrivedReport(topic, reports.encode(status), CONCENTRATOR, None, SpecificTopic.STATUS)


async def asked(client: httpx.AsyncClient, path: str = "meters/m1/completeness", **query: str) -> dict[str, Any]:
    answer = await client.get(f"/v1/{path}", params={"from": "2026-11-20", **query})
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def gaps(part: dict[str, Any]) -> Gaps:
    return [(gap["kind"], gap["cause"], gap["missing"], gap["start"][8:16], gap["end"][8:16]) for gap in part["gaps"]]


async def reported(store: Store, client: httpx.AsyncClient, *arrived: Arrived, at: int = 50, hours: int = 3) -> Gaps:
    """Return the gaps of a meter that paused, after what was reported of it."""
    await put(store, described(), *paused(at, hours))
    for each in arrived:
        await put(store, each, now=NOW)
    return gaps((await asked(client))["total"])


async def test_a_meter_of_which_nothing_is_missing_is_complete(store: Store, client: httpx.AsyncClient) -> None:
    await put(store, described(), *quarters(2 * 96 + 48 + 1))
    answer = await asked(client)
    counted = [(day["day"], day["expected"], day["stored"], day["percent"], day["gaps"]) for day in answer["days"]]
    assert counted == [
        ("2026-11-20", 96, 96, 100.0, []),
        ("2026-11-21", 96, 96, 100.0, []),
        ("2026-11-22", 49, 49, 100.0, []),
    ]
    total = answer["total"]
    assert (total["expected"], total["stored"], total["missing"], total["percent"]) == (241, 241, 0, 100.0)
    assert (answer["firstDay"], answer["lastDay"], total["intervalS"]) == ("2026-11-20", "2026-11-22", 900)


async def test_a_pause_over_midnight_stands_in_both_days_with_its_part(store: Store, client: httpx.AsyncClient) -> None:
    await put(store, described(), *paused(92, 3))  # from 23:00 to 02:00
    answer = await asked(client)
    assert [(day["stored"], day["missing"], day["percent"]) for day in answer["days"]] == [
        (92, 4, 95.83),
        (88, 8, 91.66),
        (49, 0, 100.0),
    ]
    assert gaps(answer["total"]) == [("not-read", "unknown", 12, "20T22:45", "21T02:00")]
    only_second = await asked(client, **{"from": "2026-11-21", "to": "2026-11-21"})
    assert (only_second["total"]["missing"], only_second["total"]["expected"]) == (8, 96)


async def test_a_meter_that_was_silent(store: Store, client: httpx.AsyncClient) -> None:
    silent = Status(state="silent", since=DAY + 13 * HOUR, detail="not one byte for 60 s")
    online = Status(state="online", since=DAY + 15 * HOUR)
    assert await reported(store, client, report("m1", silent), report("m1", online)) == [
        ("not-read", "meter-silent", 12, "20T12:15", "20T15:30")
    ]


async def test_an_adapter_that_was_stopped(store: Store, client: httpx.AsyncClient) -> None:
    stopped = Status(state="offline", since=DAY + 12.4 * HOUR, detail="the adapter was stopped", reason="stopped")
    waiting = Status(state="waiting", since=DAY + 15.4 * HOUR)
    assert await reported(store, client, report("m1", stopped), report("m1", waiting)) == [
        ("not-read", "adapter-off", 12, "20T12:15", "20T15:30")
    ]


async def test_a_link_that_was_down(store: Store, client: httpx.AsyncClient) -> None:
    gone = Status(state="offline", since=DAY + 12.4 * HOUR, detail="the port is gone", reason="link")
    back = Status(state="online", since=DAY + 15.5 * HOUR)
    assert await reported(store, client, report("m1", gone), report("m1", back)) == [
        ("not-read", "link-down", 12, "20T12:15", "20T15:30")
    ]


@pytest.mark.parametrize(("reason", "cause"), [("bad-checksum", "telegram-rejected"), ("bad-key", "wrong-key")])
async def test_telegrams_that_were_rejected(store: Store, client: httpx.AsyncClient, reason: str, cause: str) -> None:
    online = report("m1", Status(state="online", since=DAY))
    bad = fault("m1", Fault(time=DAY + 12.5 * HOUR, reason=reason, message="wrong", data=b"/X"))
    doubt = fault("m1", Fault(time=DAY + 12.5 * HOUR, reason="register-fell", message="a doubt"))
    assert await reported(store, client, online, bad, doubt, hours=1) == [
        ("not-read", cause, 4, "20T12:15", "20T13:30")
    ]


async def test_a_device_that_was_off_with_its_concentrator(store: Store, client: httpx.AsyncClient) -> None:
    online = report("m1", Status(state="online", since=DAY))
    off = of_concentrator(Status(state="offline", since=DAY + 12.3 * HOUR, detail="gone"))
    on = of_concentrator(Status(state="online", since=DAY + 15.4 * HOUR))
    assert await reported(store, client, online, off, on) == [
        ("not-read", "concentrator-off", 12, "20T12:15", "20T15:30")
    ]


async def test_a_skipped_number_that_is_nowhere_is_lost(store: Store, client: httpx.AsyncClient) -> None:
    readings = quarters(2 * 96 + 48 + 1)
    await put(store, described(), *readings[:40], *readings[42:])
    answer = await asked(client)
    (gap,) = answer["total"]["gaps"]
    assert (gap["kind"], gap["cause"], gap["missing"], answer["total"]["lost"]) == ("lost", "unknown", 2, 2)
    assert (gap["firstSequenceNumber"], gap["lastSequenceNumber"]) == (41, 42)
    await put(store, *readings[40:42])
    assert (await asked(client))["total"]["gaps"] == []


async def test_a_skipped_number_that_is_in_quarantine_is_refused_or_expired(
    store: Store, client: httpx.AsyncClient
) -> None:
    readings = quarters(2 * 96 + 48 + 1)
    past = rejected(b'{"sequenceNumber": 41, "readingTime": "1970-01-01T00:00:00Z"}', reason="past-time")
    await put(store, described(), *readings[:40], *readings[43:], past, rejected(b"not JSON"))
    assert gaps((await asked(client))["total"]) == [
        ("lost", "unknown", 1, "20T09:45", "20T10:45"),
        ("refused", "expired", 1, "20T09:45", "20T10:45"),
        ("refused", "quarantined", 1, "20T09:45", "20T10:45"),
    ]


async def test_a_skipped_number_may_wait_in_the_concentrators_spool(store: Store, client: httpx.AsyncClient) -> None:
    readings = quarters(2 * 96 + 48 + 1)
    await put(store, described(), *readings[:40], *readings[42:])
    counters = {"pending": 2, "oldest_age_s": int((NOW - DAY - 9 * HOUR).total_seconds())}
    await put(store, of_concentrator(Status(state="online", since=DAY, counters=counters)), now=NOW)
    assert gaps((await asked(client))["total"]) == [("waiting", "in-spool", 2, "20T09:45", "20T10:30")]


async def test_since_a_concentrator_is_off_readings_wait(store: Store, client: httpx.AsyncClient) -> None:
    await put(store, described(), *quarters(2 * 96 + 1))
    await put(store, of_concentrator(Status(state="offline", since=DAY, detail="the connection was lost")), now=NOW)
    answer = await asked(client)
    assert gaps(answer["total"]) == [("waiting", "concentrator-off", 48, "22T00:00", "22T12:00")]
    assert answer["total"]["gaps"][0]["detail"] == "the connection was lost"


async def test_numbers_that_came_with_older_times_are_not_lost(store: Store, client: httpx.AsyncClient) -> None:
    readings = quarters(2 * 96 + 48 + 1)
    old = [numbered(each, 41 + index) for index, each in enumerate(quarters(5, start=DAY - timedelta(days=9)))]
    later = [numbered(each, each.reading.sequence_number + 5) for each in readings[40:] if each.reading.sequence_number]
    await put(store, described(), *readings[:40], *old, *later)
    assert (await asked(client))["total"]["lost"] == 0


async def test_numbers_that_begin_again_are_not_lost(store: Store, client: httpx.AsyncClient) -> None:
    readings = quarters(2 * 96 + 48 + 1)
    again = [numbered(each, number) for number, each in enumerate(readings[60:], 1)]
    await put(store, described(), *readings[:50], *again)
    assert gaps((await asked(client))["total"]) == [("not-read", "counting-restarted", 10, "20T12:15", "20T15:00")]


async def test_numbers_that_leap_far_are_counted_at_once(store: Store, client: httpx.AsyncClient) -> None:
    readings = quarters(2 * 96 + 48 + 1)
    later = [numbered(each, 2**62 + index) for index, each in enumerate(readings[40:])]
    await put(store, described(), *readings[:40], *later)
    assert (await asked(client))["total"]["lost"] == 2**62 - 41


async def test_without_an_interval_only_numbers_are_judged(store: Store, client: httpx.AsyncClient) -> None:
    readings = quarters(40)
    await put(store, *readings[:10], *readings[11:20], *readings[30:])
    answer = await asked(client)
    total = answer["total"]
    assert (total["expected"], total["percent"], total["missing"], total["lost"]) == (None, None, 11, 11)


async def test_a_meter_that_never_spoke_has_nothing_to_expect(store: Store, client: httpx.AsyncClient) -> None:
    await put(store, described())
    total = (await asked(client))["total"]
    assert (total["expected"], total["stored"], total["missing"], total["gaps"]) == (None, 0, 0, [])


async def test_a_foreign_clock_that_says_a_second_twice_and_skips_one_is_no_gap(
    store: Store, client: httpx.AsyncClient
) -> None:
    readings = series("m1", NOW - HOUR, 3601, step_s=1)
    slipped = [each for each in readings if each.reading.reading_time != NOW - timedelta(seconds=100)]
    twice = numbered(series("m1", NOW - timedelta(seconds=101, microseconds=500_000), 1)[0], 3500)
    every = sorted([*slipped, twice], key=lambda each: each.reading.reading_time)
    await put(store, described(interval_s=1), *[numbered(each, number) for number, each in enumerate(every, 1)])
    total = (await asked(client))["total"]
    assert (total["expected"], total["stored"], total["missing"]) == (3601, 3601, 0)


async def test_more_readings_than_expected_are_not_said_to_be_a_part_of_them(
    store: Store, client: httpx.AsyncClient
) -> None:
    await put(store, described(), *series("m1", DAY, 2 * 96, step_s=QUARTER_S / 2))
    await put(store, described("m2"), *quarters(96, meter_id="m2"))
    said = await to_thread(
        subprocess.run,
        [*COMMAND, "gaps", "--url", str(client.base_url), "--from", "2026-11-20", "--to", "2026-11-20"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.splitlines() == [
        "m1  100.00 %, 192 stored, more than the 96 expected",
        "m2  100.00 %, 96 of 96 stored",
    ]


async def test_the_list_goes_through_all_meters_by_pages(store: Store, client: httpx.AsyncClient) -> None:
    for meter_id in ("m1", "m2", "m3"):
        await put(store, described(meter_id), *quarters(2 * 96 + 49, meter_id=meter_id))
    first = await asked(client, "completeness", limit="2")
    second = await asked(client, "completeness", limit="2", after=first["nextAfter"])
    assert [each["meterId"] for each in [*first["content"], *second["content"]]] == ["m1", "m2", "m3"]
    assert ([each["percent"] for each in first["content"]], second["nextAfter"]) == ([100.0, 100.0], None)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"from": "2026-11-24"}, "`from` 2026-11-24 is after `to` 2026-11-22: both are days, and both are counted."),
        ({"from": "yesterday"}, "`from` 'yesterday' is not a day, as 2026-11-23"),
        ({"from": "2026-11-24", "to": "2026-11-25"}, "`from` 2026-11-24 is in the future (today is 2026-11-22, UTC)."),
        ({"from": "2020-01-01"}, "`from` 2020-01-01 to 2026-11-22 are more than 366 days: ask for fewer."),
        ({"from": "0001-01-01", "to": "0001-01-02"}, None),
    ],
)
async def test_a_wrong_span_is_a_problem(
    store: Store, client: httpx.AsyncClient, query: dict[str, str], sentence: str | None
) -> None:
    await put(store, *quarters(1))
    answer = await client.get("/v1/meters/m1/completeness", params=query)
    assert answer.status_code == (200 if sentence is None else 422), answer.text
    if sentence is not None:
        assert answer.json()["detail"].startswith(sentence)
        assert answer.json()["reason"] == "bad-span"


async def test_a_meter_that_is_not_there_is_a_problem(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/meters/nobody/completeness")).status_code == 404


async def test_while_the_time_before_is_entered_nothing_wrong_is_said(store: Store, client: httpx.AsyncClient) -> None:
    await store.fetch("insert into ledger_backlog values (1, '2026-11-20')")
    answer = await client.get("/v1/completeness")
    assert (answer.status_code, answer.json()["reason"]) == (503, "ledger-building")
    assert await store.enter_backlog()
    assert not await store.enter_backlog()
    assert (await client.get("/v1/completeness")).status_code == 200
