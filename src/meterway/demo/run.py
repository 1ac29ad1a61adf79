"""A demo from start to end: run the platform, watch the bus, and in the end count."""

import asyncio
import logging
import os
import urllib.request
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlencode

import msgspec

from meterway.bus.bus import Delivery
from meterway.bus.mqtt import MqttBus
from meterway.core.errors import TransientError
from meterway.core.topics import SpecificTopic
from meterway.demo.count import Count, StoredReading, count
from meterway.demo.platform import Platform
from meterway.durable_file import write_private
from meterway.meter.virtual.ledger import read_ledger

_log = logging.getLogger(__name__)

DRAIN_LIMIT_S = 60.0
"""How long the chain may stand still, at the end, before what has not arrived is called missing."""
_UNREAD_LIMIT_S = 20.0
"""How long a busy adapter may have telegrams before it that it has not read, when all that it published is stored."""
_LOOK_INTERVAL_S = 0.5
_NAMING_LIMIT_S = 60.0
_LONGEST_CAPTURE = timedelta(hours=2)
"""A gas or water value may be this much older than the telegram that carries it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What is known while a demo runs."""

    published: int
    stored: int


class Watcher:
    """Sees the demo's readings on ``smartMeterMessage/+/readings`` as any MQTT client could, logged in as the observer.

    What others publish there is not the demo's and is not counted.
    """

    def __init__(self, meter_ids: Collection[str]) -> None:
        self._meter_ids = meter_ids
        self.reading_times: dict[str, datetime] = {}
        """Of the readings that were seen, by their identifiers."""

    def see(self, delivery: Delivery) -> None:
        """Take note of a message."""
        _, meter_id, _ = delivery.topic.split("/")
        if meter_id in self._meter_ids:
            with suppress(msgspec.DecodeError):
                reading = msgspec.json.decode(delivery.payload, type=_Published)
                self.reading_times[reading.meter_reading_identifier] = reading.reading_time
        delivery.ack()


class _Published(msgspec.Struct, rename="camel"):
    meter_reading_identifier: str
    reading_time: datetime


@asynccontextmanager
async def watching(platform: Platform) -> AsyncIterator[Watcher]:
    """Watch the platform's bus."""
    watcher = Watcher(platform.meter_names.keys())
    topic_filter = f"smartMeterMessage/+/{SpecificTopic.READINGS}"
    bus = MqttBus(platform.broker.config("observer"), f"demo-watcher-{os.getpid()}", {topic_filter: watcher.see})
    async with bus:
        await bus.wait_connected()
        yield watcher


def write_note(platform: Platform) -> Path:
    """Write ``demo.json`` beside the data, readable by its owner only."""
    path = platform.options.data_dir / "demo.json"
    write_private(path, msgspec.json.format(msgspec.json.encode(platform.note()), indent=2).decode() + "\n")
    return path


async def name_meters(platform: Platform) -> None:
    """Claim and name the meters through the API, as an operator would, when they have been heard; all but the last.

    Gives up on a meter after a minute: it is only a name.
    """
    names = dict(list(platform.meter_names.items())[:-1])
    deadline_s = asyncio.get_running_loop().time() + _NAMING_LIMIT_S
    while names and asyncio.get_running_loop().time() < deadline_s:
        for meter_id, name in list(names.items()):
            if await asyncio.to_thread(_name_meter, platform, meter_id, name):
                del names[meter_id]
        await asyncio.sleep(_LOOK_INTERVAL_S)


def _name_meter(platform: Platform, meter_id: str, name: str) -> bool:
    request = urllib.request.Request(  # noqa: S310 - our own address
        f"{platform.page_url}v1/meters/{meter_id}",
        data=msgspec.json.encode({"claimed": True, "name": name}),
        headers={"Content-Type": "application/json"},
        method="PATCH",
    )
    try:
        with urllib.request.urlopen(request, timeout=_NAMING_LIMIT_S):  # noqa: S310 - as above
            return True
    except OSError:
        return False


async def finish(platform: Platform, watcher: Watcher, since: datetime, *, show: Callable[[Progress], None]) -> Count:
    """Stop the meters, wait until everything on its way has arrived, and count what was stored after ``since``.

    Raises:
        TransientError: the API does not answer, for a minute.
    """
    await platform.stop_meters()
    loop = asyncio.get_running_loop()
    stored, moved_s = -1, loop.time()
    while True:
        await _drained(platform, watcher, since, show)
        counted = await _counted(platform, watcher, since)
        if counted.stored != stored:
            stored, moved_s = counted.stored, loop.time()
        if not counted.missing or loop.time() - moved_s > _UNREAD_LIMIT_S:
            return counted


async def _counted(platform: Platform, watcher: Watcher, since: datetime) -> Count:
    published, stored = await asyncio.to_thread(_look, platform, watcher, since)
    telegrams = (line for ledger in platform.ledgers for line in read_ledger(ledger))
    quarantined = await asyncio.to_thread(_quarantined, platform, since)
    begin = min(since, _first_instant(platform))
    return await asyncio.to_thread(count, telegrams, stored, published, quarantined, begin=begin)


async def _drained(platform: Platform, watcher: Watcher, since: datetime, show: Callable[[Progress], None]) -> None:
    """Return when as much is stored as was published and both stand still, or nothing moves any more."""
    loop = asyncio.get_running_loop()
    last: Progress | None = None
    moved_s, said = loop.time(), ""
    while True:
        await asyncio.sleep(_LOOK_INTERVAL_S)
        try:
            published, stored = await asyncio.to_thread(_look, platform, watcher, since)
        except TransientError as error:
            if str(error) != said:
                said = str(error)
                _log.warning("! %s", error)
            now = Progress(len(watcher.reading_times), last.stored if last else 0)
        else:
            now = Progress(published, len(stored))
        if now == last and now.published == now.stored:
            return
        if now != last:
            show(now)
            last, moved_s = now, loop.time()
        elif loop.time() - moved_s > DRAIN_LIMIT_S:
            return


def _first_instant(platform: Platform) -> datetime:
    """Return the first instant that the meters told of; they count in whole seconds, those on M-Bus in minutes."""
    options = platform.options
    first = options.start - timedelta(seconds=options.past_s)
    return first.replace(second=0, microsecond=0) if options.households else first.replace(microsecond=0)


def _look(platform: Platform, watcher: Watcher, since: datetime) -> tuple[int, Sequence[StoredReading]]:
    """Ask the API, as any user would; return how many readings were published, and those stored after ``since``.

    Only of the demo's own meters. What an earlier run left in a spool, or is only sent again, does not count.

    Raises:
        TransientError: the API does not answer.
    """
    start = _first_instant(platform) - _LONGEST_CAPTURE
    query = urlencode({"format": "ndjson", "readingTimeStart": start.astimezone(UTC).isoformat()})
    decoder = msgspec.json.Decoder(StoredReading)
    readings = map(decoder.decode, _get_lines(f"{platform.page_url}v1/meterReadings/bulk?{query}"))
    old: set[str] = set()
    stored: list[StoredReading] = []
    for reading in readings:
        if reading.stored_time < since:
            old.add(reading.reading_id)
        elif reading.meter_id in platform.meter_names:
            stored.append(reading)
    published = [each for each, time in watcher.reading_times.items() if time >= start and each not in old]
    return len(published), stored


def _quarantined(platform: Platform, since: datetime) -> int:
    """Count what the cloud has put into quarantine since ``since``, page by page."""
    count_items, before = 0, ""
    while True:
        answer = b"".join(_get_lines(f"{platform.page_url}v1/quarantine{before}"))
        page = msgspec.json.decode(answer, type=_QuarantineList)
        new = sum(item.received_time >= since for item in page.content)
        count_items += new
        if page.next_before is None or new < len(page.content):
            return count_items
        before = f"?before={page.next_before}"


class _QuarantineItem(msgspec.Struct, rename="camel"):
    received_time: datetime


class _QuarantineList(msgspec.Struct, rename="camel"):
    content: tuple[_QuarantineItem, ...]
    next_before: int | None


def _get_lines(url: str) -> Iterator[bytes]:
    try:
        with urllib.request.urlopen(url, timeout=DRAIN_LIMIT_S) as answer:  # noqa: S310 - our own address
            yield from answer
    except (OSError, HTTPException) as error:
        raise TransientError(f"the API does not answer: {error}") from error
