"""Counts a demo end to end: what the meters said, what was published, what is stored. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import msgspec

from meterway.core.obis import Obis
from meterway.core.properties import catalogue
from meterway.meter.virtual.ledger import LedgerLine


class StoredValue(msgspec.Struct, frozen=True, rename="camel"):
    """As the API answers it."""

    property_name: str
    numerical_value: Decimal | None = None


class StoredReading(msgspec.Struct, frozen=True, rename="camel"):
    """As the API answers it."""

    meter_id: str
    reading_id: str
    reading_time: datetime
    sequence_number: int | None
    """None where somebody else published under a meter's id, in a shape that has none."""
    stored_time: datetime
    property_values: tuple[StoredValue, ...]


class Count(msgspec.Struct, frozen=True):
    """The result of a demo. ``missing`` and ``duplicated`` are 0, or something is wrong."""

    telegrams: int
    """Whole telegrams that the meters handed to the line."""
    published: int
    """Different readings seen on ``smartMeterMessage/+/readings``; more than telegrams, as gas and water meters
    behind a P1 port have readings of their own."""
    stored: int
    """Readings of this run in the database."""
    missing: int
    """Telegrams whose values no stored reading has, and published readings that are not stored."""
    duplicated: int
    """Stored readings that repeat another, or that no telegram stands behind."""
    quarantined: int
    latency_p50_s: float | None
    """From the last byte of a telegram to its committed row."""
    latency_p99_s: float | None


@dataclass(frozen=True, slots=True)
class _MeterCount:
    missing: int
    duplicated: int
    latencies_s: list[float]


def count(
    telegrams: Iterable[LedgerLine],
    stored: Sequence[StoredReading],
    published: int,
    quarantined: int,
    *,
    begin: datetime | None = None,
) -> Count:
    """Compare the ledger of the virtual meters with what is stored.

    A reading of an instant before ``begin`` waited in a spool when an earlier run was killed: no telegram of this run
    stands behind it, and none is looked for.

    A telegram and a reading belong together when all numbers that both state have the same digits (the unit may
    differ by a power of ten: SML says Wh, a reading kWh).
    """
    said: dict[str, list[LedgerLine]] = {}
    for line in telegrams:
        if line.state == "whole":
            said.setdefault(line.meter_id, []).append(line)
    kept: dict[str, list[StoredReading]] = {}
    for reading in stored:
        if begin is None or reading.reading_time >= begin:
            kept.setdefault(reading.meter_id, []).append(reading)
    counts = [_count_meter(lines, kept.get(meter_id, [])) for meter_id, lines in said.items()]
    latencies_s = sorted(latency_s for each in counts for latency_s in each.latencies_s)
    repeated = len(stored) - len({(reading.meter_id, reading.sequence_number) for reading in stored})
    return Count(
        telegrams=sum(map(len, said.values())),
        published=published,
        stored=len(stored),
        missing=sum(each.missing for each in counts) + max(0, published - len(stored)),
        duplicated=max(repeated, sum(each.duplicated for each in counts)),
        quarantined=quarantined,
        latency_p50_s=_percentile(latencies_s, 0.50),
        latency_p99_s=_percentile(latencies_s, 0.99),
    )


def _count_meter(lines: list[LedgerLine], readings: list[StoredReading]) -> _MeterCount:
    lines.sort(key=lambda line: line.n)
    readings.sort(key=lambda reading: reading.sequence_number or 0)
    shared = _numbers_said(lines[0]).keys() & (_numbers_stored(readings[0]).keys() if readings else set())
    names = sorted(shared)
    said = Counter(_fingerprint(_numbers_said(line), names) for line in lines)
    kept = Counter(_fingerprint(_numbers_stored(reading), names) for reading in readings)
    latencies_s = (
        [reading.stored_time.timestamp() - line.sent_time_s for line, reading in zip(lines, readings, strict=True)]
        if len(lines) == len(readings)
        else []
    )
    return _MeterCount((said - kept).total(), (kept - said).total(), latencies_s)


def _numbers_said(line: LedgerLine) -> dict[str, Decimal]:
    found = {}
    for code, number in line.values.items():
        definition = catalogue().for_obis(Obis.parse(code))
        if definition is not None:
            found[definition.property_id] = Decimal(number)
    return found


def _numbers_stored(reading: StoredReading) -> dict[str, Decimal]:
    return {
        value.property_name: value.numerical_value
        for value in reading.property_values
        if value.numerical_value is not None
    }


def _fingerprint(numbers: dict[str, Decimal], names: list[str]) -> tuple[tuple[int, tuple[int, ...]] | None, ...]:
    """The digits of the named numbers, without their place value; None for one that is absent."""
    found = (numbers.get(name) for name in names)
    return tuple(number if number is None else number.normalize().as_tuple()[:2] for number in found)


def _percentile(ordered: list[float], share: float) -> float | None:
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 4)
