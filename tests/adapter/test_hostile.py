"""Hostile meters beside a good one, on real sockets and a real adapter: reported, and nobody else's problem."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import cycle, islice
from pathlib import Path

import pytest

from meterway.adapter.config import MeterConfig, ProcessSource, TcpSource
from meterway.core.obis import Obis
from meterway.meter.crc import crc16_arc
from meterway.meter.family import load_family
from meterway.meter.telegram import Register, channel_media
from support.adapter import METER, adapter, concentrating
from support.brokers import RunningBroker

HOSTILE = "22222222-2222-4222-8222-222222222222"
TELEGRAM = (load_family("p1-generic").sample or pytest.fail("no sample")).telegram
LIMIT_FLOOD_BYTES = 1 << 30
GOOD_READINGS = 20
"""One alone may come before the flood begins."""


def at(second: int) -> bytes:
    """The sample telegram at another second."""
    start = TELEGRAM.index(b"0-0:1.0.0(") + len(b"0-0:1.0.0(YYMMDDhh")
    body = TELEGRAM[:start] + b"%02d%02d" % divmod(second, 60) + TELEGRAM[start + 4 : TELEGRAM.rindex(b"!") + 1]
    return body + b"%04X\r\n" % crc16_arc(body)


@asynccontextmanager
async def repeating(*pieces: bytes, pause_s: float = 0.0) -> AsyncIterator[TcpSource]:
    """A gateway that says ``pieces`` in turn, again and again, as fast as they are read."""

    async def repeat(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for piece in islice(cycle(pieces), LIMIT_FLOOD_BYTES // max(map(len, pieces))):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause_s)
        except OSError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(repeat, "127.0.0.1", 0) as server:
        yield TcpSource(host="127.0.0.1", port=server.sockets[0].getsockname()[1])


@pytest.mark.parametrize(
    ("family", "piece", "reason"),
    [
        ("p1-generic", b"/ABC5x\r\n" * 4000, "truncated"),
        ("sml-generic", b"\x1b\x1b\x1b\x1b\x01\x01\x01\x01v\x05\x01" * 4000, "truncated"),
        ("dlms-aidon", bytes.fromhex("7ea18a41088313ebfde6e7") * 4000, "bad-checksum"),
    ],
)
async def test_a_meter_that_never_pauses_is_reported_and_does_not_keep_others_from_being_read(
    tmp_path: Path, mosquitto: RunningBroker, family: str, piece: bytes, reason: str
) -> None:
    async with (
        repeating(piece) as flood,
        repeating(*map(at, range(600)), pause_s=0.1) as good,
        concentrating(mosquitto) as seen,
        adapter(
            tmp_path,
            mosquitto,
            MeterConfig(id=HOSTILE, source=flood, family=family),
            MeterConfig(id=METER, source=good, clock="recorded"),
        ),
    ):
        await seen.until(lambda: bool(seen.of("faults", HOSTILE)) and len(seen.of("readings")) >= GOOD_READINGS)
        assert seen.of("faults", HOSTILE)[0]["reason"] == reason


@pytest.mark.parametrize("redirect", ["", " >&2"])
async def test_a_program_that_floods_and_does_not_heed_sigterm_does_not_keep_others_from_being_read(
    tmp_path: Path, mosquitto: RunningBroker, redirect: str
) -> None:
    command = ("sh", "-c", f"trap '' TERM; exec yes 'nothing but noise, and no end'{redirect}")
    async with repeating(*map(at, range(600)), pause_s=0.1) as good, concentrating(mosquitto) as seen:
        async with adapter(
            tmp_path,
            mosquitto,
            MeterConfig(
                id=HOSTILE, source=ProcessSource(command=command), family="json-wmbusmeters-water", address="1"
            ),
            MeterConfig(id=METER, source=good, clock="recorded"),
        ):
            await seen.until(lambda: len(seen.of("readings")) >= GOOD_READINGS)
        await seen.until(lambda: any(each.get("reason") == "stopped" for each in seen.of("status")))


@pytest.mark.parametrize("number", ["1E+99999999", "NaN", "Infinity", "1000"])
def test_what_is_no_device_type_is_passed_over(number: str) -> None:
    assert channel_media([Register(Obis(0, 1, 24, 1, 0), Decimal(number))]) == {}
