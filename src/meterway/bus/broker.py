"""The embedded broker: nats-server with MQTT and JetStream on disk, supervised; beyond loopback with TLS.

What lies in its directory (made with mode 0700):

    port                    the MQTT port, so that clients find the broker again after a restart
    meterway.password       for adapters, concentrator and cloud: may do everything (mode 0600)
    observer.password       for people who watch: may subscribe, never publish (mode 0600)
    [user].password         for further users, each with a grant (mode 0600)
    nats.conf               written at each start (mode 0600, it holds the passwords)
    certificates/           the authority that signs its certificate, if other machines may connect
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
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from meterway.authority import LOOK_EVERY_S, Authority, ServerCertificate, following
from meterway.bus.bus import BrokerConfig, EmbeddedBrokerConfig
from meterway.bus.directory import Directory
from meterway.bus.mqtt import answers
from meterway.bus.nats_config import ACK_WAIT_S, LIMIT_STORE_BYTES, nats_config
from meterway.bus.nats_jwt import Issuer
from meterway.bus.nats_log import DiskWatch, level
from meterway.bus.nats_users import SERVICE_USER, CalloutUser, StaticUser
from meterway.bus.refusals import Refusal, Refusals, parse_nats
from meterway.core.errors import SetupError, TransientError
from meterway.core.grants import OBSERVER, Grant
from meterway.core.hosts import in_url, is_loopback, names_of, reached_at
from meterway.durable_file import write_private
from meterway.process import ChildProcess, Command

if TYPE_CHECKING:
    from meterway.bus.callout import Callout

_log = logging.getLogger(__name__)

RETAINED_SHARE = 4
"""Retained messages have a quarter of the store; beyond, the oldest go."""

CHECK_EVERY_S = 5.0
"""How often it is asked whether it still works."""

LOCK_WITHIN_S = 3.0
_LOCK_EVERY_S = 0.02


class EmbeddedBroker:
    """A nats-server that runs as long as the ``async with``; it is watched, and started again when it dies.

    On another ``host`` than loopback it speaks TLS, under ``names``, with a certificate of the authority in
    ``certificate_dir``; a renewed one is taken up while it runs, and connections stay.

    ``users`` may log in beside the two that are always there, and do what their grants say; so may the devices that
    ``directory`` knows (``bus.callout``). What it refuses is logged, and passed to ``on_refusal``.

    It ends when the process that owns it is killed. Port, passwords and messages survive. ``port = 0`` takes the
    port of last time, or at first a free one.

    ``sync_always`` makes an acknowledged message survive a power cut at once, at 3,000 to 4,000 messages a second;
    without it NATS flushes every two minutes, which is enough where receipts make every hop whole.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        host: str = "127.0.0.1",
        names: Sequence[str] = (),
        certificate_dir: Path | None = None,
        port: int = 0,
        ack_wait_s: float = ACK_WAIT_S,
        store_limit_bytes: int = LIMIT_STORE_BYTES,
        sync_always: bool = False,
        users: Mapping[str, Grant] | None = None,
        directory: Directory | None = None,
        on_refusal: Callable[[Refusal], None] = lambda _refusal: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._data_dir = data_dir.resolve()
        self._host = host
        self._names = names
        self._certificate_dir = (certificate_dir or data_dir / "certificates").resolve()
        self._wanted_port = port
        self._clock = clock
        self._look_every_s = look_every_s
        self._authority: Authority | None = None
        self._ack_wait_s = ack_wait_s
        self._store_limit_bytes = store_limit_bytes
        self._sync_always = sync_always
        self._grants: dict[str, Grant | None] = {"meterway": None, "observer": OBSERVER, **(users or {})}
        self._directory = directory
        self._issuer = Issuer()
        self._service_port = 0
        self._refusals = Refusals(on_refusal, time.monotonic)
        self._stack = AsyncExitStack()
        self._process: ChildProcess | None = None
        self._disk = DiskWatch(partial(_free_bytes, self._data_dir))
        self.port = port
        """The MQTT port; valid once entered."""
        self.certificate: ServerCertificate | None = None
        """What it shows; None on loopback."""
        self.callout: Callout | None = None
        """What decides who of the directory may log in; None without a directory."""

    async def __aenter__(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            SetupError: nats-server is not installed; the port belongs to another program; the directory is in use;
                the authority cannot be used.
        """
        binary = find_nats_server()
        async with AsyncExitStack() as stack:
            lock = await stack.enter_async_context(_locked(self._data_dir))
            if not is_loopback(self._host):
                self._authority = Authority.open(self._certificate_dir, clock=self._clock)
                self._renew()
                _log.info("broker: authority %s, SHA-256 %s", self._authority.ca_file, self._authority.fingerprint)
            self._write_files()
            command = Command(
                name="broker",
                arguments=[binary, "-c", self._data_dir / "nats.conf"],
                probe=self._answers,
                check_every_s=CHECK_EVERY_S,
                level=self._note,
                kept_open=[lock],
            )
            self._process = await stack.enter_async_context(ChildProcess(command))
            if self.certificate is not None:
                file = self.certificate.file
                await stack.enter_async_context(following(file, self._renew, self._reload, self._look_every_s))
            if self._directory is not None:
                await self._bound_retained()
                self.callout = await stack.enter_async_context(self._make_callout(self._directory))
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

    def config(self, user: str = "meterway") -> BrokerConfig:
        """Return how ``user`` reaches the broker; valid once entered."""
        scheme = "mqtts" if self._authority else "mqtt"
        return BrokerConfig(
            url=f"{scheme}://{in_url(reached_at(self._host))}:{self.port}",
            username=user,
            password_file=self._data_dir / f"{user}.password",
            ca_file=self._authority.ca_file if self._authority else None,
        )

    def _renew(self) -> None:
        if self._authority is not None:
            self.certificate = self._authority.server_certificate("broker", names_of(self._host, self._names))

    def _reload(self) -> None:
        """Have nats-server read its files again; one that is down reads them when it is started."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGHUP)

    async def _answers(self) -> bool:
        """Tell whether it works; one that needs a new start, and has room for it, does not."""
        return not self._disk.wants_start and await answers(self.config())

    def _write_files(self) -> None:
        """Write what nats-server reads, and what clients need."""
        self.port = _choose_port(self._host, self._wanted_port, self._data_dir / "port")
        write_private(self._data_dir / "port", f"{self.port}\n")
        self._service_port = _choose_port("127.0.0.1", 0, self._data_dir / "service.port")
        write_private(self._data_dir / "service.port", f"{self._service_port}\n")
        users = [StaticUser(name, self._password(name), grant) for name, grant in self._grants.items()]
        write_private(
            self._data_dir / "nats.conf",
            nats_config(
                host=self._host,
                port=self.port,
                certificate=self.certificate.file if self.certificate else None,
                store_dir=self._data_dir / "store",
                ack_wait_s=self._ack_wait_s,
                store_limit_bytes=self._store_limit_bytes,
                sync_always=self._sync_always,
                service_port=self._service_port,
                users=users,
                callout=CalloutUser(self._issuer.name, self._password(SERVICE_USER)) if self._directory else None,
            ),
        )

    def _password(self, user: str) -> str:
        return _password(self._data_dir / f"{user}.password")

    async def _bound_retained(self) -> None:
        from meterway.bus.retained import bound_retained  # as below

        limit_bytes = self._store_limit_bytes // RETAINED_SHARE
        password = self._password("meterway")
        try:
            await bound_retained(self._service_port, user="meterway", password=password, limit_bytes=limit_bytes)
        except TransientError as error:
            _log.warning("! %s", error)

    def _make_callout(self, directory: Directory) -> "Callout":
        from meterway.bus.callout import Callout  # needs nats-py, which only the cloud's extra brings

        return Callout(
            directory,
            self._issuer,
            port=self._service_port,
            password=self._password(SERVICE_USER),
            static_users=tuple(self._grants),
            on_refusal=self._refusals.put,
        )

    def _note(self, line: str) -> int:
        """Take note of what a line says was refused, or cannot be written; return the line's level."""
        self._disk.take(line)
        refusal = parse_nats(line)
        if refusal is None:
            return level(line)
        if refusal.kind == "login" and self.callout is not None and refusal.username not in self._grants:
            return logging.DEBUG  # it was the callout that refused, and said why
        return logging.WARNING if self._refusals.put(refusal) else logging.DEBUG


def embedded_broker(
    config: EmbeddedBrokerConfig,
    *,
    users: Mapping[str, Grant] | None = None,
    directory: Directory | None = None,
    on_refusal: Callable[[Refusal], None] = lambda _refusal: None,
) -> EmbeddedBroker:
    """Return the broker that ``config`` describes; see ``EmbeddedBroker`` for the users."""
    return EmbeddedBroker(
        config.data_dir,
        host=config.host,
        names=config.names,
        certificate_dir=config.certificates,
        port=config.port,
        store_limit_bytes=config.store_limit_bytes,
        sync_always=config.sync_always,
        users=users,
        directory=directory,
        on_refusal=on_refusal,
    )


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


def _free_bytes(directory: Path) -> int:
    return shutil.disk_usage(directory).free


def _choose_port(host: str, wanted: int, remembered: Path) -> int:
    """Return the port to listen on: the wanted one, else that of last time, else a free one.

    Raises:
        SetupError: the wanted port is in use.
    """
    if wanted:
        if not _is_free(host, wanted):
            raise SetupError(f"port {wanted} is in use by another program; choose another port for the broker")
        return wanted
    with contextlib.suppress(OSError, ValueError):
        last = int(remembered.read_text())
        if _is_free(host, last):
            return last
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _is_free(host: str, port: int) -> bool:
    with socket.socket(_family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
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
