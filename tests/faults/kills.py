"""SIGKILL and SIGSTOP of every process, at random moments under load."""

import asyncio
import random
import signal
from functools import partial
from pathlib import Path

from faults.engines import BrokerKind
from faults.load import EVERYTHING, Load, Setup
from faults.scenario import CannotRunError, Result, Scenario, result_of
from meterway.cloud.postgres import find_programs
from meterway.core.errors import SetupError

STILL_S = (2.0, 12.0)
STORM = 12
"""So many processes are killed one after another in a storm."""


async def kill(setup: Setup, victim: str, folder: Path, chance: random.Random) -> Result:
    async with Load(folder, setup) as load:
        await load.flows(chance.randrange(100, 500))
        await load.send(victim, signal.SIGKILL)
        recovery_s, note = await asyncio.gather(load.recovered(), load.answers_after(victim))
        await load.flows()
        return result_of(*await load.settle(), recovery_s, note)


async def stop(setup: Setup, victim: str, folder: Path, chance: random.Random) -> Result:
    """Its connections stay open and nothing moves: worse than a death, which the others notice."""
    async with Load(folder, setup) as load:
        await load.flows(chance.randrange(100, 500))
        for_s = chance.uniform(*STILL_S)
        await load.stand_still(victim, for_s)
        recovery_s = await load.recovered()
        await load.flows()
        return result_of(*await load.settle(), recovery_s, f"stood still for {for_s:.0f} s")


async def storm(setup: Setup, folder: Path, chance: random.Random) -> Result:
    """Each dies while others have not yet come back."""
    async with Load(folder, setup) as load:
        await load.flows()
        for victim in chance.choices(EVERYTHING, k=STORM):
            await load.send(victim, signal.SIGKILL)
            await asyncio.sleep(chance.uniform(0.1, 2.0))
        recovery_s = await load.recovered()
        await load.flows()
        return result_of(*await load.settle(), recovery_s, f"{STORM} kills")


async def all_at_once(setup: Setup, folder: Path, chance: random.Random) -> Result:
    """As when a machine resets; its disk keeps what was written (a power cut is elsewhere)."""
    async with Load(folder, setup) as load:
        await load.flows(chance.randrange(100, 500))
        for victim in chance.sample(EVERYTHING, k=len(EVERYTHING)):
            await load.send(victim, signal.SIGKILL)
        recovery_s = await load.recovered()
        await load.flows()
        return result_of(*await load.settle(), recovery_s)


async def kill_debian_database(folder: Path, chance: random.Random) -> Result:
    try:
        setup = Setup(cloud="nats", server=True, programs=find_programs(15))
    except SetupError as error:
        raise CannotRunError(str(error)) from error
    return await kill(setup, "database", folder, chance)


def _on(edge: BrokerKind, cloud: BrokerKind, *victims: str, quick: bool = False) -> list[Scenario]:
    setup = Setup(edge=edge, cloud=cloud)
    return [
        Scenario(fault, victim, cloud, partial(do, setup, victim), quick=quick and fault == "SIGKILL")
        for fault, do in (("SIGKILL", kill), ("SIGSTOP", stop))
        for victim in victims
    ]


SCENARIOS = [
    *_on("nats", "nats", *EVERYTHING, quick=True),
    *_on("mosquitto", "mosquitto", "adapter", "concentrator", "edge broker", "cloud broker", "cloud"),
    *_on("nats", "rabbitmq", "concentrator", "cloud broker", "cloud"),
    Scenario("SIGKILL", "database", "postgresql-15", kill_debian_database),
    *(
        Scenario(fault, "everything", setup.edge, partial(do, setup))
        for fault, do in (("SIGKILL in a storm", storm), ("SIGKILL at once", all_at_once))
        for setup in (Setup(cloud="nats"), Setup(edge="mosquitto", cloud="mosquitto"))
    ),
]
