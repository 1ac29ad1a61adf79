"""A demo from start to end: run the platform, watch the bus, and in the end count."""

import asyncio
import logging
import os
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import msgspec

from meterway.bus.bus import Delivery
from meterway.bus.mqtt import MqttBus
from meterway.core import receipts
from meterway.core.errors import TransientError
from meterway.core.topics import SpecificTopic
from meterway.demo.count import Count, StoredReading, count
from meterway.demo.platform import Platform
from meterway.meter.virtual.ledger import read_ledger

_log = logging.getLogger(__name__)

DRAIN_LIMIT_S = 60.0
"""How long the chain may stand still, at the end, before what has not arrived is called missing."""
_LOOK_INTERVAL_S = 0.5
_NAMING_LIMIT_S = 60.0
_LONGEST_CAPTURE = timedelta(hours=2)
"""A gas or water value may be this much older than the telegram that carries it."""


@dataclass(slots=True)
class Progress:
    """What is known while a demo runs."""

    published: int
    stored: int


class Watcher:
    """Sees every reading on ``smartMeterMessage/+/readings`` as any MQTT client could, logged in as the observer."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    @property
    def published(self) -> int:
        """How many different readings were seen."""
        return len(self._digests)

    def see(self, delivery: Delivery) -> None:
        """Count a message."""
        self._digests.add(receipts.digest(delivery.topic, delivery.payload))
        delivery.ack()


@asynccontextmanager
async def watching(platform: Platform) -> AsyncIterator[Watcher]:
    """Watch the platform's bus."""
    watcher = Watcher()
    topic_filter = f"smartMeterMessage/+/{SpecificTopic.READINGS}"
    bus = MqttBus(platform.broker.config("observer"), f"demo-watcher-{os.getpid()}", {topic_filter: watcher.see})
    async with bus:
        await bus.wait_connected()
        yield watcher


def write_note(platform: Platform) -> Path:
    """Write ``demo.json`` beside the data, readable by its owner only."""
    path = platform.options.data_dir / "demo.json"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(platform.note()), indent=2) + b"\n")
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
    """Stop the meters, wait until everything on its way has arrived, and count what was stored after ``since``."""
    await platform.stop_meters()
    await _drained(platform, watcher, since, show)
    stored = await asyncio.to_thread(_stored, platform, since)
    telegrams = (line for ledger in platform.ledgers for line in read_ledger(ledger))
    quarantined = await asyncio.to_thread(_quarantined, platform, since)
    return await asyncio.to_thread(count, telegrams, stored, watcher.published, quarantined)


async def _drained(platform: Platform, watcher: Watcher, since: datetime, show: Callable[[Progress], None]) -> None:
    """Return when as much is stored as was published and both stand still, or nothing moves any more."""
    loop = asyncio.get_running_loop()
    last, moved_s = (-1, -1), loop.time()
    while True:
        await asyncio.sleep(_LOOK_INTERVAL_S)
        try:
            stored = len(await asyncio.to_thread(_stored, platform, since))
        except (OSError, TransientError) as error:
            _log.warning("! the API does not answer: %s", error)
            stored = last[1]
        now = (watcher.published, stored)
        show(Progress(*now))
        if now == last and now[0] == now[1]:
            return
        if now != last:
            last, moved_s = now, loop.time()
        elif loop.time() - moved_s > DRAIN_LIMIT_S:
            return


def _stored(platform: Platform, since: datetime) -> Sequence[StoredReading]:
    """Ask the API, as any user would, for what this demo has stored."""
    start = (platform.options.start or since) - _LONGEST_CAPTURE - timedelta(seconds=platform.options.past_s)
    query = urlencode({"format": "ndjson", "readingTimeStart": start.astimezone(UTC).isoformat()})
    lines = _get_lines(f"{platform.page_url}v1/meterReadings/bulk?{query}")
    decoder = msgspec.json.Decoder(StoredReading)
    return [reading for line in lines if (reading := decoder.decode(line)).stored_time >= since]


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
    with urllib.request.urlopen(url, timeout=DRAIN_LIMIT_S) as answer:  # noqa: S310 - our own address
        yield from answer
