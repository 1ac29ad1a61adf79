"""What becomes of telegrams without a checksum in which one bit was turned: the real decoders, every bit."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from meterway.adapter.config import MeterConfig, ReplaySource
from meterway.adapter.mapping import MappedReading, Mapper
from meterway.adapter.memory import Memories
from meterway.adapter.plausibility import Plausibility
from meterway.core.properties import Kind, catalogue
from meterway.core.reading import MeterReading
from meterway.core.zones import find_zone
from meterway.meter.driver import MeterSetup
from meterway.meter.family import Family, load_family
from meterway.meter.telegram import Telegram
from meterway.plugins import make_decoder

BEGIN = datetime(2026, 11, 23, 9, 15, tzinfo=UTC)
SPOILT = 3
"""Which of the six telegrams has a turned bit."""


def p1_v2(step: int) -> bytes:
    text = load_family("p1-v2").sample.telegram  # type: ignore[union-attr]
    text = text.replace(b"01234.567", b"%09.3f" % (1234.567 + step * 0.002))
    return text.replace(b"0001.07", b"%07.2f" % (1.07 + step * 0.11))


def mode_d(step: int) -> bytes:
    text = load_family("iec-push-generic").sample.telegram  # type: ignore[union-attr]
    text = text.replace(b"001234.5678", b"%011.4f" % (1234.5678 + step * 0.0003))
    return text.replace(b"-000123.45", b"-%09.2f" % (123.45 + step * 11))


@dataclass
class Outcome:
    """How the readings that were handed on differ from the true ones."""

    wrong: list[tuple[str, Kind, Decimal | None]]
    """Values that are not what the meter said: property, kind, and by how much they are off."""
    is_marked: bool
    marked_beside: int
    """True readings that are marked."""
    telegrams: int


def read(family: Family, telegrams: list[bytes]) -> tuple[list[MappedReading], int]:
    """Return what is handed on, and how many telegrams the decoder let pass."""
    decoder = make_decoder(MeterSetup(family=family, zone=find_zone(family.timezone)))
    mapper = Mapper(MeterConfig(id="m", source=ReplaySource(file=Path("x"))), family)
    plausibility = Plausibility(family, mapper.meter_ids, Memories())
    found: list[MappedReading] = []
    passed = 0
    for step, data in enumerate(telegrams):
        arrival = BEGIN + timedelta(seconds=step * family.interval_s)
        for item in [*decoder.feed(data, float(step)), *decoder.idle(float(step))]:
            if isinstance(item, Telegram):
                passed += step == SPOILT
                readings = mapper.readings(item, arrival)
                found += plausibility.judge(item, readings, arrival=arrival, now=float(step)).readings
    return found + plausibility.flush().readings, passed


def outcomes(family: Family, telegrams: list[bytes]) -> Iterator[Outcome]:
    true = {key(each.reading): each.reading for each in read(family, telegrams)[0]}
    steps = set(range(len(telegrams) - 1)) - {SPOILT}
    beside = {BEGIN + timedelta(seconds=step * family.interval_s) for step in steps}
    for bit in range(len(telegrams[SPOILT]) * 8):
        spoilt = bytearray(telegrams[SPOILT])
        spoilt[bit // 8] ^= 1 << bit % 8
        found, passed = read(family, [*telegrams[:SPOILT], bytes(spoilt), *telegrams[SPOILT + 1 :]])
        outcome = Outcome([], is_marked=False, marked_beside=0, telegrams=passed)
        for reading in (each.reading for each in found):
            wrong = list(differences(true.get(key(reading)), reading))
            if wrong:
                outcome.wrong += wrong
                outcome.is_marked |= reading.fault_code is not None
            elif reading.meter_id == "m" and reading.fault_code is not None and reading.reading_time in beside:
                outcome.marked_beside += 1
        yield outcome


def key(reading: MeterReading) -> tuple[str, datetime]:
    return reading.meter_id, reading.reading_time


def differences(true: MeterReading | None, reading: MeterReading) -> Iterator[tuple[str, Kind, Decimal | None]]:
    expected = {value.property_id: value for value in true.property_values} if true else {}
    for value in reading.property_values:
        other = expected.get(value.property_id)
        if other is None:
            yield value.property_id, Kind.TEXT, None
        elif (other.numerical_value, other.text_value, other.date) != (
            value.numerical_value,
            value.text_value,
            value.date,
        ):
            known = value.numerical_value is not None and other.numerical_value is not None
            off = abs(value.numerical_value - other.numerical_value) if known else None  # type: ignore[operator]
            yield value.property_id, catalogue().require(value.property_id).kind, off


def measure(family: Family, telegrams: list[bytes]) -> tuple[Counter[str], list[Decimal]]:
    counts: Counter[str] = Counter()
    passed_registers = []
    for outcome in outcomes(family, telegrams):
        counts["turned"] += 1
        counts["beside"] += outcome.marked_beside
        counts["refused"] += outcome.telegrams == 0
        if not outcome.wrong:
            counts["harmless"] += outcome.telegrams > 0
            continue
        kinds = {kind for _, kind, _ in outcome.wrong}
        what = "register" if Kind.REGISTER in kinds else "instantaneous" if Kind.INSTANTANEOUS in kinds else "other"
        counts[f"{what} {'marked' if outcome.is_marked else 'passed'}"] += 1
        if what == "register" and not outcome.is_marked:
            passed_registers += [off or Decimal(0) for _, kind, off in outcome.wrong if kind is Kind.REGISTER]
    return counts, passed_registers


@pytest.mark.parametrize(
    ("name", "telegrams", "used"),
    [
        ("p1-v2", [p1_v2(step) for step in range(6)], Decimal("0.004")),
        ("iec-push-generic", [mode_d(step) for step in range(6)], Decimal("0.0006")),
    ],
)
def test_a_turned_bit_in_a_register_is_marked_unless_it_is_less_than_what_was_used(
    name: str, telegrams: list[bytes], used: Decimal
) -> None:
    counts, passed = measure(load_family(name), telegrams)
    print(f"{name}: {dict(counts)}, passed registers are off by {passed}")
    marked, unmarked = counts["register marked"], counts["register passed"]
    assert marked >= 0.95 * (marked + unmarked)
    assert all(off <= used for off in passed)
    assert counts["other marked"] >= 0.9 * (counts["other marked"] + counts["other passed"])
    assert counts["beside"] <= 2, "of a true and a wrong value in the corridor, the true one may be taken for the wrong"
