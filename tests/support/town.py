"""Reads a virtual town with Meterway's own links, decoders and masters, as its written configuration says."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

from meterway.adapter.config import AdapterConfig, MeterConfig
from meterway.adapter.converse import AskedLink
from meterway.adapter.links import open_link
from meterway.bus.bus import BrokerConfig
from meterway.core.config import load_config
from meterway.core.errors import TransientError
from meterway.demo.town import write_config
from meterway.meter.codec import CodecError
from meterway.meter.driver import MeterSetup
from meterway.meter.keys import load_keys
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.ledger import LedgerLine, read_ledger
from meterway.meter.virtual.town.lines import TownOffer
from meterway.meter.virtual.town.record import Summary
from meterway.meter.virtual.town.serve import TownRun, serve_town
from meterway.plugins import find_family, load_driver, make_decoder, make_master

DEADLINE_S = 90.0
Items = list[Telegram | CodecError]


class RunningTown:
    """A town in the background, with its configuration written to ``folder``."""

    def __init__(self, run: TownRun, folder: Path) -> None:
        self.run = run
        self.offers: Sequence[TownOffer] = ()
        self.meters: tuple[MeterConfig, ...] = ()
        self._folder = folder
        self._ready = asyncio.Event()
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(serve_town(run, self._take, self._stop))

    def _take(self, offers: Sequence[TownOffer]) -> None:
        self.offers = offers
        keys = {meter.meter_id: meter.keys for meter in self.run.town.meters}
        zone = str(self.run.town.zone)
        paths = write_config(self._folder, offers, keys, zone=zone, broker=BrokerConfig())
        adapters = [load_config(path.read_text(), AdapterConfig, where=str(path)) for path in paths]
        self.meters = tuple(meter for adapter in adapters for meter in adapter.meters)
        self._ready.set()

    async def ready(self) -> None:
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({ready, self._task}, return_when=asyncio.FIRST_COMPLETED, timeout=DEADLINE_S)
        ready.cancel()
        if not self._ready.is_set():
            await self._task

    async def ended(self) -> Summary:
        """Wait until the run's own time is over."""
        return await asyncio.wait_for(self._task, DEADLINE_S)

    async def stop(self) -> Summary:
        self._stop.set()
        return await asyncio.wait_for(self._task, DEADLINE_S)


@asynccontextmanager
async def running_town(run: TownRun, folder: Path) -> AsyncIterator[RunningTown]:
    town = RunningTown(run, folder)
    try:
        await town.ready()
        yield town
    finally:
        await town.stop()


def setup_of(meter: MeterConfig) -> MeterSetup:
    family = find_family(meter.family)
    keys = load_keys(meter.key_file, meter.authentication_key_file)
    return MeterSetup(family=family, zone=ZoneInfo(meter.timezone or "UTC"), keys=keys, address=meter.address)


def is_asked(meter: MeterConfig) -> bool:
    family = find_family(meter.family)
    return load_driver(family.protocol).asks(family)


@dataclass
class Heard:
    """What came from one meter that sends by itself."""

    meter: MeterConfig
    items: Items = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)

    @property
    def telegrams(self) -> list[Telegram]:
        return [item for item in self.items if isinstance(item, Telegram)]

    @property
    def reasons(self) -> list[str]:
        return [item.reason for item in self.items if isinstance(item, CodecError)]

    async def listen(self) -> None:
        """Read to the end, as an adapter does."""
        setup = setup_of(self.meter)
        decoder = make_decoder(setup)
        try:
            async with open_link(self.meter.source, setup.family.line) as link:
                while True:
                    data = await link.read()
                    self.data += data
                    self.items += decoder.feed(data, time.monotonic())
                    if link.message_bounded:
                        self.items += decoder.idle(time.monotonic())
        except TransientError:
            self.items += decoder.idle(time.monotonic() + 10)


async def ask(meters: Sequence[MeterConfig]) -> dict[str, Items]:
    """Ask all meters of one link once; return what each said."""
    setups = [setup_of(meter) for meter in meters]
    line = setups[0].family.line
    said: dict[str, Items] = {}
    async with open_link(meters[0].source, line) as link:
        asked = AskedLink(link, line, where="town", monotonic=time.monotonic)
        for meter, setup in zip(meters, setups, strict=True):
            found: Items = []
            error = await asked.converse(make_master(setup), setup.family.line, found, limit_s=60)
            assert error is None, f"{meter.family}: {error}"
            said[meter.id] = found
    return said


def lines_of(ledger: Path, meter_id: str, *states: str) -> list[LedgerLine]:
    return [line for line in read_ledger(ledger) if line.meter_id == meter_id and line.state in states]


def numbers(telegram: Telegram) -> dict[str, Decimal]:
    return {str(each.obis): each.value for each in telegram.registers if isinstance(each.value, Decimal)}


def states(telegram: Telegram, values: Mapping[str, str]) -> bool:
    """Return whether a telegram states exactly these numbers (and perhaps others)."""
    found = numbers(telegram)
    return all(code in found and found[code] == Decimal(value) for code, value in values.items())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.02)
