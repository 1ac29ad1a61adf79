"""Starts the platform: broker, cloud, concentrator, virtual meters and adapter, each a process of its own."""

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from meterway.adapter.config import AdapterConfig, ChannelConfig, MeterConfig, Source
from meterway.bus.broker import EmbeddedBroker
from meterway.cloud.config import CloudConfig, DatabaseConfig, HttpConfig, IngestConfig
from meterway.concentrator.config import ConcentratorConfig
from meterway.core.config import decode_path, load_config
from meterway.core.errors import SetupError
from meterway.demo.town import names
from meterway.edge import component
from meterway.meter.virtual.town.lines import TownOffer
from meterway.process import ChildProcess, Command

PAGE_PORT = 8420
"""Where the page is if that port is free; else any free port."""

TOWN_PROFILE = "street"
_FAMILIES = {"p1": "p1-generic", "sml": "sml-generic"}
_METERS_STOP_WITHIN_S = 30.0
"""Longer than they wait for their readers, so that their ledgers are whole."""
_FUTURE_LIMIT_S = 100 * 366 * 86_400
"""Meters that run faster than time come to tell of the future."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to show."""

    data_dir: Path
    meters: int = 4
    speed: float = 1.0
    seed: str = "river-lane"
    faults: Sequence[str] = ()
    start: datetime = field(default_factory=lambda: datetime.now(UTC))
    """The meters' time at the start; left out: now."""
    past_s: int = 0
    """How much of the time before the start is told first, so that there is a curve to see."""
    links: Sequence[str] = field(default=("tcp", "pty"))
    """How the meters are plugged in; the kinds of links take turns."""
    households: int = 0
    """Of a virtual town beside them; its meters speak many protocols."""


class _Channel(msgspec.Struct, frozen=True):
    channel: int
    meter_id: str
    medium: str


class _Offer(msgspec.Struct, frozen=True):
    """What ``meterway meter virtual --json`` says of one meter; ``source`` is as an adapter's configuration has it."""

    meter_id: str
    kind: str
    source: Source
    channels: tuple[_Channel, ...]

    def names(self, house: str) -> dict[str, str]:
        """Return a name for the meter and for each behind it, by their ids."""
        behind = {channel.meter_id: f"{house}, {channel.medium}" for channel in self.channels}
        return {self.meter_id: f"{house}, electricity", **behind}

    @property
    def config(self) -> MeterConfig:
        """How an adapter reads it."""
        return MeterConfig(
            id=self.meter_id,
            family=_FAMILIES[self.kind],
            source=self.source,
            timezone="Europe/Vienna",
            clock="recorded",
            watchdog_s=15,
            channels=tuple(ChannelConfig(channel=each.channel, id=each.meter_id) for each in self.channels),
        )


class Platform:
    """The running platform. Every process is started again when it dies; its data lie in ``options.data_dir``."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._folder = options.data_dir / "config"
        self._stack = AsyncExitStack()
        self._meters = AsyncExitStack()
        self.broker = EmbeddedBroker(options.data_dir / "broker")
        self.processes: dict[str, ChildProcess] = {}
        self.meter_names: dict[str, str] = {}
        """What people would call each meter, by its id."""
        self.page_url = ""
        self.ledgers: list[Path] = []

    async def __aenter__(self) -> Self:
        """Start everything, in the order of the data's way back: who receives is there before who sends.

        Raises:
            SetupError: something cannot be started; says what.
        """
        try:
            await self._stack.enter_async_context(self.broker)
            await self._start_cloud()
            await self._start_concentrator()
            await self._start_meters()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        """Stop in the direction of the data: who sends goes first."""
        await self._meters.aclose()
        await self._stack.aclose()

    async def stop_meters(self) -> None:
        """Let the virtual meters end after a whole telegram; all else goes on."""
        await self._meters.aclose()

    def note(self) -> dict[str, object]:
        """Return what ``demo.json`` says: where to look, and how to watch with any MQTT client."""
        observer = self.broker.config("observer")
        password_file = observer.password_file
        return {
            "page": self.page_url,
            "api": f"{self.page_url}v1/",
            "broker": {
                "url": observer.url,
                "username": observer.username,
                "password": password_file.read_text().strip() if password_file else "",
            },
            "meters": list(self.meter_names),
            "data_dir": str(self.options.data_dir),
            "pid": os.getpid(),
        }

    async def _run(self, stack: AsyncExitStack, command: Command) -> ChildProcess:
        process = await stack.enter_async_context(ChildProcess(command))
        self.processes[command.name] = process
        return process

    async def _start_cloud(self) -> None:
        """Start the cloud, on another port if somebody takes the first one meanwhile."""
        for wanted in (PAGE_PORT, 0):
            port = _free_port(wanted)
            config = CloudConfig(
                broker=self.broker.config(),
                database=DatabaseConfig(embedded=self.options.data_dir / "postgres"),
                http=HttpConfig(port=port, open=True),
                ingest=IngestConfig(future_limit_s=_FUTURE_LIMIT_S),
            )
            try:
                await self._run(self._stack, component("cloud", config, self._folder))
            except SetupError as error:
                if wanted and "already in use" in str(error):
                    continue
                raise
            self.page_url = f"http://127.0.0.1:{port}/"
            return

    async def _start_concentrator(self) -> None:
        broker = self.broker.config()
        spool_dir = self.options.data_dir / "spool" / "concentrator"
        config = ConcentratorConfig(id="demo", local=broker, cloud=broker, spool_dir=spool_dir)
        await self._run(self._stack, component("concentrator", config, self._folder))

    async def _start_meters(self) -> None:
        """Start the meters and the adapter that reads them; the adapter outlives the meters."""
        links = list(self.options.links)[: self.options.meters]
        counts = [len(range(position, self.options.meters, len(links))) for position in range(len(links))]
        meters: list[MeterConfig] = []
        for link, meter_count in zip(links, counts, strict=True):
            process = await self._run(self._meters, self._virtual_meters(link, meter_count))
            offers = msgspec.convert(process.ready_message["meters"], list[_Offer], dec_hook=decode_path)
            for offer in offers:
                meters.append(offer.config)
                self.meter_names.update(offer.names(f"House {len(meters)}"))
        if self.options.households:
            meters += await self._start_town()
        adapter = AdapterConfig(
            id="demo",
            meters=tuple(meters),
            broker=self.broker.config(),
            spool_dir=self.options.data_dir / "spool" / "adapter",
        )
        await self._run(self._stack, component("adapter", adapter, self._folder))

    async def _start_town(self) -> tuple[MeterConfig, ...]:
        """Start the town; return how its meters are read, as it wrote it down."""
        options = self.options
        folder, ledger = options.data_dir / "town", options.data_dir / "ledger-town.jsonl"
        ledger.unlink(missing_ok=True)
        self.ledgers.append(ledger)
        arguments = [sys.executable, "-m", "meterway", "meter", "town", "--json", "--profile", TOWN_PROFILE]
        arguments += ["--households", str(options.households), "--seed", options.seed, "--speed", str(options.speed)]
        arguments += ["--start", options.start.isoformat(), "--past", str(options.past_s)]
        arguments += ["--ledger", str(ledger), "--config-dir", str(folder)]
        process = await self._run(
            self._meters, Command(name="meters-town", arguments=arguments, stop_within_s=_METERS_STOP_WITHIN_S)
        )
        for offer in msgspec.convert(process.ready_message["meters"], list[TownOffer], str_keys=True):
            self.meter_names.update(names(offer))
        path = folder / "adapter.toml"
        return load_config(path.read_text(encoding="utf-8"), AdapterConfig, where=str(path)).meters

    def _virtual_meters(self, link: str, meter_count: int) -> Command:
        options = self.options
        ledger = options.data_dir / f"ledger-{link}.jsonl"
        ledger.unlink(missing_ok=True)
        self.ledgers.append(ledger)
        arguments = [sys.executable, "-m", "meterway", "meter", "virtual", "--json", f"--{link}"]
        if link == "tcp":
            arguments.append("0")
        else:  # links that go with the meters: the system soon gives a number in /dev/pts to somebody else's terminal
            arguments += ["--alias-folder", str(options.data_dir / "ptys")]
        arguments += ["--kind", "p1", "--kind", "sml", "--count", str(meter_count), "--speed", str(options.speed)]
        arguments += ["--seed", f"{options.seed}-{link}", "--ledger", str(ledger)]
        arguments += ["--start", options.start.isoformat()]
        arguments += ["--past", str(options.past_s)]
        for fault in options.faults:
            arguments += ["--fault", fault]
        return Command(name=f"meters-{link}", arguments=arguments, stop_within_s=_METERS_STOP_WITHIN_S)


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            number: int = probe.getsockname()[1]
            return number
    return 0
