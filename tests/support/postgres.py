"""A real PostgreSQL for tests: one server a session, a fresh database a test."""

import asyncio
import itertools
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from meterway.cloud.postgres import Cluster
from meterway.cloud.store import Store

START_S = 60.0
_numbers = itertools.count(1)

FAST = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB", "max_connections": "100"}
"""For tests that do not cut the power."""


class Server:
    """A server that a test may kill and start again."""

    def __init__(self, cluster: Cluster, settings: dict[str, str]) -> None:
        self.cluster = cluster
        self._settings = settings
        self._log = cluster.data_dir / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers; tries again while processes of a killed one still end."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                with self._log.open("ab") as log:
                    self.process = subprocess.Popen(self.cluster.command(self._settings), stdout=log, stderr=log)
            if self.cluster.ready():
                return
            time.sleep(0.05)
        raise AssertionError(f"PostgreSQL did not start:\n{self._log.read_text()[-3000:]}")

    def stop(self) -> None:
        """End it in good order; committed transactions are on the disk anyway."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a crash would; ``start`` recovers."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(START_S)

    @property
    def dsn(self) -> str:
        """The database that the cluster comes with."""
        return self.cluster.dsn


@contextmanager
def running_server(*, programs: Path | None = None, settings: dict[str, str] | None = None) -> Iterator[Server]:
    """Serve a new cluster in a short directory of its own, which is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="mwpg-"))
    folder.chmod(0o755)
    cluster = Cluster(folder, programs=programs)
    try:
        cluster.prepare()
        server = Server(cluster, FAST if settings is None else settings)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        cluster.release()
        shutil.rmtree(folder, ignore_errors=True)


async def create_database(server: Server) -> str:
    """Create an empty database; return its address."""
    name = f"test_{next(_numbers)}"
    connection = await asyncpg.connect(server.dsn)
    try:
        await connection.execute(f"create database {name}")
    finally:
        await connection.close()
    return server.dsn.replace("@/meterway?", f"@/{name}?")


async def drop_database(server: Server, dsn: str) -> None:
    """Remove a database and those still connected to it."""
    name = dsn.partition("@/")[2].partition("?")[0]
    connection = await asyncpg.connect(server.dsn)
    try:
        await connection.execute(f"drop database if exists {name} with (force)")
    finally:
        await connection.close()


async def wait_for_rows(store: Store, sql: str, expected: int, *, seconds: float = 60.0) -> None:
    """Wait until the one number that ``sql`` returns is ``expected``."""
    found = None
    async with asyncio.timeout(seconds):
        while (found := (await store.fetch(sql))[0][0]) != expected:
            await asyncio.sleep(0.02)
    assert found == expected


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """One PostgreSQL of the embedded wheel for the whole session; never kill it."""
    with running_server() as server:
        yield server


@pytest.fixture
async def database_dsn(postgres_server: Server) -> AsyncIterator[str]:
    """The address of an empty database, for this test only."""
    dsn = await create_database(postgres_server)
    yield dsn
    await drop_database(postgres_server, dsn)


@pytest.fixture
async def store(database_dsn: str) -> AsyncIterator[Store]:
    """A store on a fresh database with the newest schema."""
    async with await Store.connect(database_dsn) as store:
        await store.migrate(now=datetime.now(UTC))
        yield store
