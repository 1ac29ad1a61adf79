"""The brokers of the fault matrix, each as the platform sees one: entered when it answers, started again when it dies.

Everything is on loopback, on free ports, in a folder of its own. Erlang's port mapper of RabbitMQ, too, is our own,
so that nothing stays behind and no other RabbitMQ of the machine is touched.
"""

import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, Protocol

from faults.scenario import CannotRunError
from meterway.bus.broker import EmbeddedBroker
from meterway.bus.bus import BrokerConfig
from meterway.bus.mqtt import answers
from meterway.process import ChildProcess, Command
from support.brokers import free_port
from support.platform import descendants

BrokerKind = Literal["nats", "mosquitto", "rabbitmq"]

PERSISTENT = "persistence true\nautosave_interval 1\nmax_queued_messages 0\n"
"""With it mosquitto writes all it has to the disk each second; the default is never before it ends."""
_RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_RABBITMQ_READY_WITHIN_S = 90.0


class Broker(Protocol):
    @property
    def pid(self) -> int | None: ...
    @property
    def port(self) -> int: ...
    def config(self) -> BrokerConfig: ...


class DebianBroker:
    """A broker that is not embedded, and asks nobody to log in."""

    def __init__(self, port: int, process: ChildProcess) -> None:
        self.port = port
        self._process = process

    @property
    def pid(self) -> int | None:
        """The broker itself, also where a shell stands around it."""
        outer = self._process.pid
        inner = {pid: command for pid, command in descendants(outer).items() if "beam.smp" in command} if outer else {}
        return min(inner, default=outer)

    def config(self) -> BrokerConfig:
        return BrokerConfig(url=f"mqtt://127.0.0.1:{self.port}")


@asynccontextmanager
async def running_broker(kind: BrokerKind, folder: Path) -> AsyncIterator[Broker]:
    """Run a broker of this kind.

    Raises:
        CannotRunError: it is not installed.
    """
    match kind:
        case "nats":
            async with EmbeddedBroker(folder) as embedded:
                yield embedded
        case "mosquitto":
            async with running_mosquitto(folder, PERSISTENT) as broker:
                yield broker
        case "rabbitmq":
            async with _running_rabbitmq(folder) as broker:
                yield broker


@asynccontextmanager
async def running_mosquitto(folder: Path, extra: str) -> AsyncIterator[DebianBroker]:
    """Run mosquitto with ``extra`` lines of configuration."""
    program = found("mosquitto")
    folder.mkdir(parents=True)
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\npersistence_location {folder}/\nallow_anonymous true\nuser root\n{extra}"
    )
    async with _running("mosquitto", [program, "-c", config], port) as broker:
        yield broker


@asynccontextmanager
async def _running_rabbitmq(folder: Path) -> AsyncIterator[DebianBroker]:
    epmd = found("epmd")
    if not _RABBITMQ.exists():
        raise CannotRunError("rabbitmq-server is not installed (scripts/setup.sh faults)")
    folder.mkdir(parents=True)
    port, amqp_port, mapper_port = free_port(), free_port(), free_port()
    (folder / "plugins").write_text("[rabbitmq_mqtt].\n")
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.default = 127.0.0.1:{amqp_port}\nmqtt.listeners.tcp.default = 127.0.0.1:{port}\n"
        "mqtt.prefetch = 1000\ndisk_free_limit.absolute = 50MB\nloopback_users = none\n"
    )
    environment = {
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(mapper_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"meterway-faults-{port}@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
    }
    mapper = Command(
        name="epmd",
        arguments=[epmd, "-address", "127.0.0.1", "-port", str(mapper_port)],
        probe=_at_once,
    )
    async with ChildProcess(mapper), _running("rabbitmq", [_RABBITMQ], port, environment) as broker:
        yield broker


async def _at_once() -> bool:
    return True


@asynccontextmanager
async def _running(
    name: str, arguments: list[str | Path], port: int, environment: Mapping[str, str] | None = None
) -> AsyncIterator[DebianBroker]:
    config = BrokerConfig(url=f"mqtt://127.0.0.1:{port}")
    command = Command(
        name=name,
        arguments=arguments,
        probe=lambda: answers(config),
        probe_every_s=0.2,
        ready_within_s=_RABBITMQ_READY_WITHIN_S,
        stop_within_s=30.0,
        orphan_signal=signal.SIGTERM,
        environment=environment or {},
    )
    async with ChildProcess(command) as process:
        yield DebianBroker(port, process)


def found(program: str) -> str:
    """Return the path of a program.

    Raises:
        CannotRunError: it is not installed.
    """
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if path is None:
        raise CannotRunError(f"{program} is not installed (scripts/setup.sh faults)")
    return path
