"""Components that are wrong on purpose, each a process: ``python broken.py VARIANT meterway-arguments...``.

A fault test that passes with one of these proves nothing.
"""

import asyncio
import os
import sys
from datetime import datetime
from uuid import uuid4

import msgspec

from meterway.bus.bus import Delivery
from meterway.cli import main
from meterway.cloud import ingest
from meterway.cloud.decide import Window, decide, sender_of
from meterway.cloud.ingest import Confirm, Ingest
from meterway.cloud.store.rows import Arrived, ArrivedReading
from meterway.concentrator.intake import Intake
from meterway.core import receipts

HELD_S = 0.5
"""How long a wrong component keeps in memory what it has acknowledged already."""


def ingest_acknowledges_before_commit() -> None:
    """As a bridge that inserts in batches and leaves acknowledging to the MQTT library."""

    async def run(self: Ingest, confirm: Confirm) -> None:
        while True:
            await self._some.wait()
            batch = self._take()
            for delivery, _ in batch:
                delivery.ack()
                sender_id = sender_of(delivery.topic)
                if sender_id is not None:
                    confirm(sender_id, receipts.digest(delivery.topic, delivery.payload))
            await asyncio.sleep(HELD_S)
            await self._commit([each.arrived for each in batch])

    Ingest.run = run  # type: ignore[method-assign]


def concentrator_acknowledges_before_the_disk() -> None:
    """As a bridge that queues in memory."""
    take = Intake._take

    def take_later(self: Intake, delivery: Delivery) -> None:
        topic, payload = delivery.topic, delivery.payload
        delivery.ack()
        self._confirmer.confirm(topic.split("/")[1], receipts.digest(topic, payload))
        asyncio.get_running_loop().call_later(HELD_S, take, self, delivery)

    Intake._take = take_later  # type: ignore[method-assign]


def ingest_gives_identifiers_of_its_own() -> None:
    """As a table whose key is a serial number: what is sent again is stored again."""

    def decide_anew(topic: str, payload: bytes, *, now: datetime, window: Window) -> Arrived:
        arrived = decide(topic, payload, now=now, window=window)
        if not isinstance(arrived, ArrivedReading):
            return arrived
        return msgspec.structs.replace(arrived, reading=msgspec.structs.replace(arrived.reading, identifier=uuid4()))

    vars(ingest)["decide"] = decide_anew


def spool_without_fdatasync() -> None:
    """As a queue that leaves flushing to the system: a power cut takes what it has acknowledged."""
    os.fdatasync = lambda fd: None  # noqa: ARG005


if __name__ == "__main__":
    globals()[sys.argv.pop(1)]()
    main()
