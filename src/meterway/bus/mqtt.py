"""The Bus over MQTT 3.1.1, the same on NATS, mosquitto and every other broker.

- A message is acknowledged when the handler says so (after a commit), not when it arrives.
- The session is persistent and the client id fixed: what was not acknowledged, the broker delivers again (mosquitto
  at the next connection; NATS after its ``ack_wait``, also on the same connection). Handlers must not mind.
- Where there is nothing to deliver again (``clean_session``), the client id of a user with a password is the user's
  name, a colon, the id and a secret made of the password: nobody else may use it where the broker knows
  ``core.grants``, and nobody else can guess it where it does not. It is the same after a restart, so that the broker
  drops the dead connection, and publishes its will, before the new one says anything.
- Nothing published is kept for a reconnect: the spool has it.
- A connection that breaks is made anew, with exponential back-off and jitter, for ever, and subscribes again; so
  retained messages come again too.
"""

import asyncio
import hashlib
import hmac
import logging
import random
import secrets
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from meterway.bus.bus import BrokerConfig, Handler
from meterway.bus.filters import check_topic, matches
from meterway.bus.session import Inbound, Login, Session, Will
from meterway.bus.tls import client_context
from meterway.core.errors import BadDataError, MeterwayError, SetupError, TransientError
from meterway.core.hosts import is_loopback
from meterway.secret_store import read_secret

__all__ = ["LIMIT_PAYLOAD_BYTES", "MqttBus", "Will", "answers", "broker_address"]

_log = logging.getLogger(__name__)

LIMIT_PAYLOAD_BYTES = 1 << 20
"""The largest payload that is published: NATS drops a client that sends more than its ``max_payload``, 1 MiB."""

KEEP_ALIVE_S = 20
"""A link on which nothing moves is noticed after this time and a third more."""

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
ANSWER_WITHIN_S = 10.0
"""How long a broker may take for connection, CONNACK and SUBACK together."""

_CLIENT_ID_SECRET_BYTES = 8
_PORTS = {"mqtt": 1883, "mqtts": 8883}


class MqttBus:
    """One logical connection with a persistent session; see ``bus.Bus``. Owns its task: use ``async with``.

    ``subscriptions`` maps topic filters to handlers; the topic itself, else the first filter that matches, takes a
    message. Those in ``at_most_once`` are subscribed with QoS 0, for what does no harm when it is lost (receipts): it
    costs the broker nothing, and NATS allows only a few QoS 1 subscriptions a session. A handler that raises is logged
    and counted (``handler_errors``), its message stays unacknowledged and so comes again; the connection goes on. A
    message that no filter matches (left in the session by an older configuration) is
    acknowledged and counted (``unhandled``).

    A log-in or subscription that is refused is logged once and kept in ``last_error``; trying goes on, at the
    longest delay, because a person may mend it at the broker's side.

    Leaving waits up to two seconds for outstanding PUBACKs, so a last status published just before arrives; the
    will is then not published. A bus that was left may be entered again.
    """

    def __init__(
        self,
        config: BrokerConfig,
        client_id: str,
        subscriptions: Mapping[str, Handler] | None = None,
        will: Will | None = None,
        *,
        keep_alive_s: int = KEEP_ALIVE_S,
        at_most_once: Mapping[str, Handler] | None = None,
        clean_session: bool = False,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._config = config
        self._host, self._port = broker_address(config)
        self._client_id = client_id
        self._subscriptions = {**(subscriptions or {}), **(at_most_once or {})}
        self._qos = {**dict.fromkeys(subscriptions or {}, 1), **dict.fromkeys(at_most_once or {}, 0)}
        self._will = will
        self._keep_alive_s = keep_alive_s
        self._clean_session = clean_session
        self._jitter = jitter
        self._route = lru_cache(maxsize=4096)(self._find_handler)
        self._connected = asyncio.Event()
        self._on_connect: list[Callable[[], None]] = []
        self._session: Session | None = None
        self._task: asyncio.Task[None] | None = None
        self.last_error: str | None = None
        """Why there is no connection, as a sentence; None while there is one."""
        self.handler_errors = 0
        self.unhandled = 0
        self.connections = 0
        """How many connections were made, so that a reader sees reconnects."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"meterway.bus.{self._client_id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None and self.connected:
            session = self._session
            await session.drain()
            self._connected.clear()
            await session.leave()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    @property
    def connected(self) -> bool:
        return self._connected.is_set()

    @property
    def unacknowledged(self) -> int:
        """How many published messages wait for their PUBACK."""
        return self._session.unacknowledged if self._session else 0

    async def wait_connected(self) -> None:
        await self._connected.wait()

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, on_ack: Callable[[], None] | None = None
    ) -> None:
        """Send with QoS 1, as ``bus.Bus`` says.

        Raises:
            BadDataError: no broker would take this topic or payload; trying again does not help.
            TransientError: not connected, or too many messages or bytes are unacknowledged (see ``session``).
        """
        check_topic(topic)
        if len(payload) > LIMIT_PAYLOAD_BYTES:
            raise BadDataError(
                f"payload of {len(payload)} bytes for {topic} is over the {LIMIT_PAYLOAD_BYTES} that brokers take",
                reason="too-long",
            )
        if self._session is None or not self._connected.is_set():
            raise TransientError(self.last_error or f"{self._where} is not connected yet")
        self._session.publish(topic, payload, retain=retain, on_ack=on_ack)

    def on_connect(self, callback: Callable[[], None]) -> None:
        self._on_connect.append(callback)
        if self.connected:
            callback()

    @property
    def _where(self) -> str:
        return f"broker {self._host}:{self._port}"

    async def _run(self) -> None:
        delay_s = FIRST_DELAY_S
        while True:
            connections = self.connections
            try:
                await self._connect_once()
            except (OSError, TransientError) as error:
                self._report(f"{self._where} cannot be reached: {str(error) or type(error).__name__}", logging.WARNING)
            except SetupError as error:
                self._report(f"{self._where} {error}", logging.ERROR)
                delay_s = LONGEST_DELAY_S
            if self.connections > connections:
                delay_s = FIRST_DELAY_S
            await asyncio.sleep(delay_s * (0.5 + self._jitter() / 2))
            delay_s = min(delay_s * 2, LONGEST_DELAY_S)

    async def _connect_once(self) -> None:
        """Make one connection and stay until it is lost.

        Raises:
            OSError, TransientError, SetupError: as ``Session.connect`` and ``Session.subscribe``.
        """
        session = Session(self._login(), self._receive)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await session.connect()
                await session.subscribe(self._qos)
            self._session = session
            self.connections += 1
            self.last_error = None
            _log.info("%s took %s", self._where, self._client_id)
            self._connected.set()
            for callback in self._on_connect:
                callback()
            reason = await session.wait_lost()
            if not session.left:
                self._report(f"{self._where} {reason}", logging.WARNING)
        finally:
            self._connected.clear()
            self._session = None
            session.abort()

    def _login(self) -> Login:
        return login(
            self._config,
            self._client_id,
            clean_session=self._clean_session,
            keep_alive_s=self._keep_alive_s,
            will=self._will,
        )

    def _report(self, sentence: str, level: int) -> None:
        """Log a reason once for as long as it stays the same."""
        if sentence != self.last_error:
            _log.log(level, "! %s", sentence)
        self.last_error = sentence

    def _receive(self, inbound: Inbound) -> None:
        handler = self._route(inbound.topic)
        if handler is None:
            self.unhandled += 1
            inbound.ack()
            return
        try:
            handler(inbound)
        except Exception:  # noqa: BLE001 - whatever a handler does, the connection goes on
            self.handler_errors += 1
            _log.exception("! the handler failed on %s; it stays unacknowledged", inbound.topic)

    def _find_handler(self, topic: str) -> Handler | None:
        exact = self._subscriptions.get(topic)  # an adapter has one for each of hundreds of meters
        if exact is not None:
            return exact
        return next((handler for each, handler in self._subscriptions.items() if matches(each, topic)), None)


async def answers(config: BrokerConfig) -> bool:
    """Tell whether a broker is there, speaks MQTT and takes the log-in; within a few seconds."""
    try:
        session = Session(login(config, f"meterway-probe-{secrets.token_hex(8)}", clean_session=True), Inbound.ack)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await session.connect()
            await session.leave()
        finally:
            session.abort()
    except (OSError, MeterwayError):
        return False
    return True


def login(
    config: BrokerConfig,
    client_id: str,
    *,
    clean_session: bool = False,
    keep_alive_s: int = KEEP_ALIVE_S,
    will: Will | None = None,
) -> Login:
    """Return how to log in now; the password file is read each time, so that it can be changed.

    Raises:
        SetupError: as ``broker_address``; or a file that is named cannot be read.
    """
    scheme, host, port = _scheme_and_address(config)
    password = None
    if config.password_file is not None:
        try:
            password = read_secret(config.password_file).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SetupError(f"needs {config.password_file}, which cannot be read: {error}") from error
    return Login(
        host=host,
        port=port,
        tls=client_context(config) if scheme == "mqtts" else None,
        client_id=_own_client_id(client_id, config.username, password) if clean_session else client_id,
        username=config.username,
        password=password,
        clean_session=clean_session,
        keep_alive_s=keep_alive_s,
        will=will,
    )


@lru_cache(maxsize=1024)
def _own_client_id(client_id: str, username: str | None, password: str | None) -> str:
    if not username or not password:
        return client_id
    secret = hmac.digest(_client_id_key(username, password), client_id.encode(), "sha256")[:_CLIENT_ID_SECRET_BYTES]
    return f"{username}:{client_id}-{secret.hex()}"


@lru_cache(maxsize=16)
def _client_id_key(username: str, password: str) -> bytes:
    """Return a key from which a password that a person chose cannot be guessed by who reads client ids in a log."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), f"meterway client id {username}".encode(), 100_000)


def broker_address(config: BrokerConfig) -> tuple[str, int]:
    """Return host and port of ``mqtts://host:port``.

    Raises:
        SetupError: the URL has another form, or would go to another machine without TLS.
    """
    _, host, port = _scheme_and_address(config)
    return host, port


def _scheme_and_address(config: BrokerConfig) -> tuple[str, str, int]:
    try:
        parts = urlsplit(config.url)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise SetupError(f"broker URL {config.url!r} is not mqtts://host:port: {error}") from error
    if parts.scheme not in _PORTS or not host or parts.username is not None or parts.path.strip("/"):
        raise SetupError(
            f"broker URL {config.url!r} is not mqtts://host:port; name and password stand in username and password_file"
        )
    if parts.scheme == "mqtt" and not (config.plaintext or is_loopback(host)):
        raise SetupError(
            f"broker URL {config.url!r} goes to another machine without TLS: write mqtts://, and its authority's "
            "certificate in ca_file; or say plaintext = true beside it, if nobody else is on the way"
        )
    return parts.scheme, host, port
