"""From the local broker into the spool: a message is acknowledged when it is on the disk, not before."""

import asyncio
import logging
from datetime import UTC, datetime
from typing import NamedTuple

from meterway.bus.bus import Delivery
from meterway.bus.mqtt import MqttBus
from meterway.concentrator.config import ConcentratorConfig
from meterway.concentrator.forward import Forward, Refusal, decide, origin
from meterway.core import receipts, reports, topics
from meterway.core.errors import TransientError
from meterway.core.grants import collector_client_id
from meterway.delivery.confirm import Confirmer
from meterway.delivery.record import Record
from meterway.delivery.spool import Spool

_log = logging.getLogger(__name__)

LIMIT_REPORTED_TOPIC = 1024
"""A fault report carries at most so many characters of the topic."""

ROOM = 0.9
"""Taking goes on when the spool is filled less than this, so that it does not stop again at once."""

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
"""How long the local broker is left alone while the disk fails again and again."""


class _Accepted(NamedTuple):
    """A message in the spool that may not be on the disk yet."""

    position: int
    delivery: Delivery
    sender_id: str | None
    is_forwarded: bool
    """Whether it goes on as it is, not a report in its place."""


class Intake:
    """Takes ``smartMeterMessage/#`` into ``spool``, acknowledges and confirms to the sender what is on the disk.

    With `receipts = "cloud"` the sender is told later, when the cloud has confirmed.

    What cannot be forwarded goes into the spool as a fault report for ``concentrator/[concentratorId]/faults``, and
    is then acknowledged too, so it neither blocks the rest nor vanishes.

    While the spool takes nothing (full, or the disk fails) the concentrator leaves the local broker, which holds
    what was not acknowledged and delivers it when the concentrator comes back, by itself, once there is room. So
    memory stays bounded by what the broker delivers without an acknowledgement.
    """

    def __init__(self, config: ConcentratorConfig, spool: Spool) -> None:
        self._id = config.id
        self._confirms_late = config.receipts == "cloud"
        self._limit_bytes = config.limits.payload_bytes
        self._room_bytes = ROOM * config.spool.limit_bytes
        self._spool = spool
        self._fault_topic = topics.concentrator_own_topic(config.id, topics.SpecificTopic.FAULTS)
        self._bus = MqttBus(config.local, collector_client_id(config.id), {topics.SMART_METER_FILTER: self._take})
        self._confirmer = Confirmer(self._bus)
        self._accepted: list[_Accepted] = []
        self._wake = asyncio.Event()
        self._settled = 0
        self.trouble: str | None = None
        """Why the spool takes nothing now, as a sentence; None while it does."""
        self.accepted = 0
        """Messages taken to be forwarded."""
        self.refused = 0
        """Messages that could not be forwarded and were reported."""

    @property
    def bus(self) -> MqttBus:
        return self._bus

    @property
    def receipts_dropped(self) -> int:
        """Receipts that the local broker was away too long for."""
        return self._confirmer.dropped

    async def run(self) -> None:
        """Take messages until cancelled."""
        pause_s = FIRST_PAUSE_S
        while True:
            self.trouble = None
            settled = self._settled
            async with self._bus:
                await self._work()
                self._confirmer.flush()
            pause_s = FIRST_PAUSE_S if self._settled > settled else min(2 * pause_s, LONGEST_PAUSE_S)
            _log.warning("! %s; the local broker holds what comes", self.trouble)
            await self._room(pause_s)
            _log.info("taking messages from the local broker again")

    async def _work(self) -> None:
        """Settle what is taken, until there is trouble."""
        while self._accepted or self.trouble is None:
            self._wake.clear()
            if not self._accepted:
                await self._wake.wait()
                continue
            accepted, self._accepted = self._accepted, []
            for each in accepted:
                await self._settle(each)

    async def _settle(self, accepted: _Accepted) -> None:
        """Acknowledge and confirm one message when it is on the disk; leave it to the broker when it cannot be."""
        try:
            await self._spool.commit(accepted.position)
        except TransientError as error:
            self.trouble = str(error)
            return
        self._settled += 1
        accepted.delivery.ack()
        if accepted.sender_id is not None and not (accepted.is_forwarded and self._confirms_late):
            digest = receipts.digest(accepted.delivery.topic, accepted.delivery.payload)
            self._confirmer.confirm(accepted.sender_id, digest)

    def on_delivered(self, record: Record) -> None:
        """Confirm what the cloud has to its sender, if receipts wait for that."""
        if self._confirms_late and (came_from := origin(record.topic)) is not None:
            topic, sender_id = came_from
            self._confirmer.confirm(sender_id, receipts.digest(topic, record.payload))

    async def _room(self, pause_s: float) -> None:
        """Return when the spool may take messages again."""
        await asyncio.sleep(pause_s)
        while self._spool.pending and self._spool.stats().size_bytes > self._room_bytes:  # noqa: ASYNC110
            await asyncio.sleep(FIRST_PAUSE_S)

    def _take(self, delivery: Delivery) -> None:
        """Put what has arrived into the spool; while there is trouble leave it unacknowledged, so it comes again."""
        if self.trouble is not None:
            return
        decision = decide(self._id, delivery.topic, len(delivery.payload), limit_bytes=self._limit_bytes)
        try:
            if isinstance(decision, Refusal):
                position = self._spool.append(self._fault_topic, _fault(delivery, decision))
                self.refused += 1
            else:
                position = self._spool.append(decision.topic, delivery.payload)
                self.accepted += 1
        except TransientError as error:
            self.trouble = str(error)
        else:
            self._accepted.append(_Accepted(position, delivery, decision.sender_id, isinstance(decision, Forward)))
        self._wake.set()


def _fault(delivery: Delivery, refusal: Refusal) -> bytes:
    fault = reports.Fault(
        time=datetime.now(UTC),
        reason=refusal.reason,
        message=refusal.message,
        data=delivery.payload[: reports.FAULT_DATA_LIMIT_BYTES],
        size_bytes=len(delivery.payload),
        topic=delivery.topic[:LIMIT_REPORTED_TOPIC],
    )
    return reports.encode(fault)
