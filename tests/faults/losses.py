"""What a concentrator's disk loses, and two concentrators that carry the same meters."""

import random
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from faults.load import RECOVERY_S, until
from faults.powercut import kill_all
from faults.rig import Fit, Rig
from faults.scenario import Expect, Result, Scenario, result_of
from meterway.concentrator.config import ConcentratorConfig
from meterway.delivery.config import RelayConfig, SpoolConfig
from meterway.delivery.look import look
from meterway.delivery.segment import find_segments

Receipts = Literal["disk", "cloud"]

IN_FLIGHT = 20
SEGMENT_BYTES = 32_768
PAGE_BYTES = 4096


def _fit(receipts: Receipts) -> Fit:
    """Return a concentrator with many small files, whose backlog is on its disk and not in the broker."""

    def change(config: ConcentratorConfig) -> ConcentratorConfig:
        return msgspec.structs.replace(
            config,
            receipts=receipts,
            relay=RelayConfig(retry_s=config.relay.retry_s, in_flight=IN_FLIGHT),
            spool=SpoolConfig(segment_bytes=SEGMENT_BYTES),
        )

    return Fit(change=change)


async def _while_the_cloud_stands_still(rig: Rig, spool_dir: Path, messages: int) -> None:
    """Stop the cloud, and return when so many messages wait in the concentrator's spool."""
    await rig.flows()
    await rig.send("cloud", signal.SIGSTOP)

    async def wait_there() -> bool:
        waiting = look(spool_dir)
        return waiting is not None and waiting.messages >= messages

    await until(wait_there, f"{messages} messages wait")


async def replaced(receipts: Receipts, folder: Path, chance: random.Random) -> Result:
    """Kill a concentrator with a backlog and take its disk away; the next one has the same name."""
    spool_dir = folder / "spool" / "concentrator"
    async with Rig(folder, {"concentrator": _fit(receipts)}) as rig:
        await _while_the_cloud_stands_still(rig, spool_dir, chance.randint(300, 600))
        pid = rig.processes["concentrator"].pid
        assert pid is not None
        kill_all(pid)  # without giving way, so that it is not started again before its disk is gone
        shutil.rmtree(spool_dir)
        await rig.send("cloud", signal.SIGCONT)
        recovery_s = await rig.recovered()
        truth, verdict = await rig.settle(RECOVERY_S if receipts == "cloud" else 10)
    return result_of(truth, verdict, recovery_s, f"receipts = {receipts}")


async def damaged(receipts: Receipts, folder: Path, chance: random.Random) -> Result:
    """Kill a concentrator with a backlog and overwrite a page in the middle of it."""
    spool_dir = folder / "spool" / "concentrator"
    async with Rig(folder, {"concentrator": _fit(receipts)}) as rig:
        await _while_the_cloud_stands_still(rig, spool_dir, chance.randint(300, 600))
        pid = rig.processes["concentrator"].pid
        assert pid is not None
        kill_all(pid)
        segment = find_segments(spool_dir)[-3]
        with segment.path.open("r+b") as file:
            file.seek(chance.randrange(PAGE_BYTES, segment.size_bytes - PAGE_BYTES))
            file.write(chance.randbytes(PAGE_BYTES))
        await rig.send("cloud", signal.SIGCONT)
        recovery_s = await rig.recovered()
        truth, verdict = await rig.settle(RECOVERY_S if receipts == "cloud" else 10)
        kept_bytes = sum(path.stat().st_size for path in spool_dir.glob("*.corrupt"))
    assert kept_bytes >= PAGE_BYTES, "the damaged bytes are kept"
    return result_of(truth, verdict, recovery_s, f"receipts = {receipts}, {kept_bytes} damaged bytes kept aside")


async def twice(folder: Path, chance: random.Random) -> Result:
    """Let two concentrators carry the same meters, and kill each of them once."""
    async with Rig(folder, {}) as rig:
        await rig.add_concentrator("second")
        await rig.flows()
        longest_s = 0.0
        for victim in chance.sample(["concentrator", "second"], 2):
            await rig.send(victim, signal.SIGKILL)
            longest_s = max(longest_s, await rig.recovered())
            await rig.back(victim)
        await rig.flows()
        came_twice = rig.api.counters()["meterway_ingest_duplicate_total"]
        truth, verdict = await rig.settle()
    assert came_twice > 0
    return result_of(truth, verdict, longest_s, f"{came_twice:.0f} came twice")


SCENARIOS = [
    Scenario("carried twice", "two concentrators", "nats", twice),
    Scenario("disk lost, replaced", "concentrator", "nats", partial(replaced, "cloud")),
    Scenario("damaged page", "concentrator's spool", "nats", partial(damaged, "cloud")),
    Scenario("disk lost, receipts = disk", "concentrator", "nats", partial(replaced, "disk"), Expect.FOUND_WRONG),
    Scenario("damaged, receipts = disk", "concentrator's spool", "nats", partial(damaged, "disk"), Expect.FOUND_WRONG),
]
