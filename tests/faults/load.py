"""The platform under load, its processes to be killed, and the way back to rest."""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import asyncpg
import httpx
import msgspec

from faults.engines import Broker, BrokerKind, running_broker
from faults.proxy import Link, link_to
from faults.truth import GOOD, Truth, Verdict, judge, truth_of
from meterway.adapter.config import AdapterConfig
from meterway.bus.bus import BrokerConfig
from meterway.bus.mqtt import answers
from meterway.cloud.config import CloudConfig, DatabaseConfig
from meterway.cloud.postgres import Cluster, EmbeddedPostgres
from meterway.concentrator.config import ConcentratorConfig
from meterway.core.config import dump_config, load_config
from meterway.core.errors import MeterwayError
from meterway.delivery.config import RelayConfig
from meterway.demo.count import Count, StoredReading, count
from meterway.demo.platform import Options, Platform
from meterway.meter.virtual.ledger import read_ledger
from meterway.process import ChildProcess, Command
from support.brokers import free_port
from support.platform import Api, descendants

METERS, SPEED = 10, 20.0
"""Together 200 telegrams a second."""
RECOVERY_S = 100.0
RECOVERED = 20
"""So many readings accepted after a fault must be stored before it is over: a tenth of a second's."""
RETRY_S = 3.0
"""What has no receipt is sent again after so long, in place of 30 s: a receipt may die with who wrote it."""

BROKEN = Path(__file__).with_name("broken.py")
_CONFIGS: dict[str, type[AdapterConfig] | type[ConcentratorConfig] | type[CloudConfig]] = {
    "adapter": AdapterConfig,
    "concentrator": ConcentratorConfig,
    "cloud": CloudConfig,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the platform is made of, where it is not as in the demo."""

    edge: BrokerKind = "nats"
    cloud: BrokerKind | None = None
    """A second broker, between concentrator and cloud; None: the edge's serves both."""
    server: bool = False
    """A PostgreSQL beside the cloud and not below it; entered as EmbeddedPostgres."""
    programs: Path | None = None
    """Of that PostgreSQL: another version."""
    linked: frozenset[str] = frozenset()
    """Which of ``LINKS`` are proxies."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """A component and the variant of ``broken.py`` that stands in its place."""
    retry_s: float = RETRY_S
    chance: random.Random = field(default_factory=lambda: random.Random(0))


ADAPTER_BROKER = "adapter - edge broker"
CONCENTRATOR_EDGE = "concentrator - edge broker"
CONCENTRATOR_CLOUD = "concentrator - cloud broker"
CLOUD_BROKER = "cloud - cloud broker"
CLOUD_DATABASE = "cloud - database"
LINKS = (ADAPTER_BROKER, CONCENTRATOR_EDGE, CONCENTRATOR_CLOUD, CLOUD_BROKER, CLOUD_DATABASE)
EVERYTHING = ("adapter", "concentrator", "edge broker", "cloud broker", "cloud", "database")
"""The processes that can be hit; without a broker of the cloud's own, ``edge broker`` is the only one."""


class Load(Platform):
    """The platform under load, put together as ``setup`` says."""

    def __init__(self, data_dir: Path, setup: Setup | None = None) -> None:
        super().__init__(Options(data_dir=data_dir, meters=METERS, speed=SPEED, seed="faults"))
        self.setup = setup or Setup()
        self.links: dict[str, Link] = {}
        self._brokers: dict[str, Broker] = {}
        self._dsn_file: Path | None = None
        self._page_port = free_port()
        """Not the demo's: while our cloud is down, another demo on the machine would take that one."""

    async def _start_cloud(self) -> None:
        """Start what the setup adds, then the cloud."""
        setup, folder = self.setup, self.options.data_dir
        self._brokers["edge broker"] = self.broker
        if setup.edge != "nats":
            broker = await self._stack.enter_async_context(running_broker(setup.edge, folder / "edge-broker"))
            self._brokers["edge broker"] = broker
        self._brokers["cloud broker"] = self._brokers["edge broker"]
        if setup.cloud is not None:
            broker = await self._stack.enter_async_context(running_broker(setup.cloud, folder / "cloud-broker"))
            self._brokers["cloud broker"] = broker
        for name in sorted(setup.linked - {CLOUD_DATABASE}):
            target = self._brokers[name.partition(" - ")[2]]
            self.links[name] = await self._stack.enter_async_context(link_to(target.port, setup.chance))
        if setup.server or CLOUD_DATABASE in setup.linked:
            await self._start_server()
        await super()._start_cloud()
        self.page_url = f"http://127.0.0.1:{self._page_port}/"

    async def _start_server(self) -> None:
        """Start PostgreSQL outside of the cloud, and a link to it if there is to be one."""
        folder = self.options.data_dir / "postgres"
        database = await self._stack.enter_async_context(EmbeddedPostgres(folder, programs=self.setup.programs))
        dsn = database.dsn
        if CLOUD_DATABASE in self.setup.linked:
            sockets = Cluster(folder).socket_dir
            front = Path(self._stack.enter_context(TemporaryDirectory(prefix="mwlink-")))
            name = ".s.PGSQL.5432"
            link = link_to(sockets / name, self.setup.chance, path=front / name)
            self.links[CLOUD_DATABASE] = await self._stack.enter_async_context(link)
            dsn = dsn.replace(quote(str(sockets), safe="/"), quote(str(front), safe="/"))
        self._dsn_file = self.options.data_dir / "dsn"
        self._dsn_file.touch(mode=0o600)
        self._dsn_file.write_text(dsn)

    def _reach(self, broker: str, component_name: str) -> BrokerConfig:
        """Return how a component reaches a broker, through its link if there is one."""
        config = self._brokers[broker].config()
        link = self.links.get(f"{component_name} - {broker}")
        return config if link is None else msgspec.structs.replace(config, url=f"mqtt://127.0.0.1:{link.port}")

    def _adapted(self, config: AdapterConfig | ConcentratorConfig | CloudConfig) -> msgspec.Struct:
        """Return the configuration of a component as the setup wants it."""
        relay = RelayConfig(retry_s=self.setup.retry_s)
        edge, cloud = "edge broker", "cloud broker"
        match config:
            case AdapterConfig():
                return msgspec.structs.replace(config, broker=self._reach(edge, "adapter"), relay=relay)
            case ConcentratorConfig():
                local, upstream = self._reach(edge, "concentrator"), self._reach(cloud, "concentrator")
                return msgspec.structs.replace(config, local=local, cloud=upstream, relay=relay)
            case CloudConfig():
                database = DatabaseConfig(dsn_file=self._dsn_file) if self._dsn_file else config.database
                http = msgspec.structs.replace(config.http, port=self._page_port)
                return msgspec.structs.replace(config, broker=self._reach(cloud, "cloud"), database=database, http=http)

    async def _run(self, stack: AsyncExitStack, command: Command) -> ChildProcess:
        if command.name in _CONFIGS:
            path = Path(command.arguments[-2])
            config = load_config(path.read_text(), _CONFIGS[command.name], where=command.name)
            path.write_text(dump_config(self._adapted(config)))
        variant = self.setup.broken.get(command.name)
        if variant is not None:
            python, _, _, *arguments = command.arguments
            command = replace(command, arguments=[python, str(BROKEN), variant, *arguments])
        return await super()._run(stack, command)

    @property
    def api(self) -> Api:
        return Api(self.page_url)

    def pid_of(self, victim: str) -> int | None:
        """Return the process that now is ``victim``, if it runs."""
        if victim in self._brokers:
            return self._brokers[victim].pid
        if victim == "database":
            try:
                pid_file = self.options.data_dir / "postgres" / "cluster" / "postmaster.pid"
                return int(pid_file.read_text().split()[0])
            except (OSError, ValueError, IndexError):
                return None
        return self.processes[victim].pid

    async def send(self, victim: str, number: signal.Signals) -> None:
        """Send a signal to the process that is ``victim``; one that is down just now is waited for."""
        await until(lambda: _done(self.pid_of(victim) is not None), f"{victim} runs")
        pid = self.pid_of(victim)
        assert pid is not None
        os.kill(pid, number)

    async def stand_still(self, victim: str, for_s: float) -> None:
        """Stop ``victim``, with the processes below it that are its own kind, for a while."""
        pid = self.pid_of(victim)
        assert pid is not None, f"{victim} runs"
        pids = [pid, *(descendants(pid) if victim == "database" else ())]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for each in pids:
                with suppress(ProcessLookupError):
                    os.kill(each, number)
            if number == signal.SIGSTOP:
                await asyncio.sleep(for_s)

    async def stored(self) -> int:
        """Return how many readings are stored; -1 while the cloud does not answer."""
        try:
            return len(await asyncio.to_thread(self.api.all_readings))
        except (httpx.HTTPError, AssertionError):
            return -1

    async def different(self) -> int:
        """Return how many different readings are stored; -1 while the cloud does not answer."""
        try:
            readings = await asyncio.to_thread(self.api.all_readings)
        except (httpx.HTTPError, AssertionError):
            return -1
        return len({(each["meterId"], each["sequenceNumber"]) for each in readings})

    async def flows(self, more: int = 300) -> None:
        """Return when so many more readings are stored than now."""
        goal: int | None = None

        async def reached() -> bool:
            nonlocal goal
            stored = await self.stored()
            if goal is None and stored >= 0:
                goal = stored + more
            return goal is not None and stored >= goal

        await until(reached, f"{more} more readings are stored")

    async def recovered(self) -> float:
        """Return after how many seconds from now ``RECOVERED`` readings accepted after now are stored."""
        started_s = time.monotonic()
        accepted = (await self.truth()).accepted

        async def reached() -> bool:
            newest = await self.newest()
            after = sum(max(newest[each] - accepted.get(each, 0), 0) for each in newest)
            return after >= RECOVERED

        await until(reached, "new readings are stored again")
        return time.monotonic() - started_s

    async def answers_after(self, victim: str) -> str:
        """Return how long a killed broker itself took to be there again, as a note; nothing for other victims."""
        if victim not in self._brokers:
            return ""
        started_s, config = time.monotonic(), self._brokers[victim].config()
        await until(lambda: answers(config), f"{victim} answers")
        return f"it answers after {time.monotonic() - started_s:.1f} s"

    async def newest(self) -> dict[str, int]:
        """Return the highest stored sequence number of each meter; nothing while the database does not answer."""
        try:
            connection = await asyncpg.connect(Cluster(self.options.data_dir / "postgres").dsn, timeout=5)
        except (OSError, TimeoutError, asyncpg.PostgresError, MeterwayError):
            return {}
        try:
            rows = await connection.fetch(
                "select meter_id, last_sequence_number from meter where last_sequence_number > 0"
            )
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            return {}
        finally:
            connection.terminate()
        return {str(meter_id): number for meter_id, number in rows}

    async def truth(self) -> Truth:
        return await truth_of(self.options.data_dir / "spool" / "adapter")

    async def rest(self) -> Truth:
        """Stop the meters; return what was accepted once nothing more is."""
        await self.stop_meters()
        last = -1
        while last != (truth := await self.truth()).total:
            last = truth.total
            await asyncio.sleep(1)
        return truth

    async def settle(self, within_s: float = RECOVERY_S) -> tuple[Truth, Verdict]:
        """Stop the meters and let the chain drain, as long as that may take; return what was found then."""
        truth = await self.rest()

        async def drained() -> bool:
            nonlocal truth
            truth = await self.truth()
            return truth.pending == 0 and await self.different() >= truth.total

        while True:
            try:
                await until(drained, "the chain is drained", within_s)
            except AssertionError as error:
                sys.stderr.write(f"{error}\n")
            verdict = await asyncio.to_thread(judge, truth, self.api)
            if (await self.truth()).total == truth.total:  # else a busy adapter had more to read
                return truth, verdict

    async def count(self, within_s: float = RECOVERY_S) -> Count:
        """Compare the ledgers of the meters with what is stored; wait for what a busy adapter had not read yet."""
        end_s = time.monotonic() + within_s
        while (counted := await self._counted()).missing and time.monotonic() < end_s:
            await asyncio.sleep(1)
        return counted

    async def _counted(self) -> Count:
        stored = msgspec.convert(await asyncio.to_thread(self.api.all_readings), list[StoredReading])
        lines = [line for ledger in self.ledgers for line in read_ledger(ledger)]
        return count(lines, stored, len(stored), 0)


async def until(condition: Callable[[], Awaitable[bool]], what: str, within_s: float = RECOVERY_S) -> None:
    """Wait until ``condition`` holds."""
    try:
        async with asyncio.timeout(within_s):
            while not await condition():
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"not within {within_s:.0f} s: {what}") from None


async def _done(value: bool) -> bool:
    return value


def assert_good(truth: Truth, verdict: Verdict) -> None:
    """Every accepted reading is stored once, as it was published."""
    assert verdict == GOOD, f"{verdict} of {truth.total}"
    assert truth.total > 0
    assert len(truth.readings) == truth.total, "the spool still has every reading, so every row was compared"
