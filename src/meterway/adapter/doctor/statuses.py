"""What a broker has retained about meters and concentrators, and whether receipts come. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from meterway.adapter.doctor.check import Check, skipped
from meterway.core import reports, topics
from meterway.core.errors import BadDataError
from meterway.core.reports import Status
from meterway.core.topics import SpecificTopic

CONCENTRATORS = "concentrator/+/status"
METERS = "smartMeterMessage/+/status"
DESCRIPTIONS = "smartMeterMessage/+/meter"
READINGS = "smartMeterMessage/+/readings"
RECEIPTS = "receipt/+"


def status_of(retained: Mapping[str, bytes], topic: str) -> Status | None:
    """Return the status that is retained on ``topic``; None if there is none that can be read."""
    try:
        return reports.decode(retained[topic], Status)
    except (KeyError, BadDataError):
        return None


def meter_status(meter_id: str, retained: Mapping[str, bytes], *, is_running: bool) -> Check:
    """Return what the retained status says of a meter."""
    name = f"meter {meter_id}"
    status = status_of(retained, topics.smart_meter_topic(meter_id, SpecificTopic.STATUS))
    if status is None:
        return skipped(name, "the broker has no status of it, or this log-in may not read it", code="status")
    said = f"{status.state} since {_at(status.since)}" + (f": {status.detail}" if status.detail else "")
    if not is_running and status.state != "offline":
        detail = f"the broker says {said}, and this adapter does not run here"
        fix = (
            "stop the other adapter that uses this id, or give each meter its own; a status from before a power cut "
            "goes when the adapter starts"
        )
        return Check(name, ok=False, detail=detail, fix=fix, code="meter-id-taken")
    is_well = status.state == "online" and status.detail is None
    fix = "the other lines say more of this meter, and the adapter's log"
    return Check(name, ok=is_well or not is_running, detail=f"the broker says {said}", fix=fix, code="status")


def concentrator_status(topic: str, retained: Mapping[str, bytes], late_s: float) -> Check | None:
    """Return what the retained status of a concentrator says; None if there is none."""
    status = status_of(retained, topic)
    if status is None:
        return None
    name = f"concentrator {topic.split('/')[1]}"
    pending, age_s = status.counters.get("pending", 0), status.counters.get("oldest_age_s", 0)
    detail = f"{status.state} since {_at(status.since)}" + (f": {status.detail}" if status.detail else "")
    detail += f"; {pending} messages wait there, the oldest for {age_s} s" if pending else ""
    fix = "look at the concentrator's log; where messages wait, the cloud or its broker does not confirm"
    return Check(name, ok=status.state == "online" and age_s <= late_s, detail=detail, fix=fix, code="concentrator")


def receipts(meter_ids: Iterable[str], live: Counter[str], watch_s: float) -> list[Check]:
    """Return whether what was published while the broker was watched was also confirmed."""
    ids = list(meter_ids)
    published = sum(live[topics.smart_meter_topic(each, SpecificTopic.READINGS)] for each in ids)
    confirmed = sum(live[topics.receipt_topic(each)] for each in ids)
    if not published:
        return [skipped("receipts", f"no reading was published within {watch_s:g} s", code="receipts")]
    detail = f"{published} readings were published within {watch_s:g} s, {confirmed} receipts came"
    fix = "nothing takes the readings in: start the concentrator, or point it at this broker"
    return [Check("receipts", ok=bool(confirmed), detail=detail, fix=fix, code="receipts")]


def _at(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
