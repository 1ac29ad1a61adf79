"""Readings a second through a concentrator, beside a mosquitto bridge that remaps the prefix.

Both take 1,028-byte payloads published flat out with QoS 1 and hand them to the same subscriber. The concentrator
runs on the embedded NATS on both sides, through its spool (a ``fdatasync`` per group) and with receipts. The bridge
has its best settings: persistent, unbounded queues, unbounded in flight; it confirms nothing end to end.
``lost``: acknowledged to the publisher, never arrived.
"""

import asyncio
import os
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import uvloop

from meterway.bus.broker import EmbeddedBroker
from meterway.bus.bus import BrokerConfig, Delivery
from meterway.bus.mqtt import MqttBus, answers
from meterway.concentrator.config import ConcentratorConfig
from meterway.core import receipts, topics
from meterway.core.config import dump_config, load_config
from meterway.core.errors import TransientError
from meterway.delivery.confirm import Confirmer
from meterway.process import ChildProcess, Command

READINGS = 100_000
METERS = 500
PAYLOAD_BYTES = 1028
QUIET_S = 5.0
"""When nothing has arrived for so long, what is missing is lost."""


class Arrived(msgspec.Struct):
    """What the subscriber saw."""

    distinct: int
    repeated: int
    last_s: float
    """Wall clock of the last new one."""
    ready: bool = True


@dataclass(frozen=True)
class Result:
    name: str
    readings_per_s: float
    lost: int
    repeated: int
    cpu_us: float
    """CPU time a reading of the process measured."""


async def subscriber(config: BrokerConfig, count: int) -> None:
    """Take ``concentrator/#``, confirm, and print what arrived once all has or nothing comes any more."""
    seen: set[bytes] = set()
    repeated, last_s = 0, time.time()
    confirmers: list[Confirmer] = []

    def take(delivery: Delivery) -> None:
        nonlocal repeated, last_s
        topic = delivery.topic
        digest = receipts.digest(topic, delivery.payload)
        confirmers[0].confirm(topic.split("/", 2)[1], digest)
        delivery.ack()
        if topic.endswith("/readings"):
            if digest in seen:
                repeated += 1
            else:
                seen.add(digest)
                last_s = time.time()

    async with MqttBus(config, "bench-subscriber", {topics.CONCENTRATOR_FILTER: take}) as bus:
        confirmers.append(Confirmer(bus))
        await bus.wait_connected()
        print('{"ready": true}', flush=True)
        while len(seen) < count and (not seen or time.time() - last_s < QUIET_S):
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
    print(msgspec.json.encode(Arrived(len(seen), repeated, last_s)).decode(), flush=True)


async def publish(config: BrokerConfig, count: int) -> float:
    """Publish ``count`` readings flat out and return, when all are acknowledged, the wall clock of the first."""
    filler = os.urandom(PAYLOAD_BYTES // 2).hex().encode()
    async with MqttBus(config, "bench-publisher", clean_session=True) as bus:
        await bus.wait_connected()
        begun_s = time.time()
        for number in range(count):
            payload = (b'{"n":%d,"x":"' % number + filler)[: PAYLOAD_BYTES - 2] + b'"}'
            topic = f"smartMeterMessage/m-{number % METERS}/readings"
            while bus.unacknowledged > 4000:
                await asyncio.sleep(0.0005)
            try:
                bus.publish(topic, payload)
            except TransientError:
                await asyncio.sleep(0.001)
                bus.publish(topic, payload)
        while bus.unacknowledged:
            await asyncio.sleep(0.001)
        return begun_s


async def measure(name: str, local: BrokerConfig, cloud: BrokerConfig, pid: int | None, count: int) -> Result:
    """Publish at ``local``, count at ``cloud``."""
    command = [
        sys.executable,
        "-m",
        "bench.concentrator",
        "subscriber",
        dump_config(cloud),
        str(count),
    ]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    cpu_s = cpu_time_s(pid)
    begun_s = await publish(local, count)
    arrived = msgspec.json.decode(await process.stdout.readline(), type=Arrived)
    used_s = cpu_time_s(pid) - cpu_s
    await process.wait()
    return Result(
        name,
        arrived.distinct / (arrived.last_s - begun_s),
        count - arrived.distinct,
        arrived.repeated,
        used_s / count * 1e6,
    )


def cpu_time_s(pid: int | None) -> float:
    """Return the CPU time that a process has used, its threads included."""
    fields = Path(f"/proc/{pid or 'self'}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def with_concentrator(directory: Path, count: int) -> Result:
    async with EmbeddedBroker(directory / "broker") as broker:
        config = ConcentratorConfig(
            id="bench", local=broker.config(), cloud=broker.config(), spool_dir=directory / "spool"
        )
        path = directory / "concentrator.toml"
        path.write_text(dump_config(config))
        arguments: list[str | Path] = [sys.executable, "-m", "meterway", "concentrator", "--config", path, "--json"]
        async with ChildProcess(Command(name="concentrator", arguments=arguments)) as process:
            return await measure("concentrator (NATS)", broker.config(), broker.config(), process.pid, count)


@asynccontextmanager
async def mosquitto(name: str, directory: Path, extra: str = "") -> AsyncIterator[tuple[BrokerConfig, int | None]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = BrokerConfig(url=f"mqtt://127.0.0.1:{port}")
    store = directory / name
    store.mkdir()
    (store / "conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nset_tcp_nodelay true\npersistence true\n"
        f"persistence_location {store}/\nmax_queued_messages 0\nmax_inflight_messages 0\n{extra}"
    )
    command = Command(name=name, arguments=["/usr/sbin/mosquitto", "-c", store / "conf"], probe=lambda: answers(config))
    async with ChildProcess(command) as process:
        yield config, process.pid


async def with_bridge(directory: Path, count: int) -> Result:
    async with mosquitto("cloud", directory) as (cloud, _):
        bridge = (
            f"connection bench\naddress {cloud.url.removeprefix('mqtt://')}\nremote_clientid bench-bridge\n"
            'cleansession false\ntopic smartMeterMessage/# out 1 "" concentrator/bench/\n'
        )
        async with mosquitto("edge", directory, bridge) as (local, pid):
            await asyncio.sleep(1.0)
            return await measure("mosquitto bridge", local, cloud, pid, count)


async def _main(count: int) -> None:
    print(f"{count} readings of {PAYLOAD_BYTES} bytes, QoS 1, {os.cpu_count()} cores")
    print(f"{'':24}{'readings/s':>12}{'lost':>8}{'repeated':>10}{'CPU us/reading':>16}")
    for run in (with_concentrator, with_bridge):
        with tempfile.TemporaryDirectory() as directory:
            result = await run(Path(directory), count)
        print(
            f"{result.name:24}{result.readings_per_s:12,.0f}{result.lost:8}{result.repeated:10}{result.cpu_us:16.1f}",
            flush=True,
        )


def main(arguments: Sequence[str] = ()) -> None:
    """Run both; an argument is the number of readings."""
    uvloop.run(_main(int(arguments[0]) if arguments else READINGS))


if __name__ == "__main__":
    if sys.argv[1:2] == ["subscriber"]:
        uvloop.run(subscriber(load_config(sys.argv[2], BrokerConfig, where="argument"), int(sys.argv[3])))
    else:
        main(sys.argv[1:])
