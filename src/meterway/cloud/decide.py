"""What a message that arrives in the cloud is: a reading, a report, a fault, or none of these. Pure.

What it does: takes topic and payload apart, checks them, and puts the result into one of four types. It never raises
on what comes from the wire: a message that is wrong becomes ``Rejected`` with a reason.

What it does not do: it knows no meter (whether one is claimed is the store's business), no clock (the window of
plausible times is an argument), and keeps nothing.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from meterway.cloud.store.rows import Arrived, ArrivedFault, ArrivedReading, ArrivedReport, Rejected
from meterway.core import reports, signatures, topics, wire
from meterway.core.errors import BadDataError
from meterway.core.topics import CloudTopic, SpecificTopic

LIMIT_REPORT_BYTES = 64 * 1024
"""The longest status, description or fault."""


@dataclass(frozen=True, slots=True)
class Window:
    """The reading times that are plausible: from ``past`` before now to ``future`` after it."""

    past: timedelta
    future: timedelta


def decide(topic: str, payload: bytes, *, now: datetime, window: Window) -> Arrived:
    """Return what a message is.

    The reasons of ``Rejected`` are those of ``wire``, and ``bad-topic``, ``bad-identifier``, ``bad-report``,
    ``too-large``, ``future-time``, ``past-time``.
    """
    try:
        place = _split(topic)
        if place.specific_topic is SpecificTopic.READINGS and place.meter_id is not None:
            reading = wire.decode_columns(payload, meter_id=place.meter_id)
            _check_time(reading.reading_time, now, window)
            return ArrivedReading(topic, payload, place.concentrator_id, reading, signatures.split(payload))
        return _decide_report(topic, payload, place)
    except BadDataError as error:
        return Rejected(topic, payload, error.reason, str(error))


@lru_cache(maxsize=65_536)
def sender_of(topic: str) -> str | None:
    """Return who waits for the receipt of a message on ``topic``; None if the topic names nobody."""
    parts = topic.split("/", 2)
    if len(parts) < 3 or parts[0] != "concentrator":  # noqa: PLR2004
        return None
    try:
        return topics.check_id(parts[1], "concentrator id")
    except BadDataError:
        return None


_split = lru_cache(maxsize=65_536)(topics.split_concentrator_topic)


def _decide_report(topic: str, payload: bytes, place: CloudTopic) -> ArrivedReport | ArrivedFault:
    if len(payload) > LIMIT_REPORT_BYTES:
        raise BadDataError(
            f"a report on {place.specific_topic} has at most {LIMIT_REPORT_BYTES} bytes, this one {len(payload)}",
            reason="too-large",
        )
    if place.specific_topic is SpecificTopic.FAULTS:
        fault = reports.decode(payload, reports.Fault)
        return ArrivedFault(topic, payload, place.concentrator_id, place.meter_id, fault)
    if payload:
        if place.specific_topic is SpecificTopic.STATUS:
            reports.decode(payload, reports.Status)
        else:
            reports.decode(payload, reports.MeterDescription)
    return ArrivedReport(topic, payload, place.concentrator_id, place.meter_id, place.specific_topic)


def _check_time(reading_time: datetime, now: datetime, window: Window) -> None:
    if reading_time > now + window.future:
        raise BadDataError(
            f"{reading_time.isoformat()} is in the future, seen from {now.isoformat()}: "
            "check the clocks of meter and cloud",
            reason="future-time",
        )
    if reading_time < now - window.past:
        raise BadDataError(
            f"{reading_time.isoformat()} is more than {window.past.days} days ago: "
            "check the meter's clock, or raise [ingest] past_limit_days",
            reason="past-time",
        )
