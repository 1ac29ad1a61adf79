"""Why a broker refuses a message, asked with MQTT 5.

MQTT 3.1.1, which everything else here speaks, acknowledges a refused publish like any other; MQTT 5 says the reason.
So one message is sent again, on a connection of its own without a session: no other is slowed down by the few
unacknowledged messages that a broker allows with MQTT 5 (mosquitto: 20), and nothing of delivery changes.
"""

import asyncio
from asyncio import StreamReader
from typing import Final

from meterway.bus.session import Login, variable_length

WITHIN_S: Final = 10.0
"""How long a broker may take for all of it."""
FIRST_REFUSAL: Final = 0x80
"""Smaller reason codes are successes (MQTT 5, 2.4)."""
NOT_AUTHORISED: Final = 0x87
TOO_LARGE: Final = 0x95
QUOTA_EXCEEDED: Final = 0x97
REASONS: Final = {
    0x80: "an error it does not specify",
    0x83: "a rule of its own",
    NOT_AUTHORISED: "not authorised",
    0x90: "invalid topic name",
    TOO_LARGE: "packet too large",
    0x96: "message rate too high",
    QUOTA_EXCEEDED: "quota exceeded",
    0x98: "administrative action",
    0x99: "invalid payload format",
    0x9B: "it does not support QoS 1",
}
"""What a PUBACK or DISCONNECT may give as reason against a message (MQTT 5, 3.4.2.1, 3.14.2.1)."""

_CONNACK, _PUBACK, _DISCONNECT = 0x20, 0x40, 0xE0
_CONNECT: Final = b"\x10"
_PUBLISH_QOS_1: Final = b"\x32"
_LEAVE: Final = b"\xe0\x00"
_MQTT_5: Final = b"\x00\x04MQTT\x05"
_CLEAN_START, _PASSWORD, _USERNAME = 0x02, 0x40, 0x80
_NO_PROPERTIES: Final = b"\x00"
_IDENTIFIER: Final = b"\x00\x01"
_CONNACK_BYTES: Final = 3
_PUBACK_BYTES_WITHOUT_REASON: Final = 2
_MAXIMUM_PACKET_SIZE, _USER_PROPERTY = 0x27, 0x26
_SIZES: Final = {0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x28: 1, 0x29: 1, 0x2A: 1}
"""Bytes of the other properties of a CONNACK that are numbers; all else are texts."""
_NO_LIMIT_BYTES: Final = 1 << 28
_LIMIT_PACKET_BYTES: Final = 1 << 16


async def reason_of(login: Login, topic: str, payload: bytes) -> int | None:
    """Publish, with QoS 1 and not retained; return the reason code of MQTT 5 with which the broker answers.

    None: it does not say; it speaks no MQTT 5 (nats-server; RabbitMQ before 3.13), does not let us in, or is away.
    A message over the maximum packet size that it names is not sent; that is ``TOO_LARGE``.
    """
    try:
        async with asyncio.timeout(WITHIN_S):
            reader, writer = await asyncio.open_connection(login.host, login.port, ssl=login.tls)
            try:
                writer.write(_connect(login))
                kind, body = await _packet(reader)
                if kind != _CONNACK or len(body) < _CONNACK_BYTES or body[1]:
                    return None
                packet = _publish(topic, payload)
                if len(packet) > _largest(body[2:]):
                    return TOO_LARGE
                writer.write(packet)
                while kind not in (_PUBACK, _DISCONNECT):
                    kind, body = await _packet(reader)
                writer.write(_LEAVE)
                await writer.drain()
            finally:
                writer.transport.abort()
    except (OSError, EOFError, ValueError):
        return None
    if kind == _DISCONNECT:
        return body[0] if body else None
    return body[2] if len(body) > _PUBACK_BYTES_WITHOUT_REASON else 0


async def _packet(reader: StreamReader) -> tuple[int, bytes]:
    """Return kind and body of the next packet.

    Raises:
        EOFError, OSError: the broker hung up.
        ValueError: it sends more than anything that was asked for.
    """
    kind = (await reader.readexactly(1))[0] & 0xF0
    length, shift, more = 0, 0, True
    while more:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << shift
        shift, more = shift + 7, byte >= 0x80  # noqa: PLR2004
        if length > _LIMIT_PACKET_BYTES or shift > 28:  # noqa: PLR2004
            raise ValueError("a packet that is too long")
    return kind, await reader.readexactly(length)


def _largest(properties: bytes) -> int:
    """Return the maximum packet size among the properties of a CONNACK (MQTT 5, 3.2.2.3), in bytes."""
    at = next((at for at, byte in enumerate(properties) if byte < 0x80), 0) + 1  # noqa: PLR2004 - the end of their length
    while at < len(properties):
        kind, at = properties[at], at + 1
        if kind == _MAXIMUM_PACKET_SIZE:
            return int.from_bytes(properties[at : at + 4])
        texts = 0 if kind in _SIZES else 2 if kind == _USER_PROPERTY else 1
        at += _SIZES.get(kind, 0)
        for _ in range(texts):
            at += 2 + int.from_bytes(properties[at : at + 2])
    return _NO_LIMIT_BYTES


def _connect(login: Login) -> bytes:
    flags = _CLEAN_START
    texts = [login.client_id]
    if login.username is not None:
        flags |= _USERNAME
        texts.append(login.username)
    if login.password is not None:
        flags |= _PASSWORD
        texts.append(login.password)
    head = _MQTT_5 + bytes((flags,)) + login.keep_alive_s.to_bytes(2) + _NO_PROPERTIES
    return _framed(_CONNECT, head + b"".join(map(_text, texts)))


def _publish(topic: str, payload: bytes) -> bytes:
    return _framed(_PUBLISH_QOS_1, _text(topic) + _IDENTIFIER + _NO_PROPERTIES + payload)


def _framed(head: bytes, body: bytes) -> bytes:
    return head + variable_length(len(body)) + body


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2) + data
