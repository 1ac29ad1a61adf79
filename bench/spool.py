"""The spool beside SQLite (WAL, synchronous=FULL): durable appends a second, and opening a long backlog.

    python -m bench.spool [--items N] [--backlog N]

Both write 1 KB messages to the same disk in the same run, one flush for each group. The machine is noisy: read the
ratios.
"""

import argparse
import asyncio
import os
import sqlite3
import tempfile
import time
from pathlib import Path
from statistics import median

from meterway.delivery.config import SpoolConfig
from meterway.delivery.spool import Spool

GROUPS = (1, 20, 200, 1000)
PAYLOAD = b"x" * 1028
TOPIC = "concentrator/bench/smartMeterMessage/bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff/readings"
WITHIN_S = 1.0
"""Each measurement ends after this time at the latest."""
ROUNDS = 5
"""Both are measured so often, in turn; the medians are printed."""
LIMIT_BYTES = 64 << 30


async def segment_log(directory: Path, group: int, items: int) -> float:
    """Return messages a second, each group durable before the next begins."""
    async with Spool(directory, SpoolConfig(limit_bytes=LIMIT_BYTES)) as spool:
        begin = time.perf_counter()
        written = 0
        while written < items and time.perf_counter() - begin < WITHIN_S:
            for _ in range(group):
                spool.append(TOPIC, PAYLOAD)
            await spool.commit()
            written += group
        return written / (time.perf_counter() - begin)


def sqlite(path: Path, group: int, items: int) -> float:
    """Return the same for a table in SQLite."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE spool (position INTEGER PRIMARY KEY, topic TEXT, payload BLOB)")
    begin = time.perf_counter()
    written = 0
    while written < items and time.perf_counter() - begin < WITHIN_S:
        database.execute("BEGIN")
        database.executemany("INSERT INTO spool (topic, payload) VALUES (?, ?)", [(TOPIC, PAYLOAD)] * group)
        database.execute("COMMIT")
        written += group
    taken_s = time.perf_counter() - begin
    database.close()
    return written / taken_s


async def flow(directory: Path, items: int) -> float:
    """Return messages a second appended, taken from memory and done, 200 at a time."""
    async with Spool(directory, SpoolConfig(limit_bytes=LIMIT_BYTES)) as spool:
        begin = time.perf_counter()
        for _ in range(0, items, 200):
            for _ in range(200):
                spool.append(TOPIC, PAYLOAD)
            await spool.commit()
            spool.done([record.number for record in await spool.take(1000, 1 << 20)])
        return items / (time.perf_counter() - begin)


async def backlog(directory: Path, items: int) -> tuple[float, float, float]:
    """Return the seconds to open a spool with ``items`` queued and to its first message, and messages a second read."""
    async with Spool(directory, SpoolConfig(limit_bytes=LIMIT_BYTES)) as spool:
        for _ in range(0, items, 1000):
            for _ in range(1000):
                spool.append(TOPIC, PAYLOAD)
            await spool.commit()
    begin = time.perf_counter()
    async with Spool(directory, SpoolConfig(limit_bytes=LIMIT_BYTES)) as spool:
        opened_s = time.perf_counter() - begin
        assert spool.pending >= items
        first = len(await spool.take(1, 1))
        first_s = time.perf_counter() - begin
        read = first
        begin = time.perf_counter()
        while read < items and time.perf_counter() - begin < WITHIN_S:
            read += len(await spool.take(256, 1 << 20))
        return opened_s, first_s, read / (time.perf_counter() - begin)


def flush_ms(directory: Path) -> float:
    """Return what one fdatasync of 4 KiB costs here."""
    file = os.open(directory / "probe", os.O_CREAT | os.O_WRONLY)
    begin = time.perf_counter()
    for number in range(50):
        os.pwrite(file, bytes(4096), number * 4096)
        os.fdatasync(file)
    os.close(file)
    return (time.perf_counter() - begin) / 50 * 1000


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=60_000, help="messages a measurement")
    parser.add_argument("--backlog", type=int, default=200_000, help="messages queued for the opening")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="meterway-bench-") as name:
        directory = Path(name)
        print(f"spool: durable appends of {len(PAYLOAD)} bytes; one fdatasync costs {flush_ms(directory):.2f} ms here")
        print(f"{'group':>6} {'segment log':>12} {'SQLite FULL':>12} {'ratio':>6}")
        for group in GROUPS:
            rounds = [
                (
                    asyncio.run(segment_log(directory / f"log{group}-{each}", group, options.items)),
                    sqlite(directory / f"{group}-{each}.sqlite", group, options.items),
                )
                for each in range(ROUNDS)
            ]
            ours, theirs = (median(column) for column in zip(*rounds, strict=True))
            print(f"{group:>6} {ours:>10,.0f}/s {theirs:>10,.0f}/s {ours / theirs:>6.2f}")
        print(f"append, take and done, 200 at a time: {asyncio.run(flow(directory / 'flow', options.items)):,.0f}/s")
        opened_s, first_s, read = asyncio.run(backlog(directory / "backlog", options.backlog))
        print(
            f"{options.backlog:,} queued: open in {opened_s:.3f} s, first message after {first_s:.3f} s, "
            f"read at {read:,.0f}/s"
        )


if __name__ == "__main__":
    main()
