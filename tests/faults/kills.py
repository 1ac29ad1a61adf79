"""SIGKILL and SIGSTOP of every process, at random moments under load."""

import random
import signal
from functools import partial
from pathlib import Path

from faults.load import Load
from faults.scenario import Result, Scenario, result_of

VICTIMS = ["adapter", "concentrator", "broker", "cloud", "database"]


async def kill(victim: str, folder: Path, chance: random.Random) -> Result:
    async with Load(folder) as load:
        await load.flows(chance.randrange(100, 500))
        await load.send(victim, signal.SIGKILL)
        recovery_s = await load.recovered()
        await load.flows()
        truth, verdict = await load.settle()
    return result_of(truth, verdict, recovery_s)


SCENARIOS = [
    Scenario("SIGKILL", victim, "nats", partial(kill, victim), quick=victim == "concentrator") for victim in VICTIMS
]
