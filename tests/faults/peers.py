"""Other software in the same place, with the same columns: what carries readings from one broker to the next, or on.

A sender publishes numbered messages with QoS 1 to the edge's mosquitto; what is acknowledged to it is sent. Bridges
carry them to the cloud's mosquitto, where a subscriber with a persistent session, which never dies, notes what comes.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import asyncpg
from paho.mqtt.client import Client, MQTTMessage, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion

from faults.engines import found, running_mosquitto
from faults.load import until
from faults.peer_paho import TABLE
from faults.proxy import Link, link_to
from faults.scenario import CannotRunError, Expect, Result, Scenario
from meterway.cloud.postgres import EmbeddedPostgres
from meterway.process import ChildProcess, Command
from support.brokers import free_port
from support.platform import is_open

PAUSE_S, AT_ONCE = 0.05, 10
"""200 messages a second."""
BEFORE_S, AFTER_S, REST_S = 6.0, 6.0, 6.0
CUT_S = 10.0
BEST = "persistence true\nautosave_interval 1\nautosave_on_changes true\n"
"""mosquitto writes all it has to the disk at every change."""
_NODE_RED = Path(sys.executable).parent.parent / "node-red/node_modules/node-red/red.js"


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer that runs."""

    edge_port: int
    pids: dict[str, Callable[[], int | None]]
    link: Link | None
    arrived: Callable[[], Awaitable[Counter[str]]]
    """Payloads at the far end, with how often they came."""


def payload_of(number: int) -> str:
    return json.dumps({"number": number, "check": sha256(str(number).encode()).hexdigest()})


class Sender:
    """Publishes and remembers what the broker acknowledged."""

    def __init__(self, port: int) -> None:
        self._infos: list[MQTTMessageInfo] = []
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="sender", clean_session=False)
        self._acknowledged: set[int] = set()
        self._client.on_publish = lambda _client, _data, mid, *_: self._acknowledged.add(mid)
        self._client.max_inflight_messages_set(1000)
        self._client.reconnect_delay_set(1, 2)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    @property
    def count(self) -> int:
        return len(self._infos)

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            for _ in range(AT_ONCE):
                self._infos.append(self._client.publish("readings/r", payload_of(self.count), qos=1))
            await asyncio.sleep(PAUSE_S)

    def acknowledged(self) -> set[str]:
        return {payload_of(number) for number, info in enumerate(self._infos) if info.mid in self._acknowledged}

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@asynccontextmanager
async def subscriber(port: int) -> AsyncIterator[Callable[[], Awaitable[Counter[str]]]]:
    """Note everything that comes to a broker."""
    seen: Counter[str] = Counter()

    def take(_client: Client, _data: object, message: MQTTMessage) -> None:
        seen[message.payload.decode()] += 1

    async def arrived() -> Counter[str]:
        return Counter(seen)

    client = Client(CallbackAPIVersion.VERSION2, client_id="far-end", clean_session=False)
    client.on_message = take
    client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
    client.reconnect_delay_set(1, 2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        yield arrived
    finally:
        client.disconnect()
        client.loop_stop()


@asynccontextmanager
async def bridge(extra: str, folder: Path, chance: random.Random) -> AsyncIterator[Peer]:
    """Two mosquittos, the edge's with a bridge to the cloud's; ``extra`` is for both."""
    async with running_mosquitto(folder / "cloud", extra) as cloud, link_to(cloud.port, chance) as link:
        to_cloud = (
            f"connection cloud\naddress 127.0.0.1:{link.port}\ntopic # out 1\nnotifications false\n"
            "cleansession false\nrestart_timeout 1\nremote_clientid bridge\n"
        )
        async with running_mosquitto(folder / "edge", extra + to_cloud) as edge, subscriber(cloud.port) as arrived:
            yield Peer(edge.port, {"bridge": lambda: edge.pid, "cloud broker": lambda: cloud.pid}, link, arrived)


@asynccontextmanager
async def node_red(folder: Path, chance: random.Random) -> AsyncIterator[Peer]:
    """Node-RED with the flow mqtt in - mqtt out, QoS 1, sessions kept; both brokers as safe as mosquitto can be."""
    if not _NODE_RED.exists():
        raise CannotRunError("Node-RED is not installed (scripts/setup.sh faults)")
    async with (
        running_mosquitto(folder / "edge", BEST) as edge,
        running_mosquitto(folder / "cloud", BEST) as cloud,
        link_to(cloud.port, chance) as link,
        subscriber(cloud.port) as arrived,
    ):
        port = free_port()
        (folder / "settings.js").write_text(
            "module.exports = {uiHost: '127.0.0.1', flowFile: 'flows.json', credentialSecret: false};\n"
        )
        broker = {"type": "mqtt-broker", "broker": "127.0.0.1", "protocolVersion": "4", "cleansession": False}
        flow = [
            {"id": "tab", "type": "tab", "label": "flow"},
            broker | {"id": "edge", "port": str(edge.port), "clientid": "node-red-edge", "keepalive": "20"},
            broker | {"id": "cloud", "port": str(link.port), "clientid": "node-red-cloud", "keepalive": "20"},
            {"id": "in", "z": "tab", "type": "mqtt in", "broker": "edge", "topic": "#", "qos": "1", "wires": [["out"]]},
            {"id": "out", "z": "tab", "type": "mqtt out", "broker": "cloud", "topic": "", "qos": "1", "wires": []},
        ]
        (folder / "flows.json").write_text(json.dumps(flow))
        arguments: list[str | Path] = [found("node"), _NODE_RED, "--userDir", folder, "--port", str(port)]

        async def answers() -> bool:
            return is_open(port)

        command = Command(name="node-red", arguments=arguments, probe=answers, ready_within_s=90)
        async with ChildProcess(command) as process:
            yield Peer(edge.port, {"Node-RED": lambda: process.pid, "cloud broker": lambda: cloud.pid}, link, arrived)


@asynccontextmanager
async def paho(folder: Path, _chance: random.Random) -> AsyncIterator[Peer]:
    """paho-mqtt with automatic acknowledgement between a broker as safe as mosquitto can be and PostgreSQL."""
    async with running_mosquitto(folder / "edge", BEST) as edge, EmbeddedPostgres(folder / "pg") as database:
        connection = await asyncpg.connect(database.dsn)
        await connection.execute(TABLE)
        await connection.close()
        dsn_file = folder / "dsn"
        dsn_file.touch(mode=0o600)
        dsn_file.write_text(database.dsn)

        async def arrived() -> Counter[str]:
            try:
                connection = await asyncpg.connect(database.dsn, timeout=5)
                try:
                    return Counter(row[0] for row in await connection.fetch("select payload from peer"))
                finally:
                    connection.terminate()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                return Counter()

        script = Path(__file__).with_name("peer_paho.py")
        command = Command(name="paho", arguments=[sys.executable, script, str(edge.port), dsn_file])
        async with ChildProcess(command) as process:
            yield Peer(edge.port, {"paho": lambda: process.pid, "database": lambda: database.pid}, None, arrived)


async def run(
    start: Callable[[Path, random.Random], AbstractAsyncContextManager[Peer]],
    victim: str,
    folder: Path,
    chance: random.Random,
) -> Result:
    """Kill ``victim``, or cut the link to the cloud where it is ``link``."""
    async with start(folder, chance) as peer:
        sender = Sender(peer.edge_port)
        sending = asyncio.create_task(sender.run())
        try:
            await asyncio.sleep(BEFORE_S + chance.random())
            if victim == "link":
                assert peer.link is not None
                await peer.link.cut()
                await asyncio.sleep(CUT_S)
                await peer.link.mend()
            else:
                pid = peer.pids[victim]()
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
            recovery_s = await _recovery_s(peer, sender.count)
            await asyncio.sleep(AFTER_S)
            sending.cancel()
            arrived = await _rest(peer)
            acknowledged = sender.acknowledged()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await asyncio.to_thread(sender.close)
    made = {payload_of(number) for number in range(sender.count)}
    return Result(
        sent=len(acknowledged),
        stored=len(acknowledged & arrived.keys()),
        lost=len(acknowledged - arrived.keys()),
        duplicated=sum(count - 1 for count in arrived.values()),
        altered=len(arrived.keys() - made),
        recovery_s=recovery_s,
    )


async def _recovery_s(peer: Peer, number: int) -> float | None:
    """Return when something that was not yet made is at the far end; None if that takes too long."""
    started_s = time.monotonic()

    async def reached() -> bool:
        return any(json.loads(each)["number"] >= number for each in await peer.arrived())

    with suppress(AssertionError):
        await until(reached, "the peer goes on", 60)
        return time.monotonic() - started_s
    return None


async def _rest(peer: Peer) -> Counter[str]:
    """Return what has arrived once nothing more does."""
    last: Counter[str] = Counter()
    while not (now := await peer.arrived()) or now != last:
        last = now
        await asyncio.sleep(REST_S)
    return last


SCENARIOS = [
    Scenario("cut" if victim == "link" else "SIGKILL", victim, name, partial(run, start, victim), Expect.WHATEVER)
    for name, start, victims in (
        ("mosquitto bridge", partial(bridge, ""), ("bridge", "cloud broker", "link")),
        ("the same, best", partial(bridge, BEST + "max_queued_messages 0\n"), ("bridge", "cloud broker", "link")),
        ("Node-RED", node_red, ("Node-RED", "cloud broker", "link")),
        ("paho, auto-ack", paho, ("paho", "database")),
    )
    for victim in victims
]
