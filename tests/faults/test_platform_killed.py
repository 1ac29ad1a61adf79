"""The whole platform under load while its processes are killed: after recovery stored = published, nothing twice."""

import asyncio
import random
import signal
from pathlib import Path

import pytest

from faults.load import RECOVERY_S, Load, assert_good

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

VICTIMS = ["adapter", "concentrator", "edge broker", "cloud", "database"]
STANDSTILL_S = 4.0
SEED = 20261123


@pytest.mark.parametrize("victim", VICTIMS)
async def test_a_killed_process_loses_doubles_and_alters_nothing(victim: str, tmp_path: Path) -> None:
    async with Load(tmp_path) as load:
        await load.flows()
        await load.send(victim, signal.SIGKILL)
        await load.flows()
        truth, verdict = await load.settle()
        counted = await load.count(within_s=0 if victim == "adapter" else RECOVERY_S)
    assert_good(truth, verdict)
    assert counted.duplicated == 0
    if victim != "adapter":  # what a meter says while nobody reads it is gone: it has no memory
        assert counted.missing == 0


async def test_processes_killed_in_random_order_lose_double_and_alter_nothing(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    victims = [*VICTIMS, *chance.choices(VICTIMS, k=4)]
    chance.shuffle(victims)
    async with Load(tmp_path) as load:
        await load.flows()
        for victim in victims:
            await load.send(victim, signal.SIGKILL)
            await asyncio.sleep(chance.uniform(0.2, 2.0))
        await load.flows()
        truth, verdict = await load.settle()
    assert_good(truth, verdict)


@pytest.mark.parametrize("victim", ["cloud", "concentrator"])
async def test_a_process_that_stands_still_for_a_while_loses_nothing(victim: str, tmp_path: Path) -> None:
    """Its connections stay open and nothing moves: worse than a death, which the others notice."""
    async with Load(tmp_path) as load:
        await load.flows()
        await load.send(victim, signal.SIGSTOP)
        await asyncio.sleep(STANDSTILL_S)
        await load.send(victim, signal.SIGCONT)
        await load.flows()
        truth, verdict = await load.settle()
        counted = await load.count()
    assert_good(truth, verdict)
    assert (counted.missing, counted.duplicated) == (0, 0)
