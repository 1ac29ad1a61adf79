"""Reads one meter for ever: open, decode, map, hand on; say how it goes; open again when it breaks."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from meterway.adapter import links
from meterway.adapter.config import MeterConfig
from meterway.adapter.mapping import MappedReading, Mapper
from meterway.adapter.outlet import Outlet
from meterway.adapter.redact import identities_of, redact, redact_name, redact_sentence
from meterway.adapter.status import State, StatusSession, StatusSessions
from meterway.core.errors import BadDataError, TransientError
from meterway.core.reading import MeterReading
from meterway.core.reports import FAULT_DATA_LIMIT_BYTES, Fault, MeterDescription, OfferedProperty
from meterway.meter.codec import CodecError, Decoder
from meterway.meter.family import Family
from meterway.meter.telegram import Telegram

_log = logging.getLogger(__name__)

IDLE_S = 3.0
"""A line that is quiet for so long is between telegrams: what is half there is given up."""
STATUS_INTERVAL_S = 30.0
"""How often the status is published again, for its counters."""
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
"""Between two attempts to open a source; doubles from the first to the longest."""
CHANNEL_INTERVAL_S = 3600.0
"""A meter behind a P1 port is read every five minutes (DSMR 5) or every hour (before): so late is not late."""
FAULT_BURST = 20
FAULT_INTERVAL_S = 10.0
"""Of a line that is all noise, ``FAULT_BURST`` faults are published at once, then one every ``FAULT_INTERVAL_S``."""


class MeterReader:
    """One meter and those behind it."""

    def __init__(
        self,
        config: MeterConfig,
        family: Family,
        outlet: Outlet,
        sessions: StatusSessions,
        *,
        mapper: Mapper,
        decoder: Decoder,
        wall: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._config = config
        self._family = family
        self._outlet = outlet
        self._sessions = sessions
        self._mapper = mapper
        self._decoder = decoder
        """One for all times the source is opened: what it has learnt of the meter guards against replays."""
        self._wall = wall
        self._monotonic = monotonic
        self._where = links.describe(config.source)
        self._heard: dict[str, StatusSession] = {}
        """The meter itself, and those behind it once a reading of theirs has come."""
        self._counters: Counter[str] = Counter()
        self._offered: dict[str, dict[str, OfferedProperty]] = {}
        self._identities: tuple[bytes, ...] = ()
        """How the meter called itself in its last good telegram; never published."""
        self._faults_left = float(FAULT_BURST)
        self._faults_time = monotonic()
        self._status_time = monotonic()

    async def run(self) -> None:
        """Read until cancelled, or until a replayed file ends."""
        self._heard[self._config.id] = await self._sessions.of(self._config.id)
        delay_s = FIRST_DELAY_S
        while True:
            readings = self._counters["readings"]
            try:
                async with links.open_link(self._config.source, self._family.line) as link:
                    self._say("waiting", f"{self._where} is open; no telegram yet")
                    await self._read(link)
                    self._say("offline", f"{self._where} was read to its end")
                    return
            except TransientError as error:
                _log.warning("! meter %s: %s", self._config.id, error)
                await self._finish()
                self._say("silent" if isinstance(error, _SilentError) else "offline", str(error))
            if self._counters["readings"] > readings:
                delay_s = FIRST_DELAY_S
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, LONGEST_DELAY_S)

    def say_failed(self, error_name: str) -> None:
        """Say that reading failed in a way that was not foreseen."""
        self._counters["failures"] += 1
        detail = f"a defect of Meterway ({error_name}); the adapter's log says more, and it tries again by itself"
        self._say("offline", detail)

    async def _read(self, link: links.Link) -> None:
        decoder = self._decoder
        alive = self._monotonic()
        received_bytes = used_bytes = 0
        while True:
            try:
                async with asyncio.timeout(min(IDLE_S, self._config.watchdog_s)):
                    data = await link.read()
            except TimeoutError:
                items = decoder.idle(self._monotonic())
            else:
                if not data:
                    await self._take(decoder.idle(self._monotonic()), decoder)
                    return
                received_bytes += len(data)
                items = decoder.feed(data, self._monotonic())
            if await self._take(items, decoder):
                alive = self._monotonic()
                used_bytes = received_bytes
            now = self._monotonic()
            if now - alive > self._config.watchdog_s:
                raise _SilentError(self._silence(received_bytes - used_bytes))
            if now - self._status_time > STATUS_INTERVAL_S:
                self._say_again()

    async def _finish(self) -> None:
        """Take the telegram that the end of the link completed; forget the half one that it cut."""
        items = self._decoder.idle(self._monotonic())
        await self._take([item for item in items if isinstance(item, Telegram)], self._decoder)

    async def _take(self, items: list[Telegram | CodecError], decoder: Decoder) -> bool:
        """Hand on what was decoded; return whether a whole telegram was among it."""
        self._counters["skipped_bytes"] = decoder.skipped_bytes
        telegrams = [item for item in items if isinstance(item, Telegram)]
        for item in items:
            if isinstance(item, CodecError):
                self._reject(item)
        if telegrams:
            await self._accept(telegrams)
        return bool(telegrams)

    async def _accept(self, telegrams: list[Telegram]) -> None:
        self._counters["telegrams"] += len(telegrams)
        self._identities = identities_of(telegrams[-1].meter)
        if unverified := sum(not telegram.verified for telegram in telegrams):
            self._counters["unverified"] += unverified
        readings = [each for telegram in telegrams for each in self._mapper.readings(telegram, self._wall())]
        refused: list[MappedReading] = []

        def refuse(mapped: MappedReading, error: BadDataError) -> None:
            refused.append(mapped)
            self._refuse(mapped, error)

        new = await self._outlet.put(readings, on_full=lambda reason: self._say("waiting", reason), on_unfit=refuse)
        self._counters["readings"] += len(new)
        self._counters["repeated"] += len(readings) - len(new) - len(refused)
        for mapped in readings:  # a repeated one as well: a gas value is repeated for an hour
            if any(mapped is each for each in refused):
                continue
            meter_id = mapped.reading.meter_id
            session = self._heard[meter_id] = await self._sessions.of(meter_id)
            self._describe(telegrams[-1], mapped.reading, session)
            if session.state != "online":
                session.set("online", None, dict(self._counters))

    def _reject(self, error: CodecError) -> None:
        self._counters["rejected"] += 1
        self._report(self._config.id, error, error.data)

    def _refuse(self, mapped: MappedReading, error: BadDataError) -> None:
        """Report a reading that no receiver would take; until a good one comes, the status says so."""
        self._counters["unfit"] += 1
        meter_id = mapped.reading.meter_id
        reported = self._report(meter_id, error)
        if reported and (session := self._heard.get(meter_id)):
            session.set("waiting", f"telegrams come, but a reading was refused: {error}", dict(self._counters))

    def _report(self, meter_id: str, error: BadDataError, data: bytes = b"") -> bool:
        """Publish a fault; return False if there were too many or there is no room."""
        now = self._monotonic()
        self._faults_left = min(FAULT_BURST, self._faults_left + (now - self._faults_time) / FAULT_INTERVAL_S)
        self._faults_time = now
        if self._faults_left < 1:
            self._counters["faults_suppressed"] += 1
            return False
        self._faults_left -= 1
        fault = Fault(
            time=self._wall(),
            reason=error.reason,
            message=redact_sentence(str(error)),
            data=redact(data, self._identities)[:FAULT_DATA_LIMIT_BYTES],
            size_bytes=len(data),
        )
        if not self._outlet.put_fault(meter_id, fault):
            self._counters["faults_suppressed"] += 1
            return False
        return True

    def _describe(self, telegram: Telegram, reading: MeterReading, session: StatusSession) -> None:
        """Publish what the meter offers, once per set of properties: they only grow, so a rare one ends nothing."""
        offered = self._offered.setdefault(reading.meter_id, {})
        if all(value.property_id in offered for value in reading.property_values):
            return
        for value in reading.property_values:
            offered[value.property_id] = OfferedProperty(property_id=value.property_id, unit=value.unit)
        session.describe(
            MeterDescription(
                meter_individual_id=reading.meter_id,
                physical_meter_class=self._mapper.class_of(reading.meter_id).value,
                protocol=telegram.protocol,
                link=links.kind(self._config.source),
                family=self._family.name,
                says=redact_name(telegram.meter),
                interval_s=self._family.interval_s if reading.meter_id == self._config.id else CHANNEL_INTERVAL_S,
                properties=tuple(offered.values()),
                unmapped=tuple(sorted(str(obis) for obis in self._mapper.unmapped)),
            )
        )

    def _say(self, state: State, detail: str | None) -> None:
        """Say the state of the link for the meter and for those behind it."""
        self._status_time = self._monotonic()
        for session in self._heard.values():
            session.set(state, detail, dict(self._counters))

    def _say_again(self) -> None:
        """Publish what was said last, with the counters of now."""
        self._status_time = self._monotonic()
        for session in self._heard.values():
            session.set(session.state, session.detail, dict(self._counters))

    def _silence(self, unused_bytes: int) -> str:
        watchdog = f"for {self._config.watchdog_s:g} s"
        if not unused_bytes:
            return f"{self._where}: not one byte {watchdog}; is the cable or optical head in place, the meter powered?"
        return (
            f"{self._where}: {unused_bytes} bytes {watchdog} but no whole {self._family.protocol} telegram; wrong "
            "baud rate, parity or family?"
        )


class _SilentError(TransientError):
    """The link is open and no telegram comes."""
