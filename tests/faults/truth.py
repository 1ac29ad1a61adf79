"""What must be in the cloud, and what is: the oracle of the fault tests.

The truth is the adapter's spool. It says how many readings were ever accepted for each meter, and, as none of its
segments is full in these tests, still has every one of them with its bytes. It is read from a copy, because the
adapter holds the original.
"""

import asyncio
import shutil
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from meterway.core import wire
from meterway.core.reading import MeterReading
from meterway.delivery.record import MESSAGE, Record
from meterway.delivery.segment import find_segments, scan
from meterway.delivery.spool import Spool
from support.platform import Api

Values = tuple[tuple[str, str | None, str | None, str | None], ...]
Stored = tuple[str, datetime, Values]
Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Truth:
    """What one or several adapters have accepted."""

    accepted: dict[str, int]
    """Meter id to the number of its readings."""
    readings: dict[Key, MeterReading]
    """By meter id and sequence number; without those that the spools no longer have."""
    pending: int
    """Messages that wait for their receipt."""

    @property
    def total(self) -> int:
        return sum(self.accepted.values())


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything that can be wrong; all zero is right."""

    missing: int = 0
    """Sequence numbers from 1 to what was accepted that no stored reading has."""
    duplicated: int = 0
    """Stored readings beyond the first of a sequence number."""
    invented: int = 0
    """Stored readings of a meter or a number that was never accepted."""
    altered: int = 0
    """Stored readings that say something else than what was published."""
    conflicts: int = 0
    quarantined: int = 0


GOOD = Verdict()


async def truth_of(*spool_dirs: Path) -> Truth:
    """Read the spools of adapters, which may be running as long as no meter speaks."""
    accepted: Counter[str] = Counter()
    readings: dict[Key, MeterReading] = {}
    pending = 0
    for spool_dir in spool_dirs:
        with TemporaryDirectory() as temporary:
            copy = await _copied(spool_dir, Path(temporary))
            records = [each for segment in find_segments(copy) for each in scan(segment)]
            messages = [each for each in records if isinstance(each, Record) and each.kind == MESSAGE]
            async with Spool(copy, count_topics=True) as spool:
                for topic, state in spool._log.tally:  # also of topics whose messages are all deleted
                    if topic.endswith("/readings"):
                        accepted[topic.split("/")[1]] += state.appended
                pending += spool.pending
        for message in messages:
            _, meter_id, ending = message.topic.split("/")
            if ending == "readings":
                reading = wire.decode(message.payload, meter_id=meter_id)
                assert reading.sequence_number is not None
                readings[meter_id, reading.sequence_number] = reading
    return Truth(dict(accepted), readings, pending)


async def _copied(spool_dir: Path, folder: Path) -> Path:
    while True:
        try:
            return Path(shutil.copytree(spool_dir, folder / "spool"))
        except shutil.Error:  # a file of a running adapter's was replaced while it was copied
            shutil.rmtree(folder / "spool")
            await asyncio.sleep(0.1)


def judge(truth: Truth, api: Api) -> Verdict:
    """Compare what was accepted with what is stored."""
    stored = api.all_readings()
    keys = Counter((each["meterId"], each["sequenceNumber"]) for each in stored)
    wanted = {(meter_id, number) for meter_id, count in truth.accepted.items() for number in range(1, count + 1)}
    return Verdict(
        missing=len(wanted - keys.keys()),
        duplicated=keys.total() - len(keys),
        invented=len(keys.keys() - wanted),
        altered=sum(_is_altered(each, truth) for each in stored),
        conflicts=len(api.kept_aside("conflicts")),
        quarantined=len(api.kept_aside("quarantine")),
    )


def _is_altered(stored: dict[str, Any], truth: Truth) -> bool:
    published = truth.readings.get((stored["meterId"], stored["sequenceNumber"]))
    return published is not None and _published(published) != _stored(stored)


def _published(reading: MeterReading) -> Stored:
    values = [(v.property_id, _spelled(v.numerical_value), v.text_value, v.unit) for v in reading.property_values]
    return str(reading.identifier), reading.reading_time, tuple(values)


def _stored(answer: dict[str, Any]) -> Stored:
    values = [
        (v["propertyName"], _spelled(v.get("numericalValue")), v.get("textValue"), v["unit"])
        for v in answer["propertyValues"]
    ]
    return answer["readingId"], datetime.fromisoformat(answer["readingTime"]), tuple(values)


def _spelled(number: Decimal | int | None) -> str | None:
    """Return a number with all its digits, so that 1.0 and 1.00 differ."""
    return None if number is None else str(number)
