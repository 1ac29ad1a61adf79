"""The platform as others meet it: commands as real processes, foreign MQTT clients, the HTTP interface."""

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import msgspec
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from meterway.adapter.config import ChannelConfig, MeterConfig, TcpSource
from meterway.bus.bus import BrokerConfig
from meterway.cloud.config import CloudConfig, DatabaseConfig, HttpConfig
from meterway.core.config import dump_config
from support.brokers import free_port
from support.postgres import Server, create_database, drop_database

COMMAND = [sys.executable, "-m", "meterway"]
_WITH_US = ["setpriv", "--pdeathsig", "KILL", "--"]
"""Ends a process with the test run that started it, even when that is killed."""
IN_TIME_S = 60.0
_LOOK_S = 0.05


def wait_for(condition: Callable[[], bool], what: str, *, within_s: float = IN_TIME_S) -> None:
    """Wait until ``condition`` holds; a test that waits in vain fails with ``what``."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:.0f} s: {what}")
        time.sleep(_LOOK_S)


class Process:
    """A ``meterway`` command that runs; what it says goes to files."""

    def __init__(self, folder: Path, name: str, command: Sequence[str]) -> None:
        self.name = name
        folder.mkdir(parents=True, exist_ok=True)
        self._out, self._err = folder / f"{name}.out", folder / f"{name}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen([*_WITH_US, *command], stdout=out, stderr=err, start_new_session=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def wait_ready(self) -> dict[str, Any]:
        """Return the object that the command printed when it was ready."""

        def said() -> bool:
            assert self.running, f"{self.name} ended:\n{self.err[-3000:]}"
            return '"ready"' in self.out and self.out.endswith("\n")

        wait_for(said, f"{self.name} is ready")
        return next(message for message in map(json.loads, self.out.splitlines()) if message.get("ready"))

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, within_s: float = IN_TIME_S) -> int:
        """Return the exit code."""
        return self._process.wait(within_s)

    def stop(self) -> int:
        """End it as an operator would; return the exit code."""
        if self.running:
            self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait(IN_TIME_S)


@contextmanager
def running(folder: Path, name: str, *arguments: str, command: Sequence[str] = COMMAND) -> Iterator[Process]:
    """Run ``meterway [arguments]`` until the block ends."""
    process = Process(folder, name, [*command, *arguments])
    try:
        yield process
    finally:
        if process.running:
            with suppress(subprocess.TimeoutExpired):
                process.stop()
        process.kill()


@contextmanager
def component(folder: Path, name: str, config: msgspec.Struct) -> Iterator[Process]:
    """Run ``meterway [name]`` with ``config``, from ready on until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text(dump_config(config))
    with running(folder, name, name, "--config", str(path), "--json") as process:
        process.wait_ready()
        yield process


@contextmanager
def virtual_meters(folder: Path, *arguments: str) -> Iterator[list[dict[str, Any]]]:
    """Run virtual meters on TCP; yields what they offer."""
    with running(folder, "meters", "meter", "virtual", "--json", "--tcp", "0", *arguments) as process:
        yield process.wait_ready()["meters"]


def meter_configs(offers: list[dict[str, Any]]) -> tuple[MeterConfig, ...]:
    """Return how an adapter reads virtual meters."""
    return tuple(
        MeterConfig(
            id=offer["meter_id"],
            family=f"{offer['kind']}-generic",
            source=TcpSource(host=offer["source"]["host"], port=offer["source"]["port"]),
            timezone="Europe/Vienna",
            channels=tuple(ChannelConfig(channel=each["channel"], id=each["meter_id"]) for each in offer["channels"]),
        )
        for offer in offers
    )


@contextmanager
def running_cloud(folder: Path, broker: BrokerConfig, server: Server) -> Iterator["Api"]:
    """Run ``meterway cloud`` on a database of its own; yields its interface."""
    dsn = asyncio.run(create_database(server))
    folder.mkdir(parents=True, exist_ok=True)
    dsn_file = folder / "dsn"
    dsn_file.write_text(dsn)
    port = free_port()
    config = CloudConfig(
        broker=broker, database=DatabaseConfig(dsn_file=dsn_file), http=HttpConfig(port=port, open=True)
    )
    try:
        with component(folder, "cloud", config) as process:
            yield Api(f"http://127.0.0.1:{port}", process)
    finally:
        asyncio.run(drop_database(server, dsn))


def descendants(pid: int) -> dict[int, str]:
    """Return the processes that live below ``pid``, with their command lines."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    parents[int(entry.name)] = int(parent)
    found, pending = {}, [pid]
    while pending:
        above = pending.pop()
        for child in [child for child, parent in parents.items() if parent == above]:
            pending.append(child)
            with suppress(OSError):
                found[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def alive(pids: Iterable[int]) -> set[int]:
    """Return those of ``pids`` that still run (a zombie does not)."""
    found = set()
    for pid in pids:
        with suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.add(pid)
    return found


def is_open(port: int) -> bool:
    """Tell whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class MqttClient:
    """A client that is not ours (Eclipse Paho), QoS 1; keeps what it sees."""

    def __init__(self, broker: BrokerConfig, *filters: str, password: str | None = None) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self._filters = filters
        self._address = urlsplit(broker.url)
        self._subscribed = 0
        self._client = PahoClient(CallbackAPIVersion.VERSION2, client_id=f"foreign-{secrets.token_hex(6)}")
        if broker.username:
            said = broker.password_file.read_text().strip() if broker.password_file else password
            self._client.username_pw_set(broker.username, said)
        self._client.on_message = self._see
        self._client.on_subscribe = self._count

    def __enter__(self) -> Self:
        self._client.connect(self._address.hostname or "", self._address.port or 1883)
        self._client.loop_start()
        wait_for(self._client.is_connected, "the foreign client is connected")
        for each in self._filters:
            self._client.subscribe(each, qos=1)
        wait_for(lambda: self._subscribed == len(self._filters), "the foreign client is subscribed")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish, and wait for the broker's acknowledgement."""
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(IN_TIME_S)

    def on(self, ending: str) -> list[bytes]:
        """Return the payloads of the topics with that ending."""
        return [payload for topic, payload in list(self.messages) if topic.endswith(ending)]

    def _see(self, _client: PahoClient, _userdata: object, message: MQTTMessage) -> None:
        self.messages.append((message.topic, bytes(message.payload)))

    def _count(self, *_: object) -> None:
        self._subscribed += 1


class Api:
    """The HTTP interface of the cloud, as a user calls it. Numbers come as Decimal, with their digits."""

    def __init__(self, url: str, process: Process | None = None) -> None:
        self.url = url.rstrip("/")
        self.process = process

    def get(self, path: str) -> Any:
        """Return the answer, which must be a success."""
        answer = httpx.get(f"{self.url}{path}", timeout=IN_TIME_S)
        assert answer.status_code == 200, answer.text
        return json.loads(answer.text, parse_float=Decimal)

    def query(self, **query: object) -> list[dict[str, Any]]:
        """Return the readings that ``POST /v1/meterReadings`` answers."""
        answer = httpx.post(f"{self.url}/v1/meterReadings", json=query, timeout=IN_TIME_S)
        assert answer.status_code == 200, answer.text
        content: list[dict[str, Any]] = json.loads(answer.text, parse_float=Decimal)["content"]
        return content

    def all_readings(self, meter_ids: Iterable[str] = ()) -> list[dict[str, Any]]:
        """Return every stored reading, of these meters or of all."""
        answer = httpx.get(
            f"{self.url}/v1/meterReadings/bulk",
            params={"format": "ndjson", **({"meterIds": list(meter_ids)} if meter_ids else {})},
            timeout=IN_TIME_S,
        )
        assert answer.status_code == 200, answer.text
        return [json.loads(line, parse_float=Decimal) for line in answer.text.splitlines()]

    def kept_aside(self, kind: str) -> list[dict[str, Any]]:
        """Return the newest of ``quarantine``, ``faults`` or ``conflicts``."""
        content: list[dict[str, Any]] = self.get(f"/v1/{kind}?limit=500")["content"]
        return content

    def counters(self) -> dict[str, float]:
        """Return the metrics that have no labels."""
        text = httpx.get(f"{self.url}/metrics", timeout=IN_TIME_S).text
        lines = [line.split() for line in text.splitlines() if not line.startswith("#") and "{" not in line]
        return {name: float(value) for name, value in lines}
