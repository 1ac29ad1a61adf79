"""What another program publishes over MQTT: raw telegrams, or JSON."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from meterway.adapter.config import MqttSource
from meterway.adapter.links.mailbox import Mailbox
from meterway.adapter.links.place import describe
from meterway.adapter.links.stream import CONNECT_TIMEOUT_S
from meterway.bus.bus import BrokerConfig, Delivery
from meterway.bus.mqtt import MqttBus
from meterway.core.errors import TransientError

LOST_AFTER_S = 10.0
"""The bus connects again by itself; away for so long, the broker is said to be."""
_LOOK_S = 1.0


@asynccontextmanager
async def open_mqtt(source: MqttSource, broker: BrokerConfig) -> AsyncIterator[Mailbox]:
    """Subscribe to a topic, at ``broker`` unless the source names its own.

    With QoS 0 and no session: a telegram that the broker kept while nobody listened would be stamped with the time at
    which it comes, and be wrong; what is lost meanwhile the meter says again.

    Raises:
        TransientError: the broker is away, or refuses the log-in or the topic.
    """
    mailbox = Mailbox(describe(source))
    wildcards = bool({"+", "#"} & set(source.topic.split("/")))

    def take(delivery: Delivery) -> None:
        if source.retained or not delivery.retained:
            mailbox.put(envelope(delivery.topic, delivery.payload) if wildcards else delivery.payload)
        delivery.ack()

    client_id = f"meterway-link-{secrets.token_hex(6)}"
    bus = MqttBus(source.broker or broker, client_id, at_most_once={source.topic: take}, clean_session=True)
    async with bus:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await bus.wait_connected()
        except TimeoutError:
            raise _lost(mailbox, bus) from None
        async with mailbox.filled_by(_watch(mailbox, bus)):
            yield mailbox


def envelope(topic: str, payload: bytes) -> bytes:
    """Return ``{"topic": ..., "payload": ...}``, UTF-8, as one line with its end.

    ``payload`` is the JSON that it is, each number with its digits; else a string. Bytes that are not UTF-8 are
    replaced: binary telegrams need a topic without wildcards.
    """
    text = payload.decode(errors="replace").encode()
    try:
        content = msgspec.json.format(text, indent=-1)
    except (msgspec.DecodeError, RecursionError):
        content = msgspec.json.encode(text.decode())
    return msgspec.json.encode({"topic": topic, "payload": msgspec.Raw(content)}) + b"\n"


async def _watch(mailbox: Mailbox, bus: MqttBus) -> None:
    """Raise once the broker has been away for long."""
    away_s = 0.0
    while away_s < LOST_AFTER_S:
        await asyncio.sleep(_LOOK_S)
        away_s = 0.0 if bus.connected else away_s + _LOOK_S
    raise _lost(mailbox, bus)


def _lost(mailbox: Mailbox, bus: MqttBus) -> TransientError:
    return TransientError(f"{mailbox.where} cannot be read: {bus.last_error or 'the broker does not answer'}")
