"""``meterway demo``: the whole chain as one command, counted end to end."""

import json
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from meterway.bus.bus import BrokerConfig
from support.platform import Api, MqttClient, Process, alive, descendants, is_open, running, wait_for

KEYS = [
    "telegrams",
    "published",
    "stored",
    "missing",
    "duplicated",
    "quarantined",
    "latency_p50_s",
    "latency_p99_s",
]

COMMANDS = [
    "nats-server",
    "bin/postgres",
    "meterway cloud",
    "meterway concentrator",
    "meterway adapter",
    "meter virtual",
]


@dataclass(frozen=True, slots=True)
class Demo:
    """A demo that runs until it is stopped, and what its ``demo.json`` says."""

    process: Process
    data_dir: Path
    note: dict[str, Any]

    @property
    def api(self) -> Api:
        return Api(self.note["page"])

    @property
    def observer(self) -> tuple[BrokerConfig, str]:
        broker = self.note["broker"]
        return BrokerConfig(url=broker["url"], username=broker["username"]), broker["password"]

    @property
    def ports(self) -> list[int]:
        urls = (self.note["page"], self.note["broker"]["url"])
        return [int(url.rstrip("/").rpartition(":")[2]) for url in urls]


@contextmanager
def running_demo(folder: Path, name: str, data_dir: Path, *arguments: str) -> Iterator[Demo]:
    note = data_dir / "demo.json"
    note.unlink(missing_ok=True)
    with running(folder, name, "demo", "--json", "--data-dir", str(data_dir), *arguments) as process:

        def written() -> bool:
            assert process.running, process.err
            return note.exists() and note.read_text().endswith("}\n")

        wait_for(written, "demo.json is there")
        yield Demo(process, data_dir, json.loads(note.read_text()))


def result(process: Process) -> dict[str, Any]:
    """Return the object in the last line that a demo printed; nothing else stands on stdout."""
    (line,) = process.out.splitlines()
    counted: dict[str, Any] = json.loads(line)
    return counted


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def demo(folder: Path) -> Iterator[Demo]:
    """One demo for the tests that only look."""
    with running_demo(folder, "shared", folder / "shared-data", "--meters", "4") as demo:
        wait_for(lambda: len(demo.api.all_readings()) > 10, "readings are stored")
        yield demo


def test_a_demo_with_a_duration_counts_what_meters_said_and_what_is_stored(tmp_path: Path) -> None:
    with running(tmp_path, "demo", "demo", "--duration", "5", "--meters", "6", "--speed", "5", "--json") as process:
        below: dict[int, str] = {}

        def all_seen() -> bool:
            below.update(descendants(process.pid))
            return all(any(command in line for line in below.values()) for command in COMMANDS)

        wait_for(all_seen, f"each of {COMMANDS} is a process of its own")
        code = process.wait()
    counted = result(process)
    assert list(counted) == KEYS
    assert (code, counted["missing"], counted["duplicated"], counted["quarantined"]) == (0, 0, 0, 0)
    assert counted["stored"] == counted["published"] >= counted["telegrams"] > 0
    assert 0 < counted["latency_p50_s"] <= counted["latency_p99_s"]
    assert alive(below) == set()


def test_spoilt_telegrams_are_faults_and_nothing_that_is_whole_is_missing(tmp_path: Path) -> None:
    spoilt = ("--fault", "noise=0.2", "--fault", "checksum=0.2")
    data_dir = tmp_path / "data"
    with running_demo(
        tmp_path, "spoilt", data_dir, "--duration", "6", "--meters", "4", "--speed", "5", *spoilt
    ) as demo:
        wait_for(lambda: bool(demo.api.kept_aside("faults")), "the faults are in the cloud")
        reasons = {fault["reason"] for fault in demo.api.kept_aside("faults")}
        code = demo.process.wait()
        counted = result(demo.process)
    assert reasons == {"bad-checksum"}
    assert (code, counted["missing"], counted["duplicated"], counted["quarantined"]) == (0, 0, 0, 0)
    lines = [json.loads(line) for ledger in data_dir.glob("ledger-*.jsonl") for line in ledger.read_text().splitlines()]
    states = [line["state"] for line in lines]
    assert states.count("spoilt") > 0
    assert states.count("whole") == counted["telegrams"]


def test_the_note_tells_its_owner_where_to_look(demo: Demo) -> None:
    assert stat.S_IMODE((demo.data_dir / "demo.json").stat().st_mode) == 0o600
    assert demo.note["pid"] == demo.process.pid
    assert len(set(demo.note["meters"])) == 8, "two of the four have a gas and a water meter behind them"
    page = httpx.get(demo.note["page"])
    assert page.status_code == 200
    assert "<html" in page.text

    def listed() -> set[str]:
        return {meter["meterId"] for meter in demo.api.get("/v1/meters")["content"]}

    wait_for(lambda: set(demo.note["meters"]) <= listed(), "every meter is listed")


def test_any_mqtt_client_may_watch_and_none_may_publish(demo: Demo) -> None:
    """Brokers acknowledge a refused publish as if it were done (MQTT 3.1.1), so only its absence shows."""
    config, password = demo.observer
    forged = "smartMeterMessage/forged/readings"
    with MqttClient(config, "smartMeterMessage/#", "concentrator/#", password=password) as observer:
        wait_for(lambda: len(observer.on("/readings")) >= 4, "an observer sees readings")
        observer.publish(forged, b"{}")
        seen = len(observer.messages)
        wait_for(lambda: len(observer.messages) >= seen + 20, "the readings go on")
        assert all("forged" not in topic for topic, _ in observer.messages)
        numbers = [json.loads(payload)["sequenceNumber"] for payload in observer.on("/readings")]
    assert min(numbers) > 0
    assert all("forged" not in item["topic"] for item in demo.api.kept_aside("quarantine"))


def test_everything_listens_on_this_machine_only(demo: Demo) -> None:
    pids = {demo.process.pid, *descendants(demo.process.pid)}
    sockets = {
        int(link.name.removeprefix("socket:[").removesuffix("]"))
        for pid in pids
        for handle in Path(f"/proc/{pid}/fd").iterdir()
        if handle.is_symlink() and (link := Path(str(handle.readlink()))).name.startswith("socket:[")
    }
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and int(words[9]) in sockets:
                listening.append(words[1].partition(":")[0])
    loopback = (socket.inet_aton("127.0.0.1")[::-1].hex().upper(), "00000000000000000000000001000000")
    assert listening
    assert set(listening) <= set(loopback)


def test_a_second_demo_in_the_same_directory_is_refused(demo: Demo, tmp_path: Path) -> None:
    with running(tmp_path, "second", "demo", "--duration", "5", "--data-dir", str(demo.data_dir)) as second:
        assert second.wait() == 2
    assert second.err.splitlines() == [
        f"meterway: a demo runs in {demo.data_dir} already; see {demo.data_dir / 'demo.json'}, or give --data-dir"
    ]


def test_ctrl_c_ends_a_demo_that_keeps_its_data_and_the_next_goes_on(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with running_demo(tmp_path, "first", data_dir, "--meters", "2") as demo:
        wait_for(lambda: len(demo.api.all_readings()) >= 4, "readings are stored")
        below = descendants(demo.process.pid)
        demo.process.signal(signal.SIGINT)
        assert demo.process.wait() == 0
        first = result(demo.process)
    assert (first["missing"], first["duplicated"]) == (0, 0)
    assert alive(below) == set()
    assert not any(is_open(port) for port in demo.ports)

    with running_demo(tmp_path, "second", data_dir, "--meters", "2") as demo:
        old = demo.api.all_readings()
        assert len(old) >= first["stored"]
        wait_for(lambda: len(demo.api.all_readings()) >= first["stored"] + 4, "new readings are stored")
        demo.process.signal(signal.SIGINT)
        second_code = demo.process.wait()
        kept = {reading["readingId"] for reading in old}
        second = result(demo.process)
    assert (second_code, second["missing"], second["duplicated"]) == (0, 0, 0)

    with running_demo(tmp_path, "third", data_dir, "--meters", "2") as demo:
        readings = demo.api.all_readings()
        assert kept <= {reading["readingId"] for reading in readings}
        for meter_id in demo.note["meters"]:
            numbers = sorted(each["sequenceNumber"] for each in readings if each["meterId"] == meter_id)
            assert numbers == list(range(1, len(numbers) + 1))


def test_nothing_outlives_a_demo_that_is_killed(tmp_path: Path) -> None:
    """And the next one in the same directory starts, with everything that was stored."""
    data_dir = tmp_path / "data"
    with running_demo(tmp_path, "killed", data_dir, "--meters", "2") as demo:
        wait_for(lambda: len(demo.api.all_readings()) >= 4, "readings are stored")
        stored = {reading["readingId"] for reading in demo.api.all_readings()}
        below = descendants(demo.process.pid)
        assert len(below) >= 6
        demo.process.kill()
    wait_for(lambda: not alive(below), f"all of {below} have ended")
    assert not any(is_open(port) for port in demo.ports)
    with running_demo(tmp_path, "again", data_dir, "--meters", "2") as demo:
        wait_for(lambda: stored <= {each["readingId"] for each in demo.api.all_readings()}, "what was stored is there")
