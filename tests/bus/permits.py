"""A broker with permissions, whichever it is: devices are put and revoked; and an attacker's own MQTT client."""

import asyncio
import dataclasses
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, Self

from meterway.bus.broker import EmbeddedBroker
from meterway.bus.bus import BrokerConfig, Delivery
from meterway.bus.directory import Device
from meterway.bus.dynsec import DynamicSecurity
from meterway.bus.mqtt import MqttBus, login
from meterway.bus.refusals import Refusal, parse_mosquitto
from meterway.bus.session import Inbound, Session, Will
from meterway.core.grants import CLOUD, COLLECTOR, OBSERVER, Grant
from meterway.durable_file import write_private
from support.brokers import RunningBroker, dynamic_security, running_mosquitto

IN_TIME_S = 60.0
_EVERYTHING = Grant(
    publish=tuple(each for grant in (CLOUD, COLLECTOR) for each in grant.publish), read=(*OBSERVER.read, "end/#")
)


class Site(Protocol):
    """A broker with permissions. ``cloud`` may read all that Meterway publishes, and send receipts."""

    kind: str
    cloud: BrokerConfig

    async def put(self, username: str, grant: Grant) -> BrokerConfig:
        """Let a device log in; return how."""

    async def revoke(self, username: str) -> None:
        """End its connections and let it in no more."""

    def refusals(self) -> list[Refusal]:
        """Return what was refused so far, as far as the broker says it."""


class Table:
    """A directory in memory."""

    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}

    def find(self, username: str) -> Device | None:
        return self.devices.get(username)


class NatsSite:
    """The embedded broker with a directory."""

    kind = "nats"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._refused: list[Refusal] = []
        self.table = Table()
        self.broker = EmbeddedBroker(folder / "broker", directory=self.table, on_refusal=self._refused.append)

    async def __aenter__(self) -> Self:
        await self.broker.__aenter__()
        self.cloud = self.broker.config()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.broker.__aexit__(None, None, None)

    async def put(self, username: str, grant: Grant) -> BrokerConfig:
        password_file = self._folder / f"{username}.password"
        password = secrets.token_urlsafe(32)
        write_private(password_file, password)
        self.table.devices[username] = Device(username, hashlib.sha256(password.encode()).digest(), grant)
        return BrokerConfig(url=self.cloud.url, username=username, password_file=password_file)

    async def revoke(self, username: str) -> None:
        self.table.devices[username] = dataclasses.replace(self.table.devices[username], revoked=True)
        assert self.broker.callout is not None
        await self.broker.callout.end(username)

    def refusals(self) -> list[Refusal]:
        return self._refused


class MosquittoSite:
    """Debian's mosquitto with its dynamic-security plugin."""

    kind = "mosquitto"

    def __init__(self, folder: Path, broker: RunningBroker) -> None:
        self._folder = folder
        self._broker = broker
        self._security = DynamicSecurity(self._config("admin"))

    async def __aenter__(self) -> Self:
        await self._security.__aenter__()
        self.cloud = await self.put("cloud", _EVERYTHING)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._security.__aexit__(None, None, None)

    async def put(self, username: str, grant: Grant) -> BrokerConfig:
        password = secrets.token_urlsafe(32)
        write_private(self._folder / f"{username}.password", password)
        await self._security.put(username, grant, password=password)
        return self._config(username)

    async def revoke(self, username: str) -> None:
        await self._security.revoke(username)

    def refusals(self) -> list[Refusal]:
        return [refusal for line in self._broker.log.splitlines() if (refusal := parse_mosquitto(line)) is not None]

    def _config(self, username: str) -> BrokerConfig:
        return BrokerConfig(
            url=self._broker.url, username=username, password_file=self._folder / f"{username}.password"
        )


@asynccontextmanager
async def running_site(kind: str, folder: Path) -> AsyncIterator[Site]:
    """Run a broker in which nobody may do anything yet but the cloud."""
    folder.mkdir()
    if kind == "nats":
        async with NatsSite(folder) as site:
            yield site
        return
    extra = f"{dynamic_security(folder)}log_type all\nlog_dest stderr\n"
    # With 0, mosquitto 2.0.11 drops who publishes what is refused, and there would be no refusal to see.
    extra += "message_size_limit 1200000\nmax_queued_messages 100000"
    with running_mosquitto(folder / "mosquitto", extra=extra) as broker:
        async with MosquittoSite(folder, broker) as site:
            yield site


class Client:
    """An MQTT client without manners: any client id, any topic; it keeps what it is sent."""

    def __init__(
        self,
        config: BrokerConfig,
        client_id: str | None = None,
        *,
        will: Will | None = None,
        password: str | None = None,
        username: str | None = None,
    ) -> None:
        proper = login(config, client_id or "client", clean_session=True, will=will)
        if client_id is not None:
            proper = dataclasses.replace(proper, client_id=client_id)
        if password is not None:
            proper = dataclasses.replace(proper, password=password)
        if username is not None:
            proper = dataclasses.replace(proper, username=username)
        self.login = proper
        self.got: list[tuple[str, bytes]] = []
        self._session = Session(proper, self._take)

    async def __aenter__(self) -> Self:
        """Log in.

        Raises:
            RefusedError: the broker does not let it.
        """
        try:
            async with asyncio.timeout(IN_TIME_S):
                await self._session.connect()
        except BaseException:
            self._session.abort()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.leave()
        self._session.abort()

    async def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        """Subscribe.

        Raises:
            RefusedError: the broker does not let it.
        """
        async with asyncio.timeout(IN_TIME_S):
            await self._session.subscribe({topic_filter: qos})

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish, and wait for the acknowledgement."""
        acknowledged = asyncio.Event()
        self._session.publish(topic, payload, retain=retain, on_ack=acknowledged.set)
        async with asyncio.timeout(IN_TIME_S):
            await acknowledged.wait()

    def shout(self, topic: str, payload: bytes) -> None:
        """Publish without waiting."""
        self._session.publish(topic, payload, retain=False, on_ack=None)

    def die(self) -> None:
        """Lose the connection without a good-bye, so that the will is published."""
        self._session.abort()

    async def ended(self) -> str:
        """Return when the broker has ended the connection."""
        async with asyncio.timeout(IN_TIME_S):
            return await self._session.wait_lost()

    @property
    def connected(self) -> bool:
        return not self._session._lost.is_set()

    def _take(self, inbound: Inbound) -> None:
        self.got.append((inbound.topic, inbound.payload))
        inbound.ack()


class Witness:
    """Sees all that the cloud may read, retained messages too."""

    def __init__(self, config: BrokerConfig) -> None:
        self.seen: list[tuple[str, bytes]] = []
        self._came = asyncio.Event()
        self._bus = MqttBus(config, "witness", dict.fromkeys(OBSERVER.read, self._take), clean_session=True)

    async def __aenter__(self) -> Self:
        await self._bus.__aenter__()
        async with asyncio.timeout(IN_TIME_S):
            await self._bus.wait_connected()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._bus.__aexit__(None, None, None)

    async def wait_for(self, topic: str, payload: bytes) -> None:
        """Return when it has been seen."""
        await self.wait_until(lambda: (topic, payload) in self.seen)

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(IN_TIME_S):
            while not condition():
                self._came.clear()
                await self._came.wait()

    def _take(self, delivery: Delivery) -> None:
        self.seen.append((delivery.topic, delivery.payload))
        self._came.set()
        delivery.ack()


async def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds."""
    async with asyncio.timeout(IN_TIME_S):
        while not condition():
            await asyncio.sleep(0.01)


def described(refusals: list[Refusal]) -> str:
    """Return them so that a failed test shows them."""
    return json.dumps([dataclasses.asdict(refusal) for refusal in refusals], indent=1)
