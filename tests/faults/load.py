"""The platform under load, its processes to be killed, and the way back to rest."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import httpx
import msgspec

from faults.truth import GOOD, Truth, Verdict, judge, truth_of
from meterway.adapter.config import AdapterConfig
from meterway.cloud.postgres import Cluster
from meterway.concentrator.config import ConcentratorConfig
from meterway.core.config import dump_config, load_config
from meterway.core.errors import MeterwayError
from meterway.delivery.config import RelayConfig
from meterway.demo.count import Count, StoredReading, count
from meterway.demo.platform import Options, Platform
from meterway.meter.virtual.ledger import read_ledger
from meterway.process import ChildProcess, Command
from support.platform import Api

METERS, SPEED = 10, 20.0
"""Together 200 telegrams a second."""
RECOVERY_S = 100.0
RECOVERED = 20
"""So many readings accepted after a fault must be stored before it is over: a tenth of a second's."""
RETRY_S = 3.0
"""What has no receipt is sent again after so long, in place of 30 s: a receipt may die with who wrote it."""

BROKEN = Path(__file__).with_name("broken.py")
_IMPATIENT: dict[str, type[AdapterConfig] | type[ConcentratorConfig]] = {
    "adapter": AdapterConfig,
    "concentrator": ConcentratorConfig,
}


class Load(Platform):
    """The platform, with one component replaced by a wrong one where ``broken`` says so."""

    def __init__(self, data_dir: Path, broken: dict[str, str] | None = None) -> None:
        super().__init__(Options(data_dir=data_dir, meters=METERS, speed=SPEED, seed="faults"))
        self._broken = broken or {}

    async def _run(self, stack: AsyncExitStack, command: Command) -> ChildProcess:
        if command.name in _IMPATIENT:
            path = Path(command.arguments[-2])
            config = load_config(path.read_text(), _IMPATIENT[command.name], where=command.name)
            path.write_text(dump_config(msgspec.structs.replace(config, relay=RelayConfig(retry_s=RETRY_S))))
        variant = self._broken.get(command.name)
        if variant is not None:
            python, _, _, *arguments = command.arguments
            command = Command(name=command.name, arguments=[python, str(BROKEN), variant, *arguments])
        return await super()._run(stack, command)

    @property
    def api(self) -> Api:
        return Api(self.page_url)

    def pid_of(self, victim: str) -> int | None:
        """Return the process that now is ``victim``, if it runs."""
        if victim == "broker":
            return self.broker.pid
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

    async def stored(self) -> int:
        """Return how many readings are stored; -1 while the cloud does not answer."""
        try:
            return len(await asyncio.to_thread(self.api.all_readings))
        except (httpx.HTTPError, AssertionError):
            return -1

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

    async def newest(self) -> dict[str, int]:
        """Return the highest stored sequence number of each meter; nothing while the database does not answer."""
        try:
            connection = await asyncpg.connect(Cluster(self.options.data_dir / "postgres").dsn, timeout=5)
        except (OSError, TimeoutError, asyncpg.PostgresError, MeterwayError):
            return {}
        try:
            rows = await connection.fetch("select meter_id, last_sequence_number from meter where last_sequence_number > 0")
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
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
            return (await self.truth()).pending == 0 and await self.stored() >= truth.total

        try:
            await until(drained, "the chain is drained", within_s)
        except AssertionError as error:
            sys.stderr.write(f"{error}\n")
        return truth, await asyncio.to_thread(judge, truth, self.api)

    async def count(self) -> Count:
        """Compare the ledgers of the meters with what is stored."""
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
