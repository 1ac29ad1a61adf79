"""All lines of a town: opened, offered to readers, closed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from meterway.core.errors import SetupError
from meterway.meter.virtual.links import Link, Moved, PtyLink, SerialAddress, TcpAddress, TcpLink
from meterway.meter.virtual.town.answer import Clock, Conversation, MeterConversation, SegmentConversation
from meterway.meter.virtual.town.asked import AskedLine, AskedPty, AskedTcp
from meterway.meter.virtual.town.meter import TownMeter
from meterway.meter.virtual.town.record import Books
from meterway.meter.virtual.town.speak import SpeakingLine
from meterway.meter.virtual.town.town import Town
from meterway.meter.virtual.town.voices.catalogue import Asked, Push

_PORT_LIMIT: Final = 65_535


class HttpAddress(msgspec.Struct, frozen=True, tag="http"):
    """What a reader polls."""

    url: str

    def __str__(self) -> str:
        return self.url


Address = TcpAddress | SerialAddress | HttpAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the lines are offered."""

    host: str = "127.0.0.1"
    tcp_port: int = 0
    """0 takes free ones; else the first line's, the others follow."""
    pty: bool = False
    """Offer pseudo-terminals in place of TCP; meters at optical heads that change their baud rate have them always, and
    those that are polled over HTTP never."""
    alias_folder: Path | None = None
    """Where symbolic links to the pseudo-terminals are made, named by the meter id."""


ANYWHERE: Final = Places()


class TownOffer(msgspec.Struct, frozen=True, kw_only=True):
    """Where one meter can be read."""

    meter_id: str
    household: int
    medium: str
    family: str
    protocol: str
    address: str
    """``tcp://127.0.0.1:8001``, the path of a pty, or a URL."""
    source: Address
    """The same as the ``source`` table of an adapter's configuration."""
    unit: str = ""
    """Which meter of a shared line: its primary address on an M-Bus segment, a radio meter's number."""
    interval_s: float
    """On the wall: the interval of the meter divided by the speed."""
    is_asked: bool = False
    sealed: bool = False
    channels: dict[int, tuple[str, str]] = msgspec.field(default_factory=dict)
    """Meters behind it: id and medium by M-Bus channel."""


class Lines:
    """The lines, and who speaks on them."""

    def __init__(self, places: Places, clock: Clock, books: Books, *, speed: float, least_interval_s: int) -> None:
        self.speaking: list[SpeakingLine] = []
        self.offers: list[TownOffer] = []
        self._places = places
        self._clock = clock
        self._books = books
        self._speed = speed
        self._least_interval_s = least_interval_s
        self._links: list[Link] = []
        self._asked: list[AskedLine] = []
        self._port = places.tcp_port

    async def open(self, town: Town) -> None:
        """Make all lines.

        Raises:
            SetupError: a port is taken, no pty is to be had.
        """
        count = len(town.push) + len(town.asked) + len(town.receivers) + len(town.segments)
        if self._port and self._port + count - 1 > _PORT_LIMIT:
            raise SetupError(f"{count} ports from {self._port} on exceed {_PORT_LIMIT}; --tcp 0 takes free ports")
        for meter in town.push:
            self._speak(meter, await self._link(meter))
        for receiver in town.receivers:
            link = await self._link(receiver[0])
            for meter in receiver:
                self._speak(meter, link, unit=f"{meter.serial(self._clock()):08d}")
        for meter in town.asked:
            assert isinstance(meter.voice, Asked)  # noqa: S101 - the town's list of such meters
            address = await self._answer(meter, MeterConversation(meter, self._clock, self._books), meter.voice.link)
            self._offer(meter, address, unit=meter.voice.unit)
        for segment in town.segments:
            address = await self._answer(segment[0], SegmentConversation(segment, self._clock, self._books), "tcp")
            for unit, meter in enumerate(segment, 1):
                self._offer(meter, address, unit=str(unit))

    def _speak(self, meter: TownMeter, link: Link, *, unit: str = "") -> None:
        line = SpeakingLine(meter, link, self._books, least_interval_s=self._least_interval_s)
        self.speaking.append(line)
        self._offer(meter, link.address, unit=unit, interval_s=line.interval_s)

    async def _link(self, meter: TownMeter) -> Link:
        places, moved = self._places, self._moved(meter)
        link: Link
        if places.pty:
            link = PtyLink(self._books.counters, moved, self._alias(meter))
        else:
            link = await TcpLink.open(places.host, self._next_port(), self._books.counters, moved)
        self._links.append(link)
        return link

    async def _answer(self, meter: TownMeter, conversation: Conversation, link: str) -> Address:
        """Open a line with a conversation on it; return where it is."""
        places = self._places
        line: AskedLine
        if link == "serial" or (places.pty and link == "tcp"):
            line = AskedPty(conversation, self._alias(meter))
        else:
            line = await AskedTcp.open(places.host, self._next_port(), conversation, self._moved(meter))
        self._asked.append(line)
        address = line.address
        if link == "http" and isinstance(address, TcpAddress):
            return HttpAddress(f"http{str(address).removeprefix('tcp')}/api/v1/data")
        return address

    def _offer(self, meter: TownMeter, address: Address, *, unit: str, interval_s: int | None = None) -> None:
        meter.shown(self._clock())  # a wrong start shows now, and the first telegram need not wait
        self.offers.append(
            TownOffer(
                meter_id=meter.meter_id,
                household=meter.dwelling.number,
                medium=meter.medium,
                family=meter.family,
                protocol=meter.voice.protocol if meter.voice else "",
                address=str(address),
                source=address,
                unit=unit,
                interval_s=(interval_s or meter.interval_s) / self._speed,
                is_asked=not isinstance(meter.voice, Push),
                sealed=meter.is_sealed,
                channels={number: (each.meter_id, each.medium) for number, each in meter.behind.items()},
            )
        )

    def _moved(self, meter: TownMeter) -> Moved:
        def moved(came: bool, unread_bytes: int) -> None:  # noqa: FBT001 - one meaning, see links.Moved
            self._books.moved(meter, came=came, unread_bytes=unread_bytes)

        return moved

    def _next_port(self) -> int:
        port, self._port = self._port, self._port + bool(self._port)
        return port

    def _alias(self, meter: TownMeter) -> Path | None:
        folder = self._places.alias_folder
        return folder.absolute() / meter.meter_id if folder else None

    @property
    def busy(self) -> bool:
        """Whether a reader has not taken the end of a telegram."""
        return any(link.busy for link in self._links)

    async def close(self) -> None:
        """Close all lines."""
        for line in (*self._links, *self._asked):
            await line.close()


Ready = Callable[[list[TownOffer]], None]
