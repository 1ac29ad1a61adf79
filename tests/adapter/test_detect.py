"""What is plugged in is found, over real ptys and sockets, or it is said what was tried."""

import asyncio
import os
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from meterway.adapter.config import AdapterConfig, SerialSource, Source, TcpSource
from meterway.adapter.detect import Detector
from meterway.adapter.detect_questions import questions
from meterway.adapter.propose import propose
from meterway.core.config import dump_config, load_config
from meterway.core.errors import TransientError
from meterway.core.zones import find_zone
from meterway.meter.family import Family, family_names, load_family
from meterway.meter.keys import NO_KEYS, Keys
from meterway.meter.virtual.answer_iec62056_21 import AnsweringMeter, MeterSide
from support.iec_wire import PtyMeter

FAMILIES = [load_family(name) for name in family_names()]
PUSHED = [family for family in FAMILIES if not family.is_asked and family.json is None]
BERLIN = find_zone("Europe/Berlin")


def sample(name: str) -> tuple[Family, bytes]:
    family = load_family(name)
    assert family.sample is not None
    return family, family.sample.telegram


@asynccontextmanager
async def gateway(data: bytes) -> AsyncIterator[Source]:
    """A TCP gateway that hands out ``data`` and then is quiet."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield TcpSource(host="127.0.0.1", port=server.sockets[0].getsockname()[1])


@asynccontextmanager
async def port(telegram: bytes = b"") -> AsyncIterator[Source]:
    """A pty on whose far end a meter sends ``telegram`` over and over."""
    far, near = os.openpty()
    tty.setraw(near)
    os.set_blocking(far, False)

    async def send() -> None:
        while telegram:
            with suppress(BlockingIOError):
                os.write(far, telegram)
            await asyncio.sleep(0.05)

    sending = asyncio.create_task(send())
    try:
        yield SerialSource(port=Path(os.ttyname(near)))
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        os.close(far)
        os.close(near)


def detector(source: Source, *, keys: Keys = NO_KEYS, said: list[str] | None = None) -> Detector:
    steps: list[str] = [] if said is None else said
    return Detector(source, PUSHED, keys=keys, listen_s=0.3, say=steps.append)


@pytest.mark.parametrize(
    "name", ["sml-generic", "p1-generic", "p1-belgium", "dlms-kaifa-norway", "dlms-aidon", "iec-push-generic", "p1-v2"]
)
async def test_a_meter_that_sends_is_found_over_tcp(name: str) -> None:
    family, telegram = sample(name)
    said: list[str] = []
    async with gateway(telegram) as source:
        looking = detector(source, said=said)
        assert await looking.listen()
    [found] = looking.result.found
    assert found.candidate.family.protocol == family.protocol
    assert name in (found.candidate.family.name, *found.others)
    assert found.candidate.readings
    assert said
    assert looking.result.attempts


async def test_a_meter_that_sends_is_found_at_a_port() -> None:
    _, telegram = sample("sml-generic")
    async with port(telegram) as source:
        looking = detector(source)
        assert await looking.listen()
    assert looking.result.found[0].candidate.family.name == "sml-generic"


async def test_an_encrypted_meter_without_its_key() -> None:
    family, telegram = sample("dlms-kaifa-austria")
    assert family.sample is not None
    async with gateway(telegram) as source:
        looking = detector(source)
        assert await looking.listen()
        assert [finding.code for finding in looking.result.findings] == ["no-key"]
        assert looking.result.found[0].candidate.family.protocol == "dlms"
        looking = detector(source, keys=family.sample.keys)
        assert await looking.listen()
    assert looking.result.findings == []
    assert looking.result.found[0].candidate.readings


async def test_nothing_at_all() -> None:
    async with port() as source:
        looking = detector(source)
        assert not await looking.listen()
    assert looking.result.found == []
    assert len(looking.result.attempts) == 4


async def test_bytes_that_nobody_knows() -> None:
    async with gateway(b"hello, I am a coffee machine\r\n" * 4) as source:
        looking = detector(source)
        assert not await looking.listen()
    assert looking.result.findings
    assert "no telegram" in looking.result.attempts[0].outcome


async def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="cannot be opened"):
        await detector(SerialSource(port=tmp_path / "ttyUSB0")).listen()


async def test_a_flood_of_bytes_ends() -> None:
    """What begins like a telegram and never ends."""
    async with gateway(b"/ABC5\r\n\r\n1-0:1.8.0(" + b"1" * 300_000) as source:
        assert not await detector(source).listen()


async def test_a_meter_that_is_asked() -> None:
    side = MeterSide(
        identification="MWY5VIRTUAL", lines=("F.F(00000000)", "1.8.0(001234.5*kWh)", "2.8.0(000001.2*kWh)")
    )
    with PtyMeter(AnsweringMeter(side)) as meter:
        source = SerialSource(port=Path(meter.device))
        looking = detector(source)
        assert await looking.ask(questions(FAMILIES, BERLIN)[:1])
    [found] = looking.result.found
    assert found.candidate.family.name == "iec-generic"
    assert found.candidate.readings
    text = dump_config(propose(source, [found], adapter_id="a-1"))
    [proposed] = load_config(text, AdapterConfig, where="proposed").meters
    assert proposed.source == source
    assert proposed.family == found.candidate.family.name


async def test_settings_that_the_family_does_not_have_are_written_down() -> None:
    _, telegram = sample("p1-generic")
    async with port(telegram) as source:
        looking = detector(source)
        assert await looking.listen()
    config = propose(source, looking.result.found, adapter_id="a-1")
    placed = config.meters[0].source
    assert isinstance(placed, SerialSource)
    assert placed.baud == 9600
    assert load_config(dump_config(config), AdapterConfig, where="proposed") == config
