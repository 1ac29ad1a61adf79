"""Wall clocks that jump back and forth while readings flow, on the machine of each component."""

import asyncio
import random
import struct
from functools import partial
from pathlib import Path

from faults.preload import preload
from faults.rig import Fit, Rig
from faults.scenario import Result, Scenario, result_of

HOUR_S, DAY_S = 3600, 86_400
JUMPS_S = (HOUR_S, -HOUR_S, DAY_S)
"""Where the clock stands, from the true time, after each jump; then it is right again."""


async def jump(victim: str, folder: Path, chance: random.Random) -> Result:
    """Set the clock of one component, and of the database below the cloud, while it runs."""
    ahead = folder / "clock"
    ahead.write_bytes(bytes(8))
    fit = Fit({"LD_PRELOAD": str(preload("clock")), "METERWAY_CLOCK_FILE": str(ahead)})
    longest_s = 0.0
    async with Rig(folder, {victim: fit}) as rig:
        await rig.flows()
        for seconds in (*JUMPS_S, 0):
            with ahead.open("r+b") as file:  # in place: it is mapped
                file.write(struct.pack("<q", seconds))
            longest_s = max(longest_s, await rig.recovered())
            await asyncio.sleep(chance.uniform(0.5, 2))
        truth, verdict = await rig.settle()
    return result_of(truth, verdict, longest_s, "+1 h, -1 h, +1 day, back")


SCENARIOS = [
    Scenario("clock jumps", victim, "nats", partial(jump, victim)) for victim in ("adapter", "concentrator", "cloud")
]
