"""From a mapped reading to the spool: sequence number, repetition, and what happens when there is no room."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from hashlib import blake2b

import msgspec

from meterway.adapter.mapping import MappedReading
from meterway.core import reports, wire
from meterway.core.errors import BadDataError, TransientError
from meterway.core.reading import MeterReading
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

    def __init__(self, spool: Spool, *, sign: Callable[[bytes], bytes] | None = None) -> None:
        """``sign`` returns the payload of a reading with its signature."""
        self._spool = spool
        self._sign = sign

    async def put(
        self,
        readings: Sequence[MappedReading],
        *,
        on_full: Callable[[str], None],
        on_unfit: Callable[[MappedReading, BadDataError], None],
    ) -> list[MappedReading]:
        """Accept readings in order; return, once they are durable, those that are new.

        A reading that is the one before, read again, is not. While the spool is full it waits, so the source is not
        read on, and calls ``on_full`` with the reason. A reading that ``wire`` refuses (a clock that was never set, a
        text that no store keeps) goes to ``on_unfit``, takes no number, and does not hold up the others.
        """
        accepted: list[MappedReading] = []
        waiting = list(readings)
        while waiting:
            appended: list[tuple[MappedReading, int]] = []
            refused: list[MappedReading] = []
            for place, mapped in enumerate(waiting):
                try:
                    position = self._append(mapped)
                except TransientError as error:
                    on_full(str(error))
                    refused = waiting[place:]
                    break
                except BadDataError as error:
                    on_unfit(mapped, error)
                    continue
                if position is not None:
                    appended.append((mapped, position))
            stored, lost = await self._commit(appended, on_full)
            accepted += stored
            waiting = lost + refused
            if waiting:
                await asyncio.sleep(RETRY_S)
        return accepted

    def _append(self, mapped: MappedReading) -> int | None:
        """Append a reading with the next number; return its position, None if it is the one before.

        Raises:
            TransientError: the spool is full.
            BadDataError: no receiver would take such a reading.
        """
        topic = smart_meter_topic(mapped.reading.meter_id, SpecificTopic.READINGS)
        mark = _mark(mapped.reading)
        count, last_mark = self._spool.topic_state(topic)
        if mapped.has_clock and mark == last_mark:
            return None
        payload = wire.encode(msgspec.structs.replace(mapped.reading, sequence_number=count + 1))
        if self._sign is not None:
            payload = self._sign(payload)
        return self._spool.append(topic, payload, mark=mark)

    async def _commit(
        self, appended: Sequence[tuple[MappedReading, int]], on_full: Callable[[str], None]
    ) -> tuple[list[MappedReading], list[MappedReading]]:
        """Wait for the disk; return what is stored, and what is not and has lost its number again."""
        stored: list[MappedReading] = []
        lost: list[MappedReading] = []
        for mapped, position in appended:
            try:
                await self._spool.commit(position)
            except TransientError as error:
                on_full(str(error))
                lost.append(mapped)
            else:
                stored.append(mapped)
        return stored, lost

    def put_fault(self, meter_id: str, fault: Fault) -> bool:
        """Accept the report of a rejected telegram; return False if there is no room for it."""
        try:
            self._spool.append(smart_meter_topic(meter_id, SpecificTopic.FAULTS), reports.encode(fault))
        except TransientError as error:
            _log.warning("! fault of meter %s not kept: %s", meter_id, error)
            return False
        return True


def _mark(reading: MeterReading) -> bytes:
    """Return by what a reading is known when it is read again: what it says (its identifier), and how it was judged."""
    code = reading.fault_code
    return reading.identifier.bytes + (blake2b(code.encode(), digest_size=16).digest() if code else b"")
