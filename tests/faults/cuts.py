"""Power cuts of adapter, concentrator and cloud under load: only what was flushed is there afterwards."""

import asyncio
import random
import signal
from functools import partial
from pathlib import Path

import msgspec

from faults.load import RECOVERY_S, Setup
from faults.powercut import Disk
from faults.rig import Fit, Rig, quick_restarts
from faults.scenario import Expect, Result, Scenario, result_of
from meterway.adapter.config import AdapterConfig
from meterway.concentrator.config import ConcentratorConfig

CUTS = 20
IN_FLIGHT = 50
_ROOTS = {"adapter": "spool/adapter", "concentrator": "spool/concentrator/", "cloud": "postgres/cluster/"}
"""Prefixes: plausibility's memory lies beside the adapter's spool."""
_NEXT = {"adapter": "concentrator", "concentrator": "cloud"}
"""Who stands still before the cut, so that something waits."""


def _slow(config: AdapterConfig | ConcentratorConfig) -> AdapterConfig | ConcentratorConfig:
    """Let most wait in the spool, not in the broker, while the next one stands still."""
    return msgspec.structs.replace(config, relay=msgspec.structs.replace(config.relay, in_flight=IN_FLIGHT))


async def cut(victim: str, broken: str, cuts: int, folder: Path, chance: random.Random) -> Result:
    """Cut the power of one machine again and again while readings flow.

    The cloud's machine has PostgreSQL, not the broker: nats-server makes its system calls itself.
    """
    disk = Disk(f"{folder}/{_ROOTS[victim]}", folder / "journal")
    longest_s, undone = 0.0, 0
    fit = Fit(disk.environment, _slow if victim in _NEXT else None)
    async with Rig(folder, {victim: fit}, Setup(broken={victim: broken} if broken else {})) as rig:
        await rig.flows()
        with quick_restarts():
            for _ in range(cuts):
                if victim in _NEXT:
                    await rig.send(_NEXT[victim], signal.SIGSTOP)
                await asyncio.sleep(chance.uniform(0, 1))
                pid = rig.processes[victim].pid
                assert pid is not None
                undone += disk.cut(pid, chance)
                if victim in _NEXT:
                    await rig.send(_NEXT[victim], signal.SIGCONT)
                await rig.back(victim)
                longest_s = max(longest_s, await rig.recovered())
        truth, verdict = await rig.settle(within_s=10 if broken else RECOVERY_S)
    return result_of(truth, verdict, longest_s, f"{cuts} cuts, {undone} changes undone")


SCENARIOS = [
    *(Scenario("power cut", victim, "nats", partial(cut, victim, "", CUTS)) for victim in _ROOTS),
    Scenario(
        "power cut, no fdatasync",
        "concentrator",
        "nats",
        partial(cut, "concentrator", "spool_without_fdatasync", 3),
        expect=Expect.FOUND_WRONG,
        quick=True,
    ),
]
