"""From an empty machine to readings: devices enrol with codes over TLS, log in with what they got, and only as that."""

import asyncio
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from meterway.adapter.config import AdapterConfig
from meterway.bus.bus import EmbeddedBrokerConfig
from meterway.cloud.config import CloudConfig, DatabaseConfig, HttpConfig
from meterway.core.config import dump_config
from support.brokers import free_port
from support.platform import COMMAND, component, meter_configs, running, virtual_meters, wait_for
from support.postgres import Server, create_database, drop_database


def meterway(*arguments: str, status: int = 0) -> list[dict[str, Any]]:
    """Run a command with ``--json``; return what it prints."""
    done = subprocess.run([*COMMAND, *arguments, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.timeout(300)
def test_devices_enrol_over_tls_and_readings_arrive(postgres_server: Server, tmp_path: Path) -> None:
    dsn = asyncio.run(create_database(postgres_server))
    (tmp_path / "dsn").write_text(dsn)
    port = free_port()
    cloud = CloudConfig(
        database=DatabaseConfig(dsn_file=tmp_path / "dsn"),
        http=HttpConfig(host="0.0.0.0", port=port, names=("localhost",)),
        embedded_broker=EmbeddedBrokerConfig(data_dir=tmp_path / "broker", host="0.0.0.0", names=("localhost",)),
    )
    of_cloud = ("--config", str(tmp_path / "cloud" / "cloud.toml"))
    url = f"https://localhost:{port}"
    try:
        with (
            component(tmp_path / "cloud", "cloud", cloud),
            virtual_meters(tmp_path, "--kind", "p1", "--speed", "10") as offers,
        ):
            (meter,) = meter_configs(offers)
            ids = sorted((meter.id, *(channel.id for channel in meter.channels)))
            topic = f"smartMeterMessage/{meter.id}/"
            refused = f"select count(*) from refusal join device using (device_key) where topic like '{topic}%'"
            stored = f"select count(*) from reading join meter using (meter_key) where meter_id = '{meter.id}'"

            # Who asks with the cloud's own configuration trusts its authority, too.
            (asked,) = meterway("gaps", *of_cloud, status=2)
            assert asked["error"].startswith(f"https://127.0.0.1:{port} wants to know who asks"), asked

            # A concentrator beside the cloud, and an adapter that may not publish for its meter yet.
            (beside,) = meterway("cloud", "device", "add", *of_cloud, "concentrator", "beside", "--collects")
            assert re.fullmatch(
                rf"meterway concentrator enroll {url} (\w{{5}}-){{7}}\w{{5}} --config concentrator.toml",
                beside["command"],
            )
            concentrator = tmp_path / "concentrator.toml"
            concentrator.write_text('# mine\nid = "beside"\nspool_dir = "' + str(tmp_path / "c-spool") + '"\n')
            enrol = ("concentrator", "enroll", url, beside["code"], "--config", str(concentrator))
            (enrolled,) = meterway(*enrol)
            assert enrolled["notes"] == []
            assert Path(enrolled["passwordFile"]).stat().st_mode & 0o777 == 0o600
            assert concentrator.read_text().startswith("# mine\n")
            assert "--replace" in meterway(*enrol, status=2)[0]["error"]
            assert "was used" in meterway(*enrol, "--replace", status=1)[0]["error"]

            (added,) = meterway("cloud", "device", "add", *of_cloud, "adapter", "cellar", "--meter", "another")
            adapter = tmp_path / "adapter.toml"
            blank = dump_config(AdapterConfig(id="cellar", spool_dir=tmp_path / "a-spool", meters=(meter,)))
            adapter.write_text(blank)
            (enrolled,) = meterway("adapter", "enroll", url, added["code"], "--config", str(adapter))
            assert enrolled["notes"] == [
                f"the device may not publish for {', '.join(ids)}: add them on the devices page"
            ]

            with (
                running(tmp_path, "concentrator", "concentrator", "--config", str(concentrator), "--json") as passing,
                running(tmp_path, "adapter", "adapter", "--config", str(adapter), "--json") as reading,
            ):
                passing.wait_ready()
                reading.wait_ready()
                wait_for(lambda: count(dsn, refused) > 0, "the refusal is known")
                told = meterway("doctor", "--config", str(adapter), status=1)
                (said, *_) = [each for each in told if each["code"] == "refused" and topic in each["detail"]]
                assert re.match(rf"the broker refused \d+ publish(es)? of {topic}", said["detail"])
                assert said["fix"] == (
                    f"This device may only publish for another; add the meter {meter.id} on the devices page if it is "
                    "its own, or revoke the device."
                )

                subprocess.run([*COMMAND, "doctor", "--config", str(concentrator)], capture_output=True, check=False)
                wanted = [part for each in ids for part in ("--meter", each)]
                meterway("cloud", "device", "meters", *of_cloud, "cellar", *wanted)
                wait_for(lambda: count(dsn, stored) >= 5, "readings are stored")
                looked = "select count(*) from refusal where refused_kind = 'subscribe' and topic not like 'receipt/%'"
                assert count(dsn, looked) == 0, "the doctor asked for what a device may not read"

                meterway("cloud", "device", "revoke", *of_cloud, "adapter", "cellar")
                wait_for(lambda: " refuses " in reading.err, "the adapter is put out")
                own = meterway("doctor", "--config", str(adapter), status=1)
                assert any("No device has this user name" in each["detail"] for each in own)

                # A new code lets it in again, and nothing that it read meanwhile is lost.
                before = count(dsn, stored)
                (renewed,) = meterway("cloud", "device", "code", *of_cloud, "adapter", "cellar")
                meterway("adapter", "enroll", url, renewed["code"], "--config", str(adapter), "--replace")
                wait_for(lambda: count(dsn, stored) >= before + 5, "readings go on")
    finally:
        asyncio.run(drop_database(postgres_server, dsn))


def count(dsn: str, sql: str) -> int:
    """Return the number that ``sql`` selects."""

    async def fetch() -> int:
        connection = await asyncpg.connect(dsn)
        try:
            return int(await connection.fetchval(sql))
        finally:
            await connection.close()

    return asyncio.run(fetch())
