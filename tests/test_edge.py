"""``meterway edge``: adapters and concentrator on one device, from one file."""

import json
import re
from pathlib import Path

from click.testing import CliRunner

from meterway.cli.doctor import doctor
from meterway.core.config import dump_config
from meterway.edge import EdgeAdapter, EdgeConcentrator, EdgeConfig
from support.brokers import RunningBroker
from support.platform import (
    MqttClient,
    alive,
    component,
    descendants,
    is_open,
    meter_configs,
    running_cloud,
    virtual_meters,
    wait_for,
)
from support.postgres import Server

TOPIC = re.compile(r"concentrator/device/(smartMeterMessage/[0-9a-f-]{36}/(readings|status|meter|faults)|status)")


def doctors_word(tmp_path: Path, config: EdgeConfig) -> list[str]:
    """What the doctor says of each broker, without its address."""
    path = tmp_path / "doctor.toml"
    path.write_text(dump_config(config))
    checks = [
        json.loads(line) for line in CliRunner().invoke(doctor, ["--json", "--config", str(path)]).output.splitlines()
    ]
    return [check["detail"].partition(" ")[2] for check in checks if check["check"] == "broker"]


def test_two_adapters_and_a_concentrator_from_one_file(
    broker: RunningBroker, postgres_server: Server, tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    with (
        running_cloud(tmp_path / "cloud", broker.config, postgres_server) as api,
        MqttClient(broker.config, "#") as watcher,
        virtual_meters(tmp_path, "--kind", "p1", "--kind", "sml", "--count", "2", "--speed", "5") as offers,
    ):
        power, heat = meter_configs(offers)
        config = EdgeConfig(
            data_dir=data_dir,
            concentrator=EdgeConcentrator(id="device", cloud=broker.config),
            adapters=(EdgeAdapter(id="cellar", meters=(power,)), EdgeAdapter(id="roof", meters=(heat,))),
        )
        with component(tmp_path, "edge", config) as edge:
            below = descendants(edge.pid)
            for command in ("nats-server", "meterway concentrator", "adapter-cellar.toml", "adapter-roof.toml"):
                assert any(command in line for line in below.values()), f"{command} is a process of its own"
            for part in ("concentrator", "adapter-cellar", "adapter-roof"):
                written = (data_dir / "config" / f"{part}.toml").read_text()
                assert f'username = "{part}"' in written, f"{part} has a user of its own at the device's broker"
            for meter in (power, heat):
                wait_for(lambda meter=meter: len(api.all_readings([meter.id])) >= 10, "readings are stored")  # type: ignore[misc]
            assert doctors_word(tmp_path, config) == ["takes us"] * 3, "cellar, roof and the way to the cloud"
            assert edge.stop() == 0
        wait_for(lambda: not alive(below), f"all of {below} have ended")
        local_port = int((data_dir / "broker" / "port").read_text())
        assert not is_open(local_port)

        last = max(each["sequenceNumber"] for each in api.all_readings([power.id]))
        with component(tmp_path, "edge", config) as edge:
            wait_for(lambda: len(api.all_readings([power.id])) >= last + 5, "it goes on")
            assert edge.stop() == 0
        readings = api.all_readings()
        status = {meter["meterId"]: meter["state"] for meter in api.get("/v1/meters")["content"]}
    for meter in (power, heat):
        numbers = sorted(each["sequenceNumber"] for each in readings if each["meterId"] == meter.id)
        assert numbers == list(range(1, len(numbers) + 1))
    assert {power.id, heat.id} <= status.keys()
    topics = {topic for topic, _ in watcher.messages if not topic.startswith("receipt/")}
    assert [topic for topic in topics if not TOPIC.fullmatch(topic)] == []
    assert {f"concentrator/device/smartMeterMessage/{meter.id}/readings" for meter in (power, heat)} <= topics
