"""A spool keeps what it has acknowledged through power cuts; where it does not flush, the same test finds the loss."""

import random
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from delivery.crash_child import CONFIG
from faults.powercut import Disk
from faults.scenario import CannotRunError
from meterway.core.errors import SetupError
from meterway.delivery.spool import Spool

CHILD = Path(__file__).parents[1] / "delivery" / "crash_child.py"
CUTS = 3

Message = tuple[str, int, int]
"""Topic, sequence number, and the run of the child that made it."""


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    disk = Disk(tmp_path / "spool", tmp_path / "journal")
    try:
        assert disk.environment
    except CannotRunError as error:
        pytest.skip(str(error))
    return disk


def write_and_cut(disk: Disk, folder: Path, mode: str) -> tuple[set[Message], set[Message]]:
    """Have messages written and cut the power, again and again; return what was acknowledged and what was delivered."""
    chance = random.Random(mode)
    told: dict[str, set[Message]] = {"A": set(), "D": set()}
    for run in range(CUTS):
        words = [sys.executable, str(CHILD), str(folder), str(run), mode]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=disk.environment) as child:
            assert child.stdout is not None
            cut_at = chance.randint(200, 600)
            for count, line in enumerate(child.stdout):
                kind, topic, sequence, made_by = line.split()
                told[kind].add((topic, int(sequence), int(made_by)))
                if count == cut_at:
                    time.sleep(chance.uniform(0, 0.05))
                    disk.cut(child.pid, chance)
    return told["A"], told["D"]


async def found_in(folder: Path) -> set[Message]:
    found: set[Message] = set()
    async with Spool(folder, CONFIG, count_topics=True) as spool:
        while records := await spool.take(100, 1 << 20):
            for record in records:
                topic, sequence, run, _ = record.payload.split(b":", 3)
                found.add((topic.decode(), int(sequence), int(run)))
    return found


@pytest.mark.faults
async def test_power_cuts_take_nothing_that_was_acknowledged_and_no_number_is_used_twice(
    disk: Disk, tmp_path: Path
) -> None:
    acknowledged, delivered = write_and_cut(disk, tmp_path / "spool", "commit")
    found = await found_in(tmp_path / "spool")
    assert len(acknowledged) > 100
    assert acknowledged - delivered - found == set(), "lost"
    runs = defaultdict(set)
    for topic, sequence, run in acknowledged | delivered | found:
        runs[topic, sequence].add(run)
    assert [number for number, users in runs.items() if len(users) > 1] == []


@pytest.mark.faults
async def test_power_cuts_take_messages_from_a_spool_that_does_not_flush(disk: Disk, tmp_path: Path) -> None:
    acknowledged, delivered = write_and_cut(disk, tmp_path / "spool", "unflushed")
    try:
        found = await found_in(tmp_path / "spool")
    except SetupError:
        found = set()
    assert acknowledged - delivered - found != set()
