"""``meterway demo`` beside strangers on its broker, and after a kill."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meterway.bus.bus import BrokerConfig
from support.platform import Api, MqttClient, Process, running, wait_for

FLAT = b"""{"readingTime": "2026-11-23T10:15:00+01:00", "meterId": "stranger",
"propertyValues": [{"propertyName": "1.7.0", "numericalValue": "0.133", "unit": "kW"}]}"""
"""A reading as the public reference implementation sends it: without a sequence number."""


@contextmanager
def demo(folder: Path, name: str, data_dir: Path) -> Iterator[tuple[Process, Api]]:
    (data_dir / "demo.json").unlink(missing_ok=True)
    with running(folder, name, "demo", "--json", "--meters", "2", "--data-dir", str(data_dir)) as process:
        wait_for((data_dir / "demo.json").exists, f"demo {name} runs")
        api = Api(json.loads((data_dir / "demo.json").read_text())["page"])
        before = len(api.all_readings())
        wait_for(lambda: len(api.all_readings()) >= before + 4, "readings are stored")
        yield process, api


def test_a_strangers_reading_and_a_kill_do_not_disturb_the_count(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with demo(tmp_path, "killed", data_dir) as (process, api):
        port = (data_dir / "broker/port").read_text().strip()
        password_file = data_dir / "broker/meterway.password"
        broker = BrokerConfig(url=f"mqtt://127.0.0.1:{port}", username="meterway", password_file=password_file)
        with MqttClient(broker) as stranger:
            stranger.publish("smartMeterMessage/stranger/readings", FLAT)
        wait_for(lambda: len(api.all_readings(["stranger"])) == 1, "the stranger's reading is stored")
        process.kill()
    with demo(tmp_path, "again", data_dir) as (process, _):
        process.signal(signal.SIGINT)
        assert process.wait() == 0, process.err
        counted = json.loads(process.out)
    assert (counted["missing"], counted["duplicated"], counted["quarantined"]) == (0, 0, 0)
    assert counted["published"] == counted["stored"] > 0


def test_a_second_ctrl_c_leaves_without_counting_and_without_a_traceback(tmp_path: Path) -> None:
    with demo(tmp_path, "twice", tmp_path / "data") as (process, _):
        process.signal(signal.SIGINT)
        wait_for(lambda: "Stopping the meters" in process.err, "the demo is stopping")
        process.signal(signal.SIGINT)
        assert process.wait() == 130
    assert "Traceback" not in process.err
    assert process.out == ""
