"""What becomes of one meter's telegrams: readings, faults, the description, the status.

It does not matter here how they came: listened to (``listen``) or asked for (``ask``).
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial

import msgspec

from meterway.adapter import links
from meterway.adapter.budget import FaultBudget
from meterway.adapter.config import MeterConfig, ReplaySource
from meterway.adapter.mapping import MappedReading, Mapper
from meterway.adapter.outlet import Outlet
from meterway.adapter.plausibility import Judged, Plausibility
from meterway.adapter.redact import identities_of, redact, redact_name, redact_sentence
from meterway.adapter.status import State, StatusSession, StatusSessions
from meterway.core.errors import BadDataError, MeterwayError
from meterway.core.reading import MeterReading
from meterway.core.reports import FAULT_DATA_LIMIT_BYTES, Fault, MeterDescription, OfferedProperty
from meterway.meter.codec import CodecError
from meterway.meter.family import Family
from meterway.meter.telegram import Telegram

_log = logging.getLogger(__name__)

CHANNEL_INTERVAL_S = 3600.0
"""A meter behind a P1 port is read every five minutes (DSMR 5) or every hour (before): so late is not late."""


class DefectError(MeterwayError):
    """Something raised that must not; other meters go on, and this one is tried again later."""


class Intake:
    """One meter and those behind it."""

    def __init__(
        self,
        config: MeterConfig,
        family: Family,
        outlet: Outlet,
        sessions: StatusSessions,
        *,
        mapper: Mapper,
        plausibility: Plausibility,
        wall: Callable[[], datetime],
        monotonic: Callable[[], float],
        signing_key: str | None = None,
    ) -> None:
        self.meter_id = config.id
        self.protocol = family.protocol
        self.interval_s = config.interval_s or family.interval_s
        """How often a reading is expected."""
        self._link_kind = links.kind(config.source)
        self._family_name = family.name
        self._outlet = outlet
        self._sessions = sessions
        self._mapper = mapper
        self._plausibility = plausibility
        self._is_live = config.clock == "live" and not isinstance(config.source, ReplaySource)
        self._wall = wall
        self._monotonic = monotonic
        self._signing_key = signing_key
        self._heard: dict[str, StatusSession] = {}
        """The meter itself, and those behind it once a reading of theirs has come."""
        self._counters: Counter[str] = Counter()
        self._budget = FaultBudget(monotonic())
        self._offered: dict[str, dict[str, OfferedProperty]] = {}
        self._last: Telegram | None = None
        """The last good telegram; how the meter calls itself there is never published."""

    async def open(self) -> None:
        """Open the meter's session at the broker; before everything else."""
        self._heard[self.meter_id] = await self._sessions.of(self.meter_id)

    @property
    def state(self) -> State:
        """What was said last of the meter itself."""
        return self._heard[self.meter_id].state

    @property
    def readings(self) -> int:
        """New readings so far."""
        return self._counters["readings"]

    @contextmanager
    def contained(self) -> Iterator[None]:
        """Make a defect of this meter's decoder or master an error that its loop can deal with; log and count it.

        Raises:
            DefectError: what stands inside raised what is no MeterwayError.
        """
        try:
            yield
        except MeterwayError:
            raise
        except Exception as error:
            _log.exception("! meter %s: reading failed", self.meter_id)
            self._counters["failures"] += 1
            name = type(error).__name__
            raise DefectError(f"a defect of Meterway or a driver ({name}); the adapter's log says more") from error

    def say(self, state: State, detail: str | None) -> None:
        """Say the state of the link for the meter and for those behind it."""
        for session in self._heard.values():
            session.set(state, detail, dict(self._counters))

    def say_again(self) -> None:
        """Publish what was said last, with the counters of now."""
        for session in self._heard.values():
            session.set(session.state, session.detail, dict(self._counters))

    async def take(self, items: Sequence[Telegram | CodecError], *, skipped_bytes: int | None = None) -> bool:
        """Hand on what was read; return whether a whole telegram was among it.

        Without items, it tells that the time passes: a telegram may wait for the next one to confirm it. Returns once
        all readings are durable: while the spool is full, the link is not read on.
        """
        if skipped_bytes is not None:
            self._counters["skipped_bytes"] = skipped_bytes
        telegrams = [item for item in items if isinstance(item, Telegram)]
        for item in items:
            if isinstance(item, CodecError):
                self._counters["rejected"] += 1
                self._report(self.meter_id, item, item.data)
        judged = self._plausibility.idle(self._monotonic())
        for telegram in telegrams:
            judged.add(self._judge(telegram))
        await self._hand_on(judged)
        return bool(telegrams)

    async def flush(self) -> None:
        """Hand on what waits for a telegram that will not come: the link is at its end, or broken."""
        await self._hand_on(self._plausibility.flush())

    def _judge(self, telegram: Telegram) -> Judged:
        """Map a telegram; return what may be handed on now."""
        self._counters["telegrams"] += 1
        self._counters["unverified"] += not telegram.verified
        self._last = telegram
        arrival = self._wall()
        readings = self._mapper.readings(telegram, arrival)
        return self._plausibility.judge(telegram, readings, arrival=arrival, now=self._monotonic(), live=self._is_live)

    async def _hand_on(self, judged: Judged) -> None:
        if not judged.readings:  # without a reading there is no doubt
            return
        for doubt in judged.doubts:
            self._counters["doubtful"] += 1
            self._publish(doubt.meter_id, partial(_redacted, doubt.fault))
        readings = judged.readings
        refused: list[MappedReading] = []

        def refuse(mapped: MappedReading, error: BadDataError) -> None:
            refused.append(mapped)
            self._refuse(mapped, error)

        new = await self._outlet.put(readings, on_full=lambda reason: self.say("waiting", reason), on_unfit=refuse)
        self._counters["readings"] += len(new)
        self._counters["repeated"] += len(readings) - len(new) - len(refused)
        for mapped in readings:  # a repeated one as well: a gas value is repeated for an hour
            if any(mapped is each for each in refused):
                continue
            meter_id = mapped.reading.meter_id
            session = self._heard[meter_id] = await self._sessions.of(meter_id)
            self._describe(mapped.reading, session)
            if session.state != "online" or session.detail is not None:
                session.set("online", None, dict(self._counters))

    def _refuse(self, mapped: MappedReading, error: BadDataError) -> None:
        """Report a reading that no receiver would take; until a good one comes, the status says so."""
        self._counters["unfit"] += 1
        meter_id = mapped.reading.meter_id
        reported = self._report(meter_id, error)
        if reported and (session := self._heard.get(meter_id)):
            session.set("waiting", f"telegrams come, but a reading was refused: {error}", dict(self._counters))

    def _report(self, meter_id: str, error: BadDataError, data: bytes = b"") -> bool:
        """Publish a fault, with the bytes; return False as ``_publish``."""
        return self._publish(meter_id, partial(self._fault, error, data))

    def _fault(self, error: BadDataError, data: bytes) -> Fault:
        return Fault(
            time=self._wall(),
            reason=error.reason,
            message=redact_sentence(str(error)),
            data=redact(data, identities_of(self._last.meter if self._last else ""))[:FAULT_DATA_LIMIT_BYTES],
            size_bytes=len(data),
        )

    def _publish(self, meter_id: str, make_fault: Callable[[], Fault]) -> bool:
        """Publish a fault; return False if there were too many, which then cost nothing, or there is no room."""
        if self._budget.spend(self._monotonic()) and self._outlet.put_fault(meter_id, make_fault()):
            return True
        self._counters["faults_suppressed"] += 1
        return False

    def _describe(self, reading: MeterReading, session: StatusSession) -> None:
        """Publish what the meter offers, once per set of properties: they only grow, so a rare one ends nothing."""
        assert self._last is not None  # noqa: S101 - the reading is of a telegram
        offered = self._offered.setdefault(reading.meter_id, {})
        if all(value.property_id in offered for value in reading.property_values):
            return
        for value in reading.property_values:
            offered[value.property_id] = OfferedProperty(property_id=value.property_id, unit=value.unit)
        session.describe(
            MeterDescription(
                meter_individual_id=reading.meter_id,
                physical_meter_class=self._mapper.class_of(reading.meter_id).value,
                protocol=self._last.protocol,
                link=self._link_kind,
                family=self._family_name,
                says=redact_name(self._last.meter),
                interval_s=self.interval_s if reading.meter_id == self.meter_id else CHANNEL_INTERVAL_S,
                properties=tuple(offered.values()),
                unmapped=tuple(sorted(str(obis) for obis in self._mapper.unmapped)),
                signing_key=self._signing_key,
            )
        )


def _redacted(fault: Fault) -> Fault:
    return msgspec.structs.replace(fault, message=redact_sentence(fault.message))
