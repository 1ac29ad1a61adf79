"""One MQTT connection from its CONNECT to its loss: packets, identifiers, acknowledgements.

Of gmqtt this uses the connection: framing and packet building. Its ``Client`` is left out, because it
reconnects, replays and acknowledges by rules of its own.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import gmqtt
from gmqtt.mqtt.connection import MQTTConnection
from gmqtt.mqtt.constants import MQTTCommands, MQTTv311
from gmqtt.mqtt.package import Package
from gmqtt.mqtt.utils import ConnectionState

from meterway.bus.tls import explained
from meterway.core.errors import SetupError, TransientError

_log = logging.getLogger(__name__)

LIMIT_UNACKNOWLEDGED = 16_384
"""The most published messages that may wait for their PUBACK; MQTT has 65,535 packet identifiers."""

LIMIT_UNACKNOWLEDGED_BYTES = 64 << 20
"""The most published bytes that may wait for their PUBACK."""

LEAVE_WITHIN_S = 2.0
"""How long leaving waits for the PUBACKs of what was just published (a last status)."""

_LAST_IDENTIFIER = 65_535
_QOS_BITS = 0x06
_RETAIN_BIT = 0x01
_REFUSED_SUBSCRIPTION = 0x80
_PUBLISH_QOS_1 = 0x32
_PUBLISH_QOS_1_RETAIN = 0x33
_PUBACK = b"\x40\x02"
_CONNACK_BYTES = 2
_PINGREQ = b"\xc0\x00"
_REFUSALS = {
    1: "it does not speak MQTT 3.1.1",
    2: "it does not accept this client identifier",
    4: "user name or password is wrong; check username and password_file",
    5: "not authorised; check username and password_file",
}
_UNAVAILABLE = 3


class RefusedError(SetupError):
    """The broker refuses the log-in, or a subscription."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
        """Of the CONNACK (MQTT 3.1.1, 3.2.2.3), or 128 for a subscription."""


class _HungUpError(TransientError):
    """The broker closed the connection instead of an answer."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when a client is lost without a good-bye."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How a session introduces itself."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    """Left out: in the clear."""
    client_id: str
    username: str | None
    password: str | None
    clean_session: bool
    keep_alive_s: int
    will: Will | None


class Inbound:
    """A message that has arrived; see ``bus.Delivery``."""

    __slots__ = ("_identifier", "_session", "payload", "retained", "topic")

    def __init__(self, session: "Session", identifier: int, topic: str, payload: bytes, *, retained: bool) -> None:
        self._session = session
        self._identifier = identifier
        self.topic = topic
        self.payload = payload
        self.retained = retained

    def ack(self) -> None:
        if self._identifier:
            self._session.acknowledge(self._identifier)
            self._identifier = 0


class Session:
    """A connection and its packets. In gmqtt's terms it is package handler and id generator of one connection."""

    def __init__(self, login: Login, receive: Callable[[Inbound], None]) -> None:
        self._login = login
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._connection: MQTTConnection | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._lost = asyncio.Event()
        self._drained = asyncio.Event()
        self._last_identifier = 0
        self._unacknowledged: dict[int, tuple[int, Callable[[], None] | None]] = {}
        self._unacknowledged_bytes = 0
        self._out: list[bytes] = []
        self.left = False
        """Whether this side said good-bye."""
        self._packets: dict[int, Callable[[int, bytes], None]] = {
            MQTTCommands.PUBLISH: self._on_publish,
            MQTTCommands.PUBACK: self._on_puback,
            MQTTCommands.CONNACK: self._on_answer,
            MQTTCommands.SUBACK: self._on_answer,
            MQTTCommands.PINGRESP: self._on_pingresp,
            MQTTCommands.DISCONNECT: self._on_disconnect,
        }

    # What gmqtt's MQTTConnection asks of its package handler.

    @property
    def id_generator(self) -> "Session":
        return self

    @property
    def current_connection(self) -> MQTTConnection | None:
        return self._connection

    def set_connection(self, connection: MQTTConnection) -> None:
        self._connection = connection

    def next_id(self) -> int:
        """Return a packet identifier that is not in use; the bound on what is unacknowledged leaves enough."""
        identifier = self._last_identifier
        while True:
            identifier = identifier % _LAST_IDENTIFIER + 1
            if identifier not in self._unacknowledged:
                self._last_identifier = identifier
                return identifier

    def __call__(self, package: Package) -> None:
        """Take one packet from the broker. One that cannot be understood ends the connection."""
        try:
            self._packets[package.cmd & 0xF0](package.cmd, package.data)
        except Exception:  # noqa: BLE001 - gmqtt's read loop would die in silence
            _log.exception("! %s sent a packet 0x%02x that cannot be used", self._login.host, package.cmd)
            self.abort()
            self._no_answer(TransientError("it sent a packet that is no MQTT"))

    # What the bus does with a session.

    @property
    def unacknowledged(self) -> int:
        return len(self._unacknowledged)

    async def connect(self) -> None:
        """Connect and log in.

        Raises:
            OSError: nobody is there.
            TransientError: the broker is busy, hung up, or says what is no MQTT.
            RefusedError: the broker refuses the log-in.
            TlsError: only one side speaks TLS, or a certificate is not accepted.
        """
        login = self._login
        try:
            await self._connect(login)
        except (ssl.SSLError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError, _HungUpError) as error:
            why = await explained(login.host, login.port, error, over_tls=login.tls is not None)
            if why is None:
                raise
            raise why from error

    async def _connect(self, login: Login) -> None:
        connection = await MQTTConnection.create_connection(
            login.host,
            login.port,
            login.tls,
            login.clean_session,
            login.keep_alive_s,
            connection_state=ConnectionState(protocol_version=MQTTv311),
            package_handler=self,
        )
        connection._keep_connection_callback.cancel()  # noqa: SLF001 - wait_lost does it, and drops a dead link at once
        will = gmqtt.Message(login.will.topic, login.will.payload, qos=1, retain=True) if login.will else None
        username = login.username.encode() if login.username is not None else None
        password = login.password.encode() if login.password is not None else None
        self._answer = self._loop.create_future()
        await connection.auth(login.client_id, username, password, will_message=will)
        answer = await self._answer
        if len(answer) != _CONNACK_BYTES:
            raise TransientError("it answers the log-in with something else than a CONNACK")
        code = answer[1]
        if code == _UNAVAILABLE:
            raise TransientError("it says that it is not available")
        if code:
            raise RefusedError(f"refuses {login.client_id}: {_REFUSALS.get(code, f'reason {code}')}", code)

    async def subscribe(self, topic_filters: Mapping[str, int]) -> None:
        """Subscribe to the filters, each with its QoS.

        Raises:
            TransientError: the broker hung up, or says what is no MQTT.
            RefusedError: the broker refuses one of the filters.
        """
        if not topic_filters or self._connection is None:
            return
        self._answer = self._loop.create_future()
        self._connection.subscribe([gmqtt.Subscription(each, qos=qos) for each, qos in topic_filters.items()])
        codes = (await self._answer)[2:]
        if len(codes) != len(topic_filters):
            raise TransientError(f"it answers {len(codes)} of {len(topic_filters)} subscriptions")
        refused = [each for each, code in zip(topic_filters, codes, strict=True) if code == _REFUSED_SUBSCRIPTION]
        if refused:
            names = ", ".join(refused)
            raise RefusedError(
                f"refuses the subscription to {names}; give the user the right to read it", _REFUSED_SUBSCRIPTION
            )

    def publish(self, topic: str, payload: bytes, *, retain: bool, on_ack: Callable[[], None] | None) -> None:
        """Send with QoS 1.

        Raises:
            TransientError: too much is unacknowledged.
        """
        size = len(payload)
        if len(self._unacknowledged) >= LIMIT_UNACKNOWLEDGED or (
            self._unacknowledged_bytes + size > LIMIT_UNACKNOWLEDGED_BYTES
        ):
            raise TransientError(
                f"{len(self._unacknowledged)} messages with {self._unacknowledged_bytes} bytes wait for the broker"
            )
        identifier = self.next_id()
        self._unacknowledged[identifier] = (size, on_ack)
        self._unacknowledged_bytes += size
        name = topic.encode()
        head = bytes((_PUBLISH_QOS_1_RETAIN if retain else _PUBLISH_QOS_1,)) + variable_length(len(name) + size + 4)
        self._write(b"".join((head, len(name).to_bytes(2), name, identifier.to_bytes(2), payload)))

    def acknowledge(self, identifier: int) -> None:
        """Send the PUBACK of a message that arrived; nothing if the connection is gone."""
        if not self._lost.is_set():
            self._write(_PUBACK + identifier.to_bytes(2))

    async def wait_lost(self) -> str:
        """Return, when the connection has ended, why. Keeps it alive; gives up when the broker is silent too long."""
        while self._connection is not None:
            try:
                async with asyncio.timeout(self._login.keep_alive_s / 3):
                    await self._lost.wait()
            except TimeoutError:
                if time.monotonic() - self._connection._last_data_in > self._login.keep_alive_s:  # noqa: SLF001
                    return f"was silent for {self._login.keep_alive_s} s, as on a half-open connection"
                self._write(_PINGREQ)
            else:
                break
        return "closed the connection"

    async def drain(self) -> None:
        """Wait a moment for the PUBACKs of what was published."""
        if not self._unacknowledged or self._lost.is_set():
            return
        self._drained.clear()
        try:
            async with asyncio.timeout(LEAVE_WITHIN_S):
                await self._drained.wait()
        except TimeoutError:
            _log.warning("! %d messages were not acknowledged before leaving", len(self._unacknowledged))

    async def leave(self) -> None:
        """Say good-bye, so that the will is not published, and hang up."""
        if self._lost.is_set() or self._connection is None:
            return
        self.left = True
        self._flush()
        self._connection.send_disconnect()
        await self.close()

    async def close(self) -> None:
        """Close the connection, at once if it does not close by itself."""
        if self._connection is None or self._lost.is_set():
            return
        self._connection._transport.close()  # noqa: SLF001
        try:
            async with asyncio.timeout(1.0):
                await self._lost.wait()
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """Drop the connection at once; what is unacknowledged stays so."""
        self._lost.set()
        if self._connection is not None:
            self._connection._transport.abort()  # noqa: SLF001

    # Packets.

    def _on_publish(self, command: int, data: bytes) -> None:
        end = 2 + (data[0] << 8 | data[1])
        topic = data[2:end].decode(errors="replace")
        identifier = 0
        if command & _QOS_BITS:
            identifier = data[end] << 8 | data[end + 1]
            end += 2
        self._receive(Inbound(self, identifier, topic, data[end:], retained=bool(command & _RETAIN_BIT)))

    def _on_puback(self, _command: int, data: bytes) -> None:
        size, on_ack = self._unacknowledged.pop(data[0] << 8 | data[1], (0, None))
        self._unacknowledged_bytes -= size
        if not self._unacknowledged:
            self._drained.set()
        if on_ack is not None:
            on_ack()

    def _on_answer(self, _command: int, data: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(data)

    def _on_pingresp(self, _command: int, _data: bytes) -> None:
        """The connection has noted that the broker lives."""

    def _on_disconnect(self, _command: int, _data: bytes) -> None:
        """Note that gmqtt saw the connection end."""
        self._lost.set()
        hint = "; if it wants a certificate of this client, name certificate_file" if self._login.tls else ""
        self._no_answer(_HungUpError(f"it closed the connection{hint}"))

    def _no_answer(self, why: TransientError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(why)

    def _write(self, packet: bytes) -> None:
        """Collect what is written in one turn of the event loop: one system call for many packets."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packet)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and self._connection is not None and not self._lost.is_set():
            self._connection.send_package(b"".join(out))


def variable_length(value: int) -> bytes:
    """Return a length as MQTT writes it (MQTT 3.1.1, 2.2.3)."""
    encoded = bytearray()
    while value >= 0x80:  # noqa: PLR2004
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
