"""What is plugged in is found, over real ptys and sockets, or it is said what was tried."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import pytest

from meterway.adapter.config import SerialSource
from meterway.adapter.detect import LIMIT_BYTES, Detector
from meterway.adapter.detect_plan import Listening
from meterway.adapter.propose import written
from meterway.core.errors import TransientError
from meterway.meter.family import Line
from meterway.meter.keys import Keys
from meterway.meter.master import Send
from meterway.meter.virtual.answer_iec62056_21 import AnsweringMeter, MeterSide
from support import sml
from support.detect import (
    KNOWN,
    LISTEN_S,
    answering,
    asking,
    configured,
    detect,
    gateway,
    known,
    listen,
    listening,
    port,
    sample,
    serving,
)
from support.iec_wire import PtyMeter


@pytest.mark.parametrize(
    "name", ["sml-generic", "p1-generic", "p1-belgium", "dlms-kaifa-norway", "dlms-aidon", "iec-push-generic", "p1-v2"]
)
async def test_a_meter_that_sends_is_found_over_tcp(name: str) -> None:
    family, telegram = sample(name)
    async with gateway(telegram) as source:
        result = await listen(source)
    [found] = result.found
    assert found.candidate.family.protocol == family.protocol
    assert name in (found.candidate.family.name, *found.others)
    assert found.candidate.readings
    assert result.attempts
    assert configured([found]).meters[0].source == source


async def test_a_meter_that_sends_is_found_at_a_port() -> None:
    _, telegram = sample("sml-generic")
    said: list[str] = []
    async with port(telegram) as source:
        looking = Detector(source, KNOWN, say=lambda what, _: said.append(what))
        assert await looking.run(listening(source))
    assert looking.result.found[0].candidate.family.protocol == "sml"
    assert "listening at 9600 8N1" in said[0]


async def test_an_encrypted_meter_without_its_key(tmp_path: Path) -> None:
    family, telegram = sample("dlms-kaifa-austria")
    assert family.sample is not None
    key_file = tmp_path / "key"
    async with gateway(telegram) as source:
        result = await listen(source)
        assert [finding.code for finding in result.findings] == ["no-key"]
        [found] = result.found
        assert found.is_locked
        assert "# key_file" in written(configured([found]), [found])
        result = await listen(source, known(family.sample.keys))
    assert result.findings == []
    [found] = result.found
    assert found.candidate.readings
    assert configured([found], key_file=key_file).meters[0].key_file == key_file


async def test_an_encrypted_meter_with_another_meters_key() -> None:
    _, telegram = sample("dlms-kaifa-austria")
    async with gateway(telegram * 3) as source:
        result = await listen(source, known(Keys(bytes(range(16)))))
    assert [finding.code for finding in result.findings] == ["wrong-key"]
    assert configured(result.found, key_file=Path("key")).meters[0].key_file is None


async def test_meter_that_is_locked_by_its_pin() -> None:
    energy = sml.entry(sml.IMPORT, sml.integer(12345000, 8), unit=sml.WH)
    async with gateway(sml.frame(sml.get_list(energy))) as source:
        result = await listen(source)
    assert len(result.found) == 1
    [finding] = result.findings
    assert finding.code == "pin-locked"
    assert "PIN" in finding.fix


async def test_nothing_at_all() -> None:
    async with port() as source:
        result = await detect(source, listening(source, first_s=LISTEN_S))
    assert result.found == []
    outcomes = [attempt.outcome for attempt in result.attempts]
    assert len(outcomes) == 4
    assert outcomes.count("nothing came") == 3  # a pty has no 7E1
    assert [finding.code for finding in result.findings] == ["no-bytes"]


async def test_bytes_that_nobody_knows() -> None:
    async with gateway(b"hello, I am a coffee machine\r\n" * 4) as source:
        result = await detect(source, listening(source, first_s=1.0))
    assert result.findings
    assert "no telegram" in result.attempts[0].outcome


async def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    source = SerialSource(port=tmp_path / "ttyUSB0")
    with pytest.raises(TransientError, match="cannot be opened"):
        await listen(source)


async def test_a_gateway_that_hangs_up_is_asked_all_the_same() -> None:
    async def hang_up(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0)

    async with serving(hang_up) as source:
        result = await detect(source, [*listening(source), *asking(source, KNOWN, "with /?!")])
    assert len(result.attempts) > 1
    assert result.found == []


@pytest.mark.parametrize(
    "flood",
    [
        b"/ABC5\r\n\r\n1-0:1.8.0(" + b"1" * 300_000,
        b"/AAA\n" * 60_000,
        b"\x1b\x1b\x1b\x1b\x01\x01\x01\x01" * 40_000,
        b"\x68\xff\xff\x68" * 70_000,
        b"\x7e\xa7\xff" * 100_000,
        bytes(300_000),
        b'{"a":' * 60_000,
        b"T1;1;1;" * 40_000,
    ],
    ids=["no-end", "p1-starts", "sml-starts", "mbus-starts", "hdlc-starts", "zeros", "json-deep", "radio-lines"],
)
async def test_a_flood_of_bytes_ends(flood: bytes) -> None:
    begin = time.process_time()
    async with gateway(flood) as source:
        result = await listen(source)
    assert result.found == []
    assert int(result.attempts[0].outcome.split()[0]) <= LIMIT_BYTES + 16_384
    assert time.process_time() - begin < 120


async def test_a_drip_of_what_begins_like_a_telegram_ends() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"/ABC5\r\n\r\n1-0:1.8.0(")
        while not reader.at_eof():
            writer.write(b"1")
            await asyncio.sleep(0.01)
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.001)

    async with serving(drip) as source:
        step = Listening(what="to a drip", line=Line(baud=9600), first_s=0.2, listen_s=0.2)
        async with asyncio.timeout(120):
            result = await detect(source, [step])
    assert result.found == []
    assert "half-telegrams" in {finding.code for finding in result.findings}


async def test_a_meter_that_is_asked() -> None:
    side = MeterSide(
        identification="MWY5VIRTUAL", lines=("F.F(00000000)", "1.8.0(001234.5*kWh)", "2.8.0(000001.2*kWh)")
    )
    with PtyMeter(AnsweringMeter(side)) as meter:
        source = SerialSource(port=Path(meter.device))
        result = await detect(source, asking(source, KNOWN, "with /?!"))
    [found] = result.found
    assert found.candidate.family.name == "iec-generic"
    assert found.candidate.readings
    [proposed] = configured([found]).meters
    assert proposed.source == source
    assert proposed.family == found.candidate.family.name


async def test_settings_that_the_family_does_not_have_are_written_down() -> None:
    _, telegram = sample("p1-generic")
    async with port(telegram) as source:
        result = await listen(source)
    placed = configured(result.found).meters[0].source
    assert isinstance(placed, SerialSource)
    assert placed.baud == 9600


async def test_a_meter_that_wants_another_line_than_the_gateways() -> None:
    """Over plain TCP a baud rate cannot follow the meter's; what to do is said."""
    meter = AnsweringMeter(MeterSide(identification="MWY5VIRTUAL", lines=("1.8.0(001234.5*kWh)",)))

    def answer(data: bytes) -> bytes:
        return b"".join(effect.data for effect in meter.feed(data) if isinstance(effect, Send))

    async with answering(answer) as source:
        result = await detect(source, asking(source, KNOWN, "with /?!"))
    assert result.found == []
    [finding] = result.findings
    assert finding.code == "line-cannot-be-set"
    assert "rfc2217" in finding.fix


async def test_what_was_heard_before_it_was_broken_off_counts() -> None:
    _, telegram = sample("sml-generic")
    async with port(telegram) as source:
        begins = asyncio.Event()
        looking = Detector(source, KNOWN, say=lambda what, _: begins.set() if "waiting" in what else None)
        step = Listening(what="for long", line=Line(baud=9600), first_s=60.0, listen_s=60.0)
        running = asyncio.create_task(looking.run([step]))
        await asyncio.wait_for(begins.wait(), 30)
        await asyncio.sleep(0.5)  # ten telegrams
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert [found.candidate.family.protocol for found in looking.result.found] == ["sml"]
