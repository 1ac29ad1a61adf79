"""Crashes: SIGKILL of a real process in a loop, and power cuts that keep only what was flushed.

Each test also runs on a variant that is broken on purpose, where it must find the loss; else it would prove nothing.
"""

import asyncio
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest

from meterway.core.errors import SetupError
from meterway.delivery.config import SpoolConfig
from meterway.delivery.record import Record
from meterway.delivery.spool import Spool

CHILD = Path(__file__).with_name("crash_child.py")
CONFIG = SpoolConfig(segment_bytes=16_384, limit_bytes=64 << 20, linger_s=0.002)
MOST_CUTS = 100
"""Each is read again, which takes its time on a slow disk."""

Reading = tuple[str, int, int]
"""Topic, sequence number, and the run of the child that made it."""


@dataclass
class Ledger:
    acknowledged: set[Reading] = field(default_factory=set)
    delivered: set[Reading] = field(default_factory=set)

    def run_and_kill(self, directory: Path, seed: int, mode: str, after_lines: int) -> None:
        """Run the child and kill it when it has told so much."""
        child = subprocess.Popen(
            [sys.executable, str(CHILD), str(directory), str(seed), mode], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        with child, child.stdout:
            for number, line in enumerate(child.stdout):
                kind, topic, sequence, run = line.split()
                (self.acknowledged if kind == "A" else self.delivered).add((topic, int(sequence), int(run)))
                if number == after_lines:
                    child.kill()
        assert child.returncode != 1, "the child failed by itself"


def reading(record: Record) -> Reading:
    """Return what a message says it is; it must be unaltered."""
    body, told = record.payload[:-64], record.payload[-64:]
    assert sha256(body).hexdigest().encode() == told
    topic, sequence, run, _ = body.split(b":", 3)
    assert topic.decode() == record.topic
    assert int(sequence) == record.count == int(record.mark)
    return record.topic, int(sequence), int(run)


async def read_all(directory: Path) -> tuple[list[Reading], dict[str, int]]:
    async with Spool(directory, CONFIG, count_topics=True) as spool:
        assert spool.stats().lost == 0
        found = []
        while records := await spool.take(100, 1 << 20):
            found += [reading(record) for record in records]
        return found, {f"meter{n}": spool.topic_state(f"meter{n}").appended for n in range(5)}


@pytest.mark.faults
async def test_after_sigkill_every_acknowledged_message_is_there_once_and_counts_have_no_gap(tmp_path: Path) -> None:
    ledger = Ledger()
    chance = random.Random(1)
    for seed in range(12):
        ledger.run_and_kill(tmp_path, seed, "commit", chance.randint(5, 700))
    found, counts = await read_all(tmp_path)
    everything = ledger.delivered | set(found)
    assert len(ledger.acknowledged) > 200
    assert ledger.acknowledged - everything == set(), "lost"
    assert len(found) == len(set(found)), "twice in the spool"
    for topic, count in counts.items():
        sequences = sorted(sequence for each, sequence, _ in everything if each == topic)
        assert sequences == list(range(1, count + 1)), "a gap, or a number used for two readings"


@pytest.mark.faults
async def test_the_same_test_finds_the_loss_when_messages_are_acknowledged_before_they_are_stored(
    tmp_path: Path,
) -> None:
    ledger = Ledger()
    for seed in range(12):
        ledger.run_and_kill(tmp_path, seed, "early", 50 + seed)
        found, _ = await read_all(tmp_path)
        if ledger.acknowledged - ledger.delivered - set(found):
            return
    pytest.fail("acknowledging early was not noticed")


class FlushedOnly:
    """Notes how much of each file was flushed, and which names were in the directory when that was."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, *, flush_files: bool) -> None:
        self._directory = directory
        self._sizes: dict[int, int] = {}
        self._names: set[str] = set()
        self._flush_files = flush_files
        self._real_fdatasync, self._real_fsync = os.fdatasync, os.fsync
        monkeypatch.setattr(os, "fdatasync", self._fdatasync)
        monkeypatch.setattr(os, "fsync", self._fsync)

    def _fdatasync(self, file: int) -> None:
        if self._flush_files:
            self._real_fdatasync(file)
            status = os.fstat(file)
            self._sizes[status.st_ino] = status.st_size

    def _fsync(self, directory: int) -> None:
        self._real_fsync(directory)
        self._names = set(os.listdir(directory))

    def cut_power(self, target: Path, chance: random.Random) -> None:
        """Make a copy of what a disk holds after the power was cut now: what was flushed and a random bit more."""
        target.mkdir()
        names, sizes = self._names.copy(), self._sizes.copy()
        for name in names:
            source = self._directory / name
            if source.exists() and name != "lock":
                shutil.copy(source, target / name)
                flushed = sizes.get(source.stat().st_ino, 0)
                unflushed = (target / name).stat().st_size - flushed
                os.truncate(target / name, flushed + chance.randint(0, max(0, unflushed)) * (chance.random() < 0.5))


async def readable(directory: Path) -> set[bytes]:
    found = set()
    try:
        async with Spool(directory, CONFIG, count_topics=True) as spool:
            while records := await spool.take(100, 1 << 20):
                found |= {record.payload for record in records}
    except SetupError:
        return set()
    return found


async def lost_by_power_cuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, flush_files: bool) -> int:
    directory = tmp_path / "spool"
    disk = FlushedOnly(directory, monkeypatch, flush_files=flush_files)
    chance = random.Random(2)
    cuts: list[tuple[Path, set[bytes]]] = []
    committed: set[bytes] = set()

    async def produce(spool: Spool) -> None:
        for number in range(600):
            body = b"%d:" % number + b"." * chance.randint(0, 400)
            await spool.commit(spool.append("t", body))
            committed.add(body)

    async with Spool(directory, CONFIG, count_topics=True) as spool:
        work = asyncio.create_task(produce(spool))
        while not work.done() and len(cuts) < MOST_CUTS:
            await asyncio.sleep(chance.random() * 0.03)
            must = committed.copy()
            target = tmp_path / f"cut{len(cuts)}"
            disk.cut_power(target, chance)
            cuts.append((target, must))
        await work
    assert len(list(directory.glob("*.segment"))) > 3
    lost = 0
    for target, must in cuts:
        lost += len(must - await readable(target))
    return lost


@pytest.mark.faults
async def test_a_power_cut_takes_nothing_that_was_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await lost_by_power_cuts(tmp_path, monkeypatch, flush_files=True) == 0


@pytest.mark.faults
async def test_the_same_test_finds_the_loss_when_nothing_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await lost_by_power_cuts(tmp_path, monkeypatch, flush_files=False) > 0
