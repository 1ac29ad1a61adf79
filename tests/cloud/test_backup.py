"""Backup and restore: one snapshot while ingest goes on, put back whole or not at all."""

import asyncio
import itertools
import shutil
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from meterway.cloud.backup import back_up, reachable, restore
from meterway.cloud.config import CloudConfig, DatabaseConfig, HttpConfig
from meterway.cloud.store import Store
from meterway.cloud.store.rows import ArrivedReading
from meterway.core import wire
from meterway.core.config import dump_config
from meterway.core.errors import SetupError
from meterway.core.reading import MeterReading, PropertyValue
from support.brokers import RunningBroker, free_port
from support.cloud_http import put, rejected, series
from support.platform import COMMAND, Api, MqttClient, component, wait_for
from support.postgres import Server, create_database, drop_database

NOW = datetime.now(UTC)
EVERYTHING = (
    "select m.meter_id, r.reading_time, r.reading_identifier, r.sequence_number, r.fault_code, r.numerical_values, "
    "r.text_values, r.dates, s.property_ids, s.units from reading r join meter m using (meter_key) "
    "join property_set s using (property_set_key) order by 1, 2, 3"
)


@pytest.fixture
async def other_dsn(postgres_server: Server) -> AsyncIterator[str]:
    """Another empty database."""
    dsn = await create_database(postgres_server)
    yield dsn
    await drop_database(postgres_server, dsn)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that every user may pass through, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="mwbk-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def ignore(_: str) -> None:
    """Tell nobody."""


def batches() -> Iterator[list[ArrivedReading]]:
    for number in itertools.count():
        yield series(f"m{number % 5}", NOW - timedelta(days=20) + timedelta(hours=number), 50)


@asynccontextmanager
async def ingesting(store: Store, sent: list[list[ArrivedReading]]) -> AsyncIterator[None]:
    """Store batch after batch; ``sent`` has those that are committed."""
    stop = asyncio.Event()

    async def work() -> None:
        for batch in batches():
            await put(store, *batch)
            sent.append(batch)
            if stop.is_set():
                return

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(work())
        try:
            yield
        finally:
            stop.set()


async def everything(store: Store) -> list[tuple[object, ...]]:
    rows = await store.fetch(EVERYTHING)
    return [tuple(tuple(each) if isinstance(each, list) else each for each in row) for row in rows]


async def test_a_backup_under_load_has_all_that_was_stored_before_and_spools_bring_the_rest(
    store: Store, database_dsn: str, other_dsn: str, tmp_path: Path
) -> None:
    file, told, sent = tmp_path / "meterway.backup", list[str](), list[list[ArrivedReading]]()
    async with ingesting(store, sent):
        while len(sent) < 20:
            await asyncio.sleep(0.01)
        before = await everything(store)
        await back_up(database_dsn, file, progress=told.append)
        at_end = len(sent)
        while len(sent) < at_end + 5:
            await asyncio.sleep(0.01)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert any("reading_" in line for line in told)
    content = await restore(other_dsn, file, replace=False, progress=ignore)
    assert content.meters == 5
    async with await Store.connect(other_dsn) as restored:
        have = await everything(restored)
        assert set(before) <= set(have)
        assert content.readings == len(have)
        for batch in sent:
            await put(restored, *batch)
        await restored.enter_arrivals()
        assert await everything(restored) == await everything(store)
        (row,) = await restored.fetch("select sum(stored) as stored from meter_day")
    assert row["stored"] == len(await everything(store))


async def test_a_database_that_is_not_empty_is_replaced_only_when_told_so(
    store: Store, database_dsn: str, tmp_path: Path, other_dsn: str
) -> None:
    file = tmp_path / "meterway.backup"
    await put(store, *series("m1", NOW, 5), rejected(b"\0\xff bytes"))
    await back_up(database_dsn, file, progress=ignore)
    async with await Store.connect(other_dsn) as other:
        await other.migrate(now=NOW)
        await put(other, *series("m2", NOW, 9))
    with pytest.raises(SetupError, match="not empty: restore into an empty one, or give --replace"):
        await restore(other_dsn, file, replace=False, progress=ignore)
    async with await Store.connect(other_dsn, connections=2) as user:
        await user.fetch("select 1")
        with pytest.raises(SetupError, match=r"in use \(2 connections\): stop `meterway cloud` first"):
            await restore(other_dsn, file, replace=True, progress=ignore)
        assert len(await everything(user)) == 9
    for _ in range(2):
        assert (await restore(other_dsn, file, replace=True, progress=ignore)).readings == 5
    async with await Store.connect(other_dsn) as other:
        assert await everything(other) == await everything(store)
        (row,) = await other.fetch("select payload from quarantine")
        assert row["payload"] == b"\0\xff bytes"
        await put(other, *series("m1", NOW, 6))
        assert len(await everything(other)) == 6
    again = tmp_path / "again.backup"
    await back_up(other_dsn, again, progress=ignore)
    assert (await restore(other_dsn, again, replace=True, progress=ignore)).readings == 6


async def test_a_restore_that_fails_leaves_what_was_there(
    store: Store, database_dsn: str, tmp_path: Path, other_dsn: str
) -> None:
    file = tmp_path / "meterway.backup"
    await put(store, *series("m1", NOW, 3000))
    await back_up(database_dsn, file, progress=ignore)
    cut = tmp_path / "cut.backup"
    cut.write_bytes(file.read_bytes()[:-2000])
    async with await Store.connect(other_dsn) as other:
        await other.migrate(now=NOW)
        await put(other, *series("m2", NOW, 9))
    with pytest.raises(SetupError, match="failed"):
        await restore(other_dsn, cut, replace=True, progress=ignore)
    async with await Store.connect(other_dsn) as other:
        assert len(await everything(other)) == 9


async def test_a_backup_of_a_newer_version_is_refused(
    store: Store, database_dsn: str, tmp_path: Path, other_dsn: str
) -> None:
    file = tmp_path / "meterway.backup"
    await store.fetch("insert into schema_version (version, name) values (9999, '9999_later.sql')")
    await back_up(database_dsn, file, progress=ignore)
    with pytest.raises(SetupError, match="has schema 9999, this Meterway knows"):
        await restore(other_dsn, file, replace=False, progress=ignore)


async def test_what_is_no_backup_is_refused(tmp_path: Path, other_dsn: str) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"something else")
    with pytest.raises(SetupError, match=r"x is no backup of Meterway: .*does not appear to be a valid archive"):
        await restore(other_dsn, file, replace=False, progress=ignore)
    with pytest.raises(SetupError, match=r"nosuch is no backup of Meterway: .*No such file"):
        await restore(other_dsn, tmp_path / "nosuch", replace=False, progress=ignore)


async def test_a_backup_overwrites_nothing_and_leaves_nothing_half(
    store: Store, database_dsn: str, tmp_path: Path
) -> None:
    file = tmp_path / "meterway.backup"
    file.write_bytes(b"yesterday's")
    await put(store, *series("m1", NOW, 1))
    with pytest.raises(SetupError, match="exists already: name another"):
        await back_up(database_dsn, file, progress=ignore)
    with pytest.raises(SetupError, match="password authentication failed"):
        await back_up(database_dsn.replace("meterway:", "meterway:wrong", 1), tmp_path / "b", progress=ignore)
    assert [each.name for each in tmp_path.iterdir()] == ["meterway.backup"]
    assert file.read_bytes() == b"yesterday's"


async def test_an_empty_or_missing_database_is_not_backed_up(database_dsn: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="the database is empty: there is nothing to back up"):
        await back_up(database_dsn, tmp_path / "b", progress=ignore)
    with pytest.raises(SetupError, match=r"there is no database in .*: is \[database\] embedded right\?"):
        async with reachable(DatabaseConfig(embedded=tmp_path / "none")):
            pass
    assert list(tmp_path.iterdir()) == []


def publish(client: MqttClient, numbers: range) -> None:
    """Publish readings of one meter, as a concentrator does."""
    for number in numbers:
        moment = NOW - timedelta(hours=1) + timedelta(seconds=number)
        values = (PropertyValue("OBIS_1.8.0", Decimal(number + 1), None, "kWh"),)
        reading = MeterReading(wire.reading_identifier("m1", moment, values), "m1", moment, values, number)
        client.publish("concentrator/c1/smartMeterMessage/m1/readings", wire.encode(reading))


@pytest.mark.timeout(240)
def test_the_commands_move_a_running_cloud_to_another_place(nats: RunningBroker, folder: Path) -> None:
    """As an operator does; the sender sends everything again, because the receipts of the last hour are gone."""
    file = folder / "meterway.backup"
    here, there = (
        CloudConfig(
            broker=nats.config,
            database=DatabaseConfig(embedded=folder / name),
            http=HttpConfig(port=free_port(), open=True),
        )
        for name in ("here", "there")
    )
    with component(folder / "run-here", "cloud", here), MqttClient(nats.config) as sender:
        api = Api(f"http://127.0.0.1:{here.http.port}")
        publish(sender, range(100))
        wait_for(lambda: len(api.all_readings()) == 100, "100 readings are stored")
        said = meterway(folder, "backup", here, file)
        assert said.stdout.startswith(f"{file}: ")
        assert "; not in it: the broker's data, spools of edges, configurations, passwords and keys\n" in said.stdout
        publish(sender, range(100, 150))
        wait_for(lambda: len(api.all_readings()) == 150, "ingest went on")
    assert "restored 1 meters, 100 readings; now start the cloud\n" in meterway(folder, "restore", there, file).stdout
    with component(folder / "run-there", "cloud", there), MqttClient(nats.config) as sender:
        api = Api(f"http://127.0.0.1:{there.http.port}")
        publish(sender, range(150))
        wait_for(lambda: len(api.all_readings()) == 150, "the rest has come")
        publish(sender, range(150, 151))
        wait_for(lambda: len(api.all_readings()) == 151, "new readings are stored")
        numbers = sorted(each["sequenceNumber"] for each in api.all_readings())
        total = api.get("/v1/completeness")["content"][0]
    assert (numbers, total["stored"], total["lost"]) == (list(range(151)), 151, 0)


def meterway(folder: Path, command: str, config: CloudConfig, file: Path) -> "subprocess.CompletedProcess[str]":
    path = folder / f"{command}.toml"
    path.write_text(dump_config(config))
    said = subprocess.run(
        [*COMMAND, "cloud", command, "--config", str(path), str(file)], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    return said


def test_options_before_a_subcommand_are_a_sentence() -> None:
    said = subprocess.run(
        [*COMMAND, "cloud", "--config", "x", "backup", "y"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 2
    assert said.stderr.startswith("meterway: options stand behind `cloud backup`, not before it\n")
    said = subprocess.run([*COMMAND, "cloud"], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (2, "meterway: Missing option '--config'.\nTry: meterway cloud --help\n")
