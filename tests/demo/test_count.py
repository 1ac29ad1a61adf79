"""The count of a demo: what the meters said beside what is stored."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from meterway.demo.count import Count, StoredReading, StoredValue, count
from meterway.meter.virtual.ledger import LedgerLine

METER = "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff"
BEGIN = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def said(n: int, *, state: str = "whole") -> LedgerLine:
    sent_s = (BEGIN + timedelta(seconds=n)).timestamp()
    values = {"1-0:1.8.0*255": f"{7000 + n}.5"}
    return LedgerLine(meter_id=METER, state=state, sent_time_s=sent_s, n=n, values=values)  # type: ignore[arg-type]


def stored(n: int, *, sequence_number: int | None = None, kilo: str = "0.001") -> StoredReading:
    at = BEGIN + timedelta(seconds=n)
    return StoredReading(
        meter_id=METER,
        reading_id=f"reading-{n}",
        reading_time=at,
        sequence_number=n if sequence_number is None else sequence_number,
        stored_time=at + timedelta(seconds=0.25),
        property_values=(StoredValue("OBIS_1.8.0", Decimal(f"{7000 + n}.5") * Decimal(kilo)),),
    )


def figures(counted: Count) -> tuple[int, int, int, int, int]:
    return counted.telegrams, counted.published, counted.stored, counted.missing, counted.duplicated


def test_what_was_said_and_stored_once_in_another_unit_is_neither_missing_nor_duplicated() -> None:
    counted = count([said(1), said(2)], [stored(2), stored(1)], 2, 0)
    assert figures(counted) == (2, 2, 2, 0, 0)
    assert (counted.latency_p50_s, counted.latency_p99_s) == (0.25, 0.25)


def test_a_whole_telegram_that_no_reading_has_is_missing_and_a_spoilt_one_is_not() -> None:
    counted = count([said(1), said(2, state="spoilt"), said(3)], [stored(1)], 1, 0)
    assert figures(counted) == (2, 1, 1, 1, 0)


def test_a_published_reading_that_is_not_stored_is_missing() -> None:
    assert figures(count([said(1)], [stored(1)], 2, 0)) == (1, 2, 1, 1, 0)


def test_a_reading_that_no_telegram_stands_behind_is_duplicated() -> None:
    assert figures(count([said(1)], [stored(1), stored(7)], 2, 0)) == (1, 2, 2, 0, 1)


def test_a_reading_left_over_from_a_run_that_was_killed_is_not_duplicated() -> None:
    left_over = stored(-5, sequence_number=1)
    counted = count([said(1)], [left_over, stored(1, sequence_number=2)], 2, 0, begin=BEGIN)
    assert figures(counted) == (1, 2, 2, 0, 0)
