"""A process to be killed: appends, commits, delivers; tells on stdout what is acknowledged and what was delivered.

    python crash_child.py DIRECTORY SEED {commit,early,unflushed}

``commit`` says ``A`` when ``commit`` has returned. Broken on purpose: ``early`` says it before, ``unflushed`` flushes
no file.
"""

import asyncio
import os
import random
import sys
from hashlib import sha256
from pathlib import Path

from meterway.delivery.config import SpoolConfig
from meterway.delivery.spool import Spool

CONFIG = SpoolConfig(segment_bytes=16_384, limit_bytes=64 << 20, linger_s=0.002)


def payload(topic: str, sequence: int, seed: int) -> bytes:
    body = f"{topic}:{sequence}:{seed}:".encode() + b"." * (sequence % 700)
    return body + sha256(body).hexdigest().encode()


def tell(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def produce(spool: Spool, chance: random.Random, seed: int, *, early: bool) -> None:
    for _ in range(2000):
        told = []
        for _ in range(chance.randint(1, 6)):
            topic = f"meter{chance.randint(0, 4)}"
            sequence = spool.topic_state(topic).appended + 1
            position = spool.append(topic, payload(topic, sequence, seed), b"%d" % sequence)
            told.append((position, topic, sequence))
        for position, topic, sequence in told:
            if not early:
                await spool.commit(position)
            tell("A", topic, sequence, seed)
        await asyncio.sleep(0)


async def deliver(spool: Spool) -> None:
    while True:
        for record in await spool.take(5, 10_000):
            tell(
                "D", record.topic, record.payload.split(b":", 3)[1].decode(), record.payload.split(b":", 3)[2].decode()
            )
            spool.done([record.number])
        await asyncio.sleep(0.002)


async def main(directory: Path, seed: int, mode: str) -> None:
    if mode == "unflushed":
        os.fdatasync = lambda fd: None  # noqa: ARG005
    async with Spool(directory, CONFIG, count_topics=True) as spool:
        delivery = asyncio.create_task(deliver(spool))
        await produce(spool, random.Random(seed), seed, early=mode == "early")
        delivery.cancel()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
