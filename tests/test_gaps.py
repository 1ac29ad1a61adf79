"""The delivery ledger end to end: a real meter's line, adapter, concentrator and cloud; what went wrong is said."""

import json
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from meterway.adapter.config import AdapterConfig, MeterConfig, TcpSource
from meterway.concentrator.config import ConcentratorConfig
from meterway.meter.crc import crc16_arc
from support.brokers import RunningBroker
from support.platform import COMMAND, Api, component, running_cloud, wait_for
from support.postgres import Server

METER = "11111111-1111-4111-8111-111111111111"
ZONE = ZoneInfo("Europe/Amsterdam")


class Meter:
    """A P1 meter on a TCP port that says every second what time it is."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._clients: list[socket.socket] = []
        self._stop = threading.Event()
        self._to_spoil = 0
        self._threads = [threading.Thread(target=self._accept), threading.Thread(target=self._speak)]

    @contextmanager
    def speaking(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            for thread in self._threads:
                thread.join()
            for client in self._clients:
                client.close()

    def spoil(self, count: int) -> None:
        """Say the next telegrams with a wrong checksum."""
        self._to_spoil = count

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._clients.append(self._socket.accept()[0])

    def _speak(self) -> None:
        moment = datetime.now(UTC).replace(microsecond=0)
        while not self._stop.wait((moment - datetime.now(UTC)).total_seconds()):
            data = telegram(moment, spoilt=self._to_spoil > 0)
            if self._clients and self._to_spoil:
                self._to_spoil -= 1
            for client in list(self._clients):
                try:
                    client.sendall(data)
                except OSError:
                    self._clients.remove(client)
                    client.close()
            moment += timedelta(seconds=1)


def telegram(moment: datetime, *, spoilt: bool) -> bytes:
    """Return a telegram of that time."""
    local = moment.astimezone(ZONE)
    season = "S" if local.dst() else "W"
    text = f"/MWY5\\GAPS\r\n\r\n0-0:1.0.0({local:%y%m%d%H%M%S}{season})\r\n1-0:1.8.1(004321.098*kWh)\r\n!".encode()
    return text + f"{crc16_arc(text) ^ (0x5555 if spoilt else 0):04X}\r\n".encode()


def gaps_of(api: Api) -> list[dict[str, Any]]:
    """Return what ``meterway gaps`` says of the meter; nothing is lost."""
    said = subprocess.run(
        [*COMMAND, "gaps", "--url", api.url, "--meter", METER, "--json"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    gaps: list[dict[str, Any]] = json.loads(said.stdout)["gaps"]
    return gaps


@pytest.mark.timeout(240)
def test_a_damaged_telegram_and_a_stopped_adapter_are_told_apart(
    nats: RunningBroker, postgres_server: Server, tmp_path: Path
) -> None:
    meter = Meter()
    reading = AdapterConfig(
        id="a",
        broker=nats.config,
        spool_dir=tmp_path / "adapter-spool",
        meters=(
            MeterConfig(id=METER, source=TcpSource(host="127.0.0.1", port=meter.port), timezone="Europe/Amsterdam"),
        ),
    )
    forwarding = ConcentratorConfig(id="c", spool_dir=tmp_path / "spool", local=nats.config, cloud=nats.config)

    def stored() -> int:
        return len(api.all_readings())

    def state() -> str:
        found: str = api.get(f"/v1/meters/{METER}")["state"]
        return found

    with (
        running_cloud(tmp_path / "cloud", nats.config, postgres_server) as api,
        component(tmp_path / "c", "concentrator", forwarding),
        meter.speaking(),
    ):
        with component(tmp_path / "a1", "adapter", reading) as process:
            wait_for(lambda: stored() > 5, "readings are stored")
            meter.spoil(4)
            wait_for(lambda: any(fault["meterId"] == METER for fault in api.kept_aside("faults")), "a fault is stored")
            before = stored()
            wait_for(lambda: stored() > before + 5, "whole telegrams are stored again")
            process.signal(signal.SIGTERM)
            process.wait()
            stopped = datetime.now(UTC)
        wait_for(lambda: state() == "offline", "the cloud knows that the adapter was stopped")
        wait_for(lambda: datetime.now(UTC) - stopped > timedelta(seconds=8), "a while has passed")
        before = stored()
        with component(tmp_path / "a2", "adapter", reading):
            wait_for(lambda: stored() > before + 5, "readings are stored again")
            gaps = gaps_of(api)
    causes = [(gap["kind"], gap["cause"], gap["detail"]) for gap in gaps if gap["missing"] >= 4]
    assert causes == [
        ("not-read", "telegram-rejected", "4 × bad-checksum"),
        ("not-read", "adapter-off", "the adapter was stopped"),
    ], gaps
    assert [gap["missing"] for gap in gaps if gap["cause"] == "telegram-rejected"] == [4]


def test_how_the_cloud_is_named_must_be_clear() -> None:
    for arguments in ((), ("--url", "http://localhost:1", "--config", "cloud.toml")):
        said = subprocess.run([*COMMAND, "gaps", *arguments], capture_output=True, text=True, check=False)
        sentence = "meterway: say where the cloud is, once: --config cloud.toml or --url http://localhost:8080\n"
        assert (said.returncode, said.stderr) == (2, sentence)


def test_a_cloud_that_does_not_answer_is_a_sentence() -> None:
    said = subprocess.run(
        [*COMMAND, "gaps", "--url", "http://127.0.0.1:1"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 1
    assert said.stderr.startswith("meterway: the cloud does not answer at http://127.0.0.1:1: ")
