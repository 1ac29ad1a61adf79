"""Processes that get no more file descriptors for a while."""

import asyncio
import random
import resource
import signal
from functools import partial
from pathlib import Path

from faults.rig import Rig
from faults.scenario import Result, Scenario, result_of

_PEERS = {"adapter": "edge broker", "concentrator": "edge broker", "cloud": "edge broker", "edge broker": "adapter"}
"""Who dies meanwhile, so that the victim needs new descriptors and gets none."""


def limit_descriptors(pid: int) -> tuple[int, int]:
    """Let a process open nothing more; return the limits that it had."""
    open_now = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    lowest_free = next(number for number in range(len(open_now) + 1) if number not in open_now)
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    return limits


async def exhausted(victim: str, folder: Path, chance: random.Random) -> Result:
    """Take away its descriptors, let it lose its connections, and give them back."""
    async with Rig(folder, {}) as rig:
        await rig.flows()
        pid = rig.pid_of(victim)
        assert pid is not None
        limits = limit_descriptors(pid)
        await asyncio.sleep(chance.uniform(0.5, 1.5))
        await rig.send(_PEERS[victim], signal.SIGKILL)
        await asyncio.sleep(chance.uniform(3, 6))
        survived = rig.pid_of(victim) == pid
        if survived:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        recovery_s = await rig.recovered()
        await rig.flows()
        truth, verdict = await rig.settle()
    return result_of(truth, verdict, recovery_s, "" if survived else "ended and was started again")


SCENARIOS = [Scenario("out of descriptors", victim, "nats", partial(exhausted, victim)) for victim in _PEERS]
