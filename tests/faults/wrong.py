"""The matrix with components that are broken on purpose: what it does not find here it would not find anywhere."""

import random
import signal
from functools import partial
from pathlib import Path

from faults.load import Load, Setup
from faults.scenario import Expect, Result, Scenario, result_of

SETTLE_S = 10.0
"""What is missing never comes, so there is nothing to wait long for."""


async def run(component: str, variant: str, victim: str, folder: Path, chance: random.Random) -> Result:
    async with Load(folder, Setup(cloud="nats", broken={component: variant})) as load:
        await load.flows(chance.randrange(100, 500))
        await load.send(victim, signal.SIGKILL)
        recovery_s = await load.recovered()
        await load.flows()
        return result_of(*await load.settle(within_s=SETTLE_S), recovery_s, variant.replace("_", " "))


SCENARIOS = [
    Scenario("SIGKILL", victim, "nats", partial(run, component, variant, victim), Expect.FOUND_WRONG, quick=quick)
    for component, variant, victim, quick in (
        ("cloud", "ingest_acknowledges_before_commit", "cloud", True),
        ("concentrator", "concentrator_acknowledges_before_the_disk", "concentrator", True),
        ("cloud", "ingest_gives_identifiers_of_its_own", "concentrator", False),
    )
]
