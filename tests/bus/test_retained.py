"""Retained messages of one device: they fill a share of the broker's store, and stop nobody else."""

import os
from pathlib import Path

from bus.permits import Client, NatsSite, Witness
from meterway.bus.broker import EmbeddedBroker
from meterway.core.grants import concentrator_grant

STORE_BYTES = 8 << 20


async def test_a_flood_of_retained_messages_does_not_fill_the_store(tmp_path: Path) -> None:
    site = NatsSite(tmp_path)
    site.broker = EmbeddedBroker(tmp_path / "broker", directory=site.table, store_limit_bytes=STORE_BYTES)
    async with site:
        bad = await site.put("concentrator-bad", concentrator_grant("bad"))
        good = await site.put("concentrator-good", concentrator_grant("good"))
        async with Client(bad, "concentrator-bad:1") as attacker:
            for number in range(80):
                await attacker.publish(f"concentrator/bad/{number}", os.urandom(200_000), retain=True)
        async with Witness(site.cloud) as witness, Client(good, "concentrator-good:1") as client:
            await client.publish("concentrator/good/status", b"here", retain=True)
            await witness.wait_for("concentrator/good/status", b"here")
