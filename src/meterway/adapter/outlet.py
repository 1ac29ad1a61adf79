"""From a mapped reading to the spool: sequence number, repetition, and what happens when there is no room."""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from meterway.adapter.mapping import MappedReading
from meterway.core import reports, wire
from meterway.core.errors import TransientError
from meterway.core.identifiers import content_digest
from meterway.core.reports import Fault
from meterway.core.topics import SpecificTopic, smart_meter_topic
from meterway.delivery.spool import Spool

_log = logging.getLogger(__name__)

RETRY_S = 1.0
"""How long to wait for room in a full spool before looking again."""


class Outlet:
    """Puts readings and faults of all meters of an adapter into its spool.

    The number of readings that the spool has ever taken for a meter is that meter's last ``sequenceNumber``: number
    and reading become durable in one step, so there is neither a gap nor a repetition across a kill.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    async def put(self, mapped: MappedReading, *, on_full: Callable[[str], None]) -> bool:
        """Accept a reading; return False if it is the one before, read again.

        While the spool is full it waits, so the source is not read on, and calls ``on_full`` with the reason.
        """
        reading = mapped.reading
        topic = smart_meter_topic(reading.meter_id, SpecificTopic.READINGS)
        mark = content_digest(reading)
        while True:
            count, last_mark = self._spool.topic_state(topic)
            if mapped.has_clock and mark == last_mark:
                return False
            payload = wire.encode(msgspec.structs.replace(reading, sequence_number=count + 1))
            try:
                await self._spool.commit(self._spool.append(topic, payload, mark=mark))
            except TransientError as error:
                on_full(str(error))
                await asyncio.sleep(RETRY_S)
            else:
                return True

    def put_fault(self, meter_id: str, fault: Fault) -> bool:
        """Accept the report of a rejected telegram; return False if there is no room for it."""
        try:
            self._spool.append(smart_meter_topic(meter_id, SpecificTopic.FAULTS), reports.encode(fault))
        except TransientError as error:
            _log.warning("! fault of meter %s not kept: %s", meter_id, error)
            return False
        return True
