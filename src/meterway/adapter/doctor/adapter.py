"""All that is looked at of one adapter: its links and meters, its broker, its spool."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from meterway.adapter.config import AdapterConfig, MeterConfig, meter_ids, segments
from meterway.adapter.doctor import statuses
from meterway.adapter.doctor.backlog import LATE_S, look_at_spool
from meterway.adapter.doctor.broker import Seen, look_at_broker
from meterway.adapter.doctor.check import Check, skipped
from meterway.adapter.doctor.hearing import Hearing, hear_again, is_message_bounded
from meterway.adapter.doctor.listen import Taken, ask, listen
from meterway.adapter.doctor.meter import Subject, examine
from meterway.adapter.doctor.place import look_at_place
from meterway.adapter.doctor.running import Process, lock_owner
from meterway.adapter.prepare import prepare
from meterway.adapter.raw import Chunk, read_ring
from meterway.bus.bus import BrokerConfig
from meterway.core.errors import MeterwayError, SetupError
from meterway.core.topics import SpecificTopic, receipt_topic, smart_meter_topic
from meterway.meter.codec import CodecError
from meterway.meter.diagnose import Heard
from meterway.meter.keys import load_keys
from meterway.meter.telegram import Telegram
from meterway.plugins import find_family

_MOST_RECEIPTS: Final = 5
"""Of so many meters it is tried whether we may see their receipts."""


@dataclass(slots=True)
class LinkReport:
    """What was found out about one link and the meters on it."""

    meters: list[MeterConfig]
    chunks: list[Chunk] = field(default_factory=list)
    subjects: list[Subject] = field(default_factory=list)
    """Those whose configuration can be used."""
    checks: list[Check] = field(default_factory=list)
    """What its bytes say; ``replay`` says the same of the same bytes."""
    others: list[Check] = field(default_factory=list)
    """Of the place where they come from."""

    @property
    def name(self) -> str:
        return self.meters[0].id


@dataclass(slots=True)
class AdapterReport:
    """What was found out about one adapter."""

    config: AdapterConfig
    is_running: bool = False
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    links: list[LinkReport] = field(default_factory=list)
    broker: list[Check] = field(default_factory=list)
    retained: dict[str, bytes] = field(default_factory=dict)
    """Status and description of its meters, by topic."""
    others: list[Check] = field(default_factory=list)

    @property
    def checks(self) -> list[Check]:
        """All of them, in the order in which a telegram goes."""
        lines = [check for link in self.links for check in (*link.others, *link.checks)]
        return [*self.others, *lines, *self.broker]


async def look_at_adapter(config: AdapterConfig, *, listen_s: float, has_broker: bool = True) -> AdapterReport:
    """Look at everything that ``config`` names; changes nothing.

    Where the adapter runs, its ring of raw bytes is read and no link is opened. Else links are listened to for
    ``listen_s``, and meters asked that speak only then; 0 leaves them alone. ``has_broker`` False: nobody knows yet
    where the broker is going to be.
    """
    owner = lock_owner(config.spool_dir / "lock")
    report = AdapterReport(config, is_running=owner is not None)
    running = f"runs as {owner}" if owner else "does not run"
    report.others.append(Check(f"adapter {config.id}", ok=True, detail=running, code="setup"))
    shared = segments(config.meters)
    report.links = list(
        await asyncio.gather(*(_link(meters, config, owner, listen_s, report.now) for meters in shared))
    )
    spool, waiting = look_at_spool(config.spool_dir, "the concentrator", report.now, is_running=report.is_running)
    if has_broker:
        watch_s = max(listen_s, 0.0) if report.is_running else 0.0
        seen = await _broker(config, watch_s)
        report.broker = [*seen.checks, *_told(report, seen, watch_s, waiting)]
        report.retained = _own(config, seen.retained)
    report.broker += spool
    return report


async def _link(
    meters: list[MeterConfig], config: AdapterConfig, owner: Process | None, listen_s: float, now: datetime
) -> LinkReport:
    report = LinkReport(meters)
    for meter in meters:
        try:
            keys = load_keys(meter.key_file, meter.authentication_key_file)
            report.subjects.append(Subject.of(meter, find_family(meter.family), keys))
            prepare(meter)
        except SetupError as error:
            fix = "correct the meter's table; docs/config.md lists the keys"
            report.others.append(Check(f"meter {meter.id}", ok=False, detail=str(error), fix=fix, code="setup"))
    name = f"meter {report.name}"
    report.others += await look_at_place(name, meters[0].source, owner)
    is_usable = len(report.subjects) == len(meters) and all(check.ok for check in report.others)
    if owner is not None:
        _recorded(report, config, now)
    elif listen_s > 0 and is_usable:
        await _listen(report, config.broker, listen_s)
    else:
        _recorded(report, config, now, is_running=False)
    return report


def _recorded(report: LinkReport, config: AdapterConfig, now: datetime, *, is_running: bool = True) -> None:
    """Judge by the adapter's ring."""
    name = f"meter {report.name}"
    try:
        report.chunks = read_ring(config.spool_dir, report.name)
    except OSError as error:
        fix = "run this as the user that the adapter runs as, or as root"
        detail = f"its recorded bytes may not be read: {error.strerror}"
        report.checks.append(Check(name, ok=False, detail=detail, fix=fix, code="recorded"))
        return
    if not report.chunks and (not is_running or not config.raw_ring_bytes):
        why = "the adapter keeps no bytes (raw_ring_bytes = 0)"
        if not is_running:
            why = "no adapter runs and none has recorded anything; `--listen 20` listens for 20 s"
        report.checks.append(skipped(name, why, code="recorded"))
        return
    report.checks += judge(report, now, is_running=is_running)


def judge(report: LinkReport, now: datetime, *, is_running: bool) -> list[Check]:
    """Return what the bytes of a link say about the meters on it."""
    found: list[Check] = []
    for subject in report.subjects:
        decoder = subject.decoder()
        if decoder is None:
            data = b"".join(chunk.data for chunk in report.chunks)
            hearing = Hearing(Heard(data, (), ()), (), Heard(data, (), ()))
        else:
            hearing = hear_again(report.chunks, decoder, is_whole=is_message_bounded(subject.config.source))
        found += examine(subject, hearing, now, is_running=is_running)
    return found


async def _listen(report: LinkReport, broker: BrokerConfig, listen_s: float) -> None:
    name = f"meter {report.name}"
    try:
        if report.subjects[0].is_asked:
            taken = await ask([prepare(meter) for meter in report.meters], broker)
        else:
            taken = await listen(report.meters[0].source, report.subjects[0].family.line, broker, listen_s)
    except SetupError as error:
        report.checks.append(skipped(name, str(error), code="recorded"))
        return
    except MeterwayError as error:
        fix = "the sentence says why; `docs/troubleshooting.md` says more"
        report.checks.append(Check(name, ok=False, detail=str(error), fix=fix, code="unreachable"))
        return
    report.chunks = taken.chunks
    now = datetime.now(UTC)
    if not report.subjects[0].is_asked:
        report.checks += judge(report, now, is_running=False)
        return
    for subject in report.subjects:
        report.checks += _answered(subject, taken, now)


def _answered(subject: Subject, taken: Taken, now: datetime) -> list[Check]:
    answers = taken.answers.get(subject.config.id, [])
    telegrams = tuple(item for item in answers if isinstance(item, Telegram))
    problem = taken.problems.get(subject.config.id)
    if not telegrams:
        detail = f"it was asked and gave no telegram: {problem or 'it said nothing that could be read'}"
        fix = "check `address`, `family` and the wiring; one meter at a time shows which of several is missing"
        if not taken.chunks:
            detail += "; not one byte came"
        return [Check(subject.name, ok=False, detail=detail, fix=fix, code="no-answer")]
    errors = tuple(item for item in answers if isinstance(item, CodecError))
    hearing = Hearing(Heard(b"", telegrams, errors), (now,) * len(telegrams), Heard(b"", (), ()))
    return examine(subject, hearing, now, is_running=False)


async def _broker(config: AdapterConfig, watch_s: float) -> Seen:
    needed = [receipt_topic(meter.id) for meter in config.meters[:_MOST_RECEIPTS]]
    wanted = [statuses.METERS, statuses.DESCRIPTIONS, statuses.CONCENTRATORS]
    if watch_s:
        wanted += [statuses.READINGS, statuses.RECEIPTS]
    return await look_at_broker(config.broker, needed=needed, wanted=wanted, watch_s=watch_s)


def _told(report: AdapterReport, seen: Seen, watch_s: float, waiting: int) -> list[Check]:
    """Return what the broker knows of meters, concentrators and receipts."""
    if not seen.is_connected:
        return []
    found = [
        statuses.meter_status(meter.id, seen.retained, is_running=report.is_running) for meter in report.config.meters
    ]
    topics = [topic for topic in seen.retained if topic.startswith("concentrator/")]
    told = [statuses.concentrator_status(topic, seen.retained, LATE_S) for topic in sorted(topics)]
    found += [check for check in told if check is not None]
    if waiting and report.is_running and report.config.relay.confirm == "receipt" and not topics:
        why = "no concentrator speaks of itself on this broker; its own doctor says more"
        found.append(skipped("concentrator", why, code="concentrator"))
    if watch_s and report.config.relay.confirm == "receipt":
        ids = [each for meter in report.config.meters for each in meter_ids(meter)]
        found += statuses.receipts(ids, Counter(seen.live), watch_s)
    return found


def _own(config: AdapterConfig, retained: dict[str, bytes]) -> dict[str, bytes]:
    ids = [each for meter in config.meters for each in meter_ids(meter)]
    kinds = (SpecificTopic.STATUS, SpecificTopic.METER)
    names = [smart_meter_topic(each, kind) for each in ids for kind in kinds]
    return {topic: retained[topic] for topic in names if topic in retained}


def same_meter_twice(configs: Sequence[tuple[str, AdapterConfig]]) -> list[Check]:
    """Return which smart meter ids two adapters use; each comes with a word on where its configuration is.

    Two configurations with one spool are of the same adapter.
    """
    found: list[Check] = []
    first: dict[str, tuple[str, AdapterConfig]] = {}
    for where, config in configs:
        for meter in config.meters:
            for meter_id in meter_ids(meter):
                other, owner = first.setdefault(meter_id, (where, config))
                if owner is not config and owner.spool_dir != config.spool_dir:
                    detail = f"two adapters use this id: {other} and {where}"
                    fix = "give each meter an id of its own; of one meter, keep one adapter"
                    found.append(Check(f"meter {meter_id}", ok=False, detail=detail, fix=fix, code="meter-id-twice"))
    return found
