"""Disks that are full, read-only or damaged, below spools, broker and database."""

import asyncio
import contextlib
import errno
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from faults.powercut import Disk
from faults.rig import Fit, Rig
from faults.scenario import CannotRunError, Result, Scenario, result_of

MIB = 1 << 20


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[None]:
    """Mount a disk of that size at ``folder`` (tmpfs).

    Raises:
        CannotRunError: we may not mount.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0755", "meterway-fault", str(folder)]
    mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise CannotRunError(f"a small disk needs root, to mount it: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def fill(folder: Path) -> Path:
    """Take all room that is left; return what holds it."""
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


@dataclass(frozen=True, slots=True)
class Place:
    """What lies on the small disk, and who says that it is full."""

    folder: str
    size_bytes: int
    topic: str = ""
    """Where it is said; empty: the cloud is not ready, or nobody is the wiser and senders wait."""
    words: str = ""


PLACES = {
    "adapter's spool": Place("spool/adapter", 16 * MIB, "smartMeterMessage/+/status", "spool full"),
    "concentrator's spool": Place("spool/concentrator", 16 * MIB, "concentrator/+/status", "spool full"),
    "broker's store": Place("broker", 64 * MIB),
    "database": Place("postgres", 768 * MIB, words="Readings wait"),
}


async def full(what: str, folder: Path, chance: random.Random) -> Result:
    """Fill the disk below one component, see that it is said, make room: it goes on by itself."""
    place = PLACES[what]
    with small_disk(folder / place.folder, place.size_bytes):
        async with Rig(folder, {}) as rig:
            await rig.flows()
            ballast = fill(folder / place.folder)
            if place.topic:
                await rig.says(place.topic, place.words)
            elif place.words:
                await rig.cloud_says(place.words)
            await asyncio.sleep(chance.uniform(2, 6))
            ballast.unlink()
            recovery_s = await rig.recovered()
            await rig.flows()
            truth, verdict = await rig.settle()
    return result_of(truth, verdict, recovery_s, f"said: {place.words}" if place.words else "senders waited")


REFUSALS = {"read-only file system": errno.EROFS, "disk fails (EIO)": errno.EIO}


async def refused(victim: str, fault: str, folder: Path, chance: random.Random) -> Result:
    """Have every write and flush of a spool fail for a while."""
    disk = Disk(f"{folder}/spool/{victim}/", folder / "journal")
    words = os.strerror(REFUSALS[fault])
    topic = {"adapter": "smartMeterMessage/+/status", "concentrator": "concentrator/+/status"}[victim]
    async with Rig(folder, {victim: Fit(disk.environment)}) as rig:
        await rig.flows()
        disk.refuse(REFUSALS[fault])
        await rig.says(topic, words)
        await asyncio.sleep(chance.uniform(1, 4))
        disk.refuse(0)
        recovery_s = await rig.recovered()
        await rig.flows()
        truth, verdict = await rig.settle()
    return result_of(truth, verdict, recovery_s, f"said: {words}")


SCENARIOS = [
    *(
        Scenario("disk full", what, "nats", partial(full, what), quick=what == "concentrator's spool")
        for what in PLACES
    ),
    *(
        Scenario(fault, victim, "nats", partial(refused, victim, fault))
        for fault in REFUSALS
        for victim in ("adapter", "concentrator")
    ),
]
