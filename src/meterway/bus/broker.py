"""The embedded broker: nats-server with MQTT and JetStream on disk, supervised, on loopback only.

What lies in its directory (made with mode 0700):

    port                    the MQTT port, so that clients find the broker again after a restart
    meterway.password       for adapters, concentrator and cloud: may do everything (mode 0600)
    observer.password       for people who watch: may subscribe, never publish (mode 0600)
    nats.conf               written at each start (mode 0600, it holds both passwords)
    store/                  messages, sessions, retained messages
    lock                    held while it runs
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

from meterway.bus.bus import BrokerConfig, EmbeddedBrokerConfig
from meterway.bus.mqtt import answers
from meterway.core.errors import SetupError
from meterway.durable_file import write_private
from meterway.process import ChildProcess, Command

User = Literal["meterway", "observer"]

ACK_WAIT_S = 10.0
"""After this NATS delivers again what was not acknowledged; a commit takes milliseconds."""

MAX_ACK_PENDING = 4096
"""How much one subscription may have unacknowledged. All subscriptions of a session share 65,535 packet identifiers
and NATS refuses one too many: a session may have 15 filters, where one that ends in ``#`` counts twice."""

LIMIT_STORE_BYTES = 8 << 30
"""The most that is kept on disk; beyond it the broker acknowledges nothing more and the senders' spools fill."""

CHECK_EVERY_S = 5.0
LOCK_WITHIN_S = 3.0
_LOCK_EVERY_S = 0.02

_REBUILT = ("will rebuild", "Recovering stream state from index")
"""What nats-server says at the start after a kill: it reads its files anew and loses nothing by it."""

_OBSERVED = ("smartMeterMessage", "concentrator", "receipt")
"""First levels of the topics that an observer may read; in NATS ``a`` and ``a.>`` together are MQTT's ``a/#``."""


class EmbeddedBroker:
    """A nats-server that runs as long as the ``async with``; it is watched, and started again when it dies.

    It ends when the process that owns it is killed. Port, passwords and messages survive. ``port = 0`` takes the
    port of last time, or at first a free one.

    ``sync_always`` makes an acknowledged message survive a power cut at once, at 3,000 to 4,000 messages a second;
    without it NATS flushes every two minutes, which is enough where receipts make every hop whole.
    """

    def __init__(
        self, data_dir: Path, *, port: int = 0, ack_wait_s: float = ACK_WAIT_S, sync_always: bool = False
    ) -> None:
        self._data_dir = data_dir.resolve()
        self._wanted_port = port
        self._ack_wait_s = ack_wait_s
        self._sync_always = sync_always
        self._stack = AsyncExitStack()
        self._process: ChildProcess | None = None
        self.port = port
        """The MQTT port; valid once entered."""

    async def __aenter__(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            SetupError: nats-server is not installed; the port belongs to another program; the directory is in use.
        """
        binary = find_nats_server()
        async with AsyncExitStack() as stack:
            lock = await stack.enter_async_context(_locked(self._data_dir))
            self._write_files()
            command = Command(
                name="broker",
                arguments=[binary, "-c", self._data_dir / "nats.conf"],
                probe=self._answers,
                check_every_s=CHECK_EVERY_S,
                level=_level,
                kept_open=[lock],
            )
            self._process = await stack.enter_async_context(ChildProcess(command))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def restarts(self) -> int:
        """How often it had to be started again."""
        return self._process.restarts if self._process else 0

    def config(self, user: User = "meterway") -> BrokerConfig:
        """Return how ``user`` reaches the broker; valid once entered."""
        return BrokerConfig(
            url=f"mqtt://127.0.0.1:{self.port}", username=user, password_file=self._data_dir / f"{user}.password"
        )

    async def _answers(self) -> bool:
        return await answers(self.config())

    def _write_files(self) -> None:
        """Write what nats-server reads, and what clients need."""
        self.port = _choose_port(self._wanted_port, self._data_dir / "port")
        write_private(self._data_dir / "port", f"{self.port}\n")
        passwords: dict[User, str] = {
            "meterway": _password(self._data_dir / "meterway.password"),
            "observer": _password(self._data_dir / "observer.password"),
        }
        write_private(
            self._data_dir / "nats.conf",
            nats_config(
                port=self.port,
                store_dir=self._data_dir / "store",
                ack_wait_s=self._ack_wait_s,
                sync_always=self._sync_always,
                passwords=passwords,
            ),
        )


def embedded_broker(config: EmbeddedBrokerConfig) -> EmbeddedBroker:
    """Return the broker that ``config`` describes."""
    return EmbeddedBroker(config.data_dir, port=config.port, sync_always=config.sync_always)


def nats_config(
    *,
    port: int,
    store_dir: Path,
    ack_wait_s: float = ACK_WAIT_S,
    sync_always: bool = False,
    passwords: dict[User, str] | None = None,
) -> str:
    """Return a configuration of nats-server; without ``passwords`` anybody on this machine may do everything."""
    return f"""\
server_name: meterway
listen: "127.0.0.1:-1"
max_payload: 2MB  # ours is 1 MiB of payload; NATS counts headers of its own to it
jetstream {{
    store_dir: {_quoted(str(store_dir))}
    max_file_store: {LIMIT_STORE_BYTES}
    sync_interval: {"always" if sync_always else '"2m"'}
}}
mqtt {{
    host: "127.0.0.1"
    port: {port}
    ack_wait: "{round(ack_wait_s * 1000)}ms"
    max_ack_pending: {MAX_ACK_PENDING}
}}
{_authorization(passwords) if passwords else ""}
"""


def _level(line: str) -> int:
    """Return the level of a line of nats-server: what it refuses (``[ERR] ... Publish Violation``) is a warning."""
    if "Plaintext passwords" in line:  # they are random, and nobody else can read the file
        return logging.DEBUG
    if "Filestore" in line and any(mark in line for mark in _REBUILT):
        return logging.INFO
    return logging.WARNING if any(mark in line for mark in ("[WRN]", "[ERR]", "[FTL]")) else logging.DEBUG


def _authorization(passwords: dict[User, str]) -> str:
    # $MQTT.sub is where NATS delivers QoS 1 messages to a subscriber.
    readable = _quoted([*_OBSERVED, *(f"{first}.>" for first in _OBSERVED), "$MQTT.sub.>"])
    return f"""\
authorization {{
    users = [
        {{ user: meterway, password: {_quoted(passwords["meterway"])} }}
        {{
            user: observer
            password: {_quoted(passwords["observer"])}
            permissions: {{ publish: {{ deny: ">" }}, subscribe: {{ allow: {readable} }} }}
        }}
    ]
}}
"""


def find_nats_server() -> Path:
    """Return the path of nats-server: of the wheel beside this Python, else the one on the PATH.

    Raises:
        SetupError: there is none.
    """
    beside = Path(sys.executable).with_name("nats-server")
    if beside.exists():
        return beside
    found = shutil.which("nats-server")
    if found is None:
        raise SetupError("nats-server is not there; install meterway[embedded], or name your own broker's url")
    return Path(found)


def _choose_port(wanted: int, remembered: Path) -> int:
    """Return the port to listen on: the wanted one, else that of last time, else a free one.

    Raises:
        SetupError: the wanted port is in use.
    """
    if wanted:
        if not _is_free(wanted):
            raise SetupError(f"port {wanted} is in use by another program; choose another port for the broker")
        return wanted
    with contextlib.suppress(OSError, ValueError):
        last = int(remembered.read_text())
        if _is_free(last):
            return last
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
    return True


def _password(path: Path) -> str:
    """Return the password in ``path``, which is made at the first run, and anew if it is empty."""
    with contextlib.suppress(FileNotFoundError):
        if password := path.read_text().strip():
            return password
    password = secrets.token_urlsafe(24)
    write_private(path, password + "\n")
    return password


def _open_lock(directory: Path) -> int:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)


@asynccontextmanager
async def _locked(directory: Path) -> AsyncIterator[int]:
    """Hold the directory; yields the descriptor that holds it.

    nats-server inherits the descriptor: one whose parent was killed, and which is about to be ended by the kernel,
    holds the directory until it is really gone.

    Raises:
        SetupError: another process holds it, and still does after a few seconds.
    """
    lock = _open_lock(directory)
    try:
        for _ in range(round(LOCK_WITHIN_S / _LOCK_EVERY_S)):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            await asyncio.sleep(_LOCK_EVERY_S)
        else:
            raise SetupError(f"{directory} is in use by another broker; end that one or choose another directory")
        yield lock
    finally:
        os.close(lock)


def _quoted(value: object) -> str:
    return msgspec.json.encode(value).decode()
