"""A backlog drains while live readings come: how long these take, and what their turn costs the backlog.

    python -m bench.drain [--backlog N] [--live N]

A concentrator starts with messages of 1,028 bytes in its spool; N live ones a second are published at its local broker
meanwhile. Broker: the embedded NATS; the receiver confirms all. First all in order, as a queue would, then as
Meterway does: one of the newest for three of the backlog. The machine is noisy: read the ratios.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import quantiles

import msgspec
import uvloop

from bench.concentrator import cpu_time_s
from meterway.bus.broker import EmbeddedBroker
from meterway.bus.bus import BrokerConfig, Delivery
from meterway.bus.mqtt import MqttBus
from meterway.concentrator.config import ConcentratorConfig
from meterway.concentrator.service import run
from meterway.core import receipts, topics
from meterway.core.config import dump_config, load_config
from meterway.core.errors import TransientError
from meterway.delivery import relay
from meterway.delivery.confirm import Confirmer
from meterway.delivery.spool import Spool
from meterway.process import ChildProcess, Command

PAYLOAD_BYTES = 1028
METERS = 500
IN_ORDER = 1 << 60
"""So many of the backlog for one of the newest is: none."""


class Drained(msgspec.Struct):
    """What the receiver saw until the backlog was through, and all that came meanwhile."""

    backlog_per_s: float
    live: int
    p50_ms: float
    p99_ms: float


async def concentrator(path: Path) -> None:
    """Be the concentrator."""
    config = load_config(path.read_text(), ConcentratorConfig, where=str(path))
    await run(config, ready=lambda: print('{"ready": true}', flush=True))


async def receive(config: BrokerConfig, backlog: int) -> None:
    """Confirm everything; print a ``Drained`` when the backlog and what was sent meanwhile have come."""
    times_s: list[float] = []
    seen: set[bytes] = set()
    late_s: list[float] = []
    done = asyncio.Event()

    def take(delivery: Delivery) -> None:
        confirmer.confirm("bench", receipts.digest(delivery.topic, delivery.payload))
        delivery.ack()
        kind, text, _ = delivery.payload.split(b" ", 2) if delivery.topic.endswith("/readings") else (b"", b"", b"")
        if text in seen or done.is_set():
            return
        seen.add(text)
        if kind == b"old":
            times_s.append(time.time())
        elif kind == b"live":
            late_s.append(time.time() - float(text))
            if len(times_s) == backlog and float(text) > times_s[-1]:
                done.set()

    async with MqttBus(config, "bench-receiver", {topics.CONCENTRATOR_FILTER: take}) as bus:
        confirmer = Confirmer(bus)
        await bus.wait_connected()
        print("ready", flush=True)
        await done.wait()
    cuts = quantiles(late_s, n=100)
    rate = backlog / (times_s[-1] - times_s[0])
    print(msgspec.json.encode(Drained(rate, len(late_s), cuts[49] * 1000, cuts[98] * 1000)).decode(), flush=True)


async def publish(config: BrokerConfig, live_per_s: float) -> None:
    """Publish live readings until cancelled."""
    async with MqttBus(config, "bench-meters", clean_session=True) as bus:
        await bus.wait_connected()
        number = 0
        while True:
            number += 1
            head = b"live %.6f " % time.time()
            with suppress(TransientError):
                bus.publish(f"smartMeterMessage/m-{number % METERS}/readings", head.ljust(PAYLOAD_BYTES, b"x"))
            await asyncio.sleep(1 / live_per_s)


async def measure(directory: Path, backlog: int, live_per_s: float, mode: str) -> tuple[Drained, float]:
    """Fill a spool, then let it drain; return what was seen, and the microseconds of CPU time that a message cost."""
    filler = os.urandom(PAYLOAD_BYTES)
    async with Spool(directory / "spool") as spool:
        for number in range(backlog):
            topic = f"concentrator/bench/smartMeterMessage/m-{number % METERS}/readings"
            spool.append(topic, (b"old %d " % number + filler)[:PAYLOAD_BYTES])
            if number % 4000 == 0:
                await spool.commit()
    async with EmbeddedBroker(directory / "broker") as broker:
        config = broker.config()
        path = directory / "concentrator.toml"
        path.write_text(
            dump_config(ConcentratorConfig(id="bench", local=config, cloud=config, spool_dir=directory / "spool"))
        )
        receiver = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.drain", "receiver", dump_config(config), str(backlog)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert receiver.stdout is not None
        await receiver.stdout.readline()
        publishing = asyncio.create_task(publish(config, live_per_s))
        command = Command(
            name="concentrator", arguments=[sys.executable, "-m", "bench.drain", "concentrator", str(path), mode]
        )
        async with ChildProcess(command) as process:
            drained = msgspec.json.decode(await receiver.stdout.readline(), type=Drained)
            cpu_us = cpu_time_s(process.pid) / (backlog + drained.live) * 1e6
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        await receiver.wait()
        return drained, cpu_us


def main(arguments: Sequence[str] = ()) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backlog", type=int, default=300_000, help="messages in the spool at the start")
    parser.add_argument("--live", type=float, default=200.0, help="live readings a second")
    options = parser.parse_args(arguments)
    print(f"{options.backlog:,} messages of {PAYLOAD_BYTES} bytes queued, {options.live:g} live ones a second")
    print(f"{'':14}{'backlog/s':>12}{'live seen':>12}{'p50 ms':>10}{'p99 ms':>10}{'CPU us':>10}")
    for mode in ("in-order", "newest-too"):
        with tempfile.TemporaryDirectory(prefix="meterway-bench-") as name:
            drained, cpu_us = uvloop.run(measure(Path(name), options.backlog, options.live, mode))
        print(
            f"{mode:14}{drained.backlog_per_s:12,.0f}{drained.live:12,}{drained.p50_ms:10,.0f}{drained.p99_ms:10,.0f}"
            f"{cpu_us:10.1f}",
            flush=True,
        )


if __name__ == "__main__":
    role, *rest = sys.argv[1:] or [""]
    if role == "receiver":
        uvloop.run(receive(load_config(rest[0], BrokerConfig, where="argument"), int(rest[1])))
    elif role == "concentrator":
        if rest[1] == "in-order":
            relay.BACKLOG_FOR_ONE_NEW = IN_ORDER
        uvloop.run(concentrator(Path(rest[0])))
    else:
        main(sys.argv[1:])
