"""The adapter process asks: virtual IEC 62056-21 and M-Bus meters over real ptys and sockets."""

import asyncio
import os
import re
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from meterway.adapter import service
from meterway.adapter.config import MeterConfig, ReplaySource, SerialSource, Source, TcpSource
from meterway.core.errors import SetupError
from meterway.meter.iec62056_21 import strip_parity
from meterway.meter.master import Effect, Send
from meterway.meter.virtual.answer_iec62056_21 import AnsweringMeter, MeterSide
from meterway.meter.virtual.encode_iec62056_21 import with_even_parity
from meterway.meter.virtual.encode_mbus import Header
from meterway.meter.virtual.mbus_slave import MbusSegment, MbusSlave
from support.adapter import METER, Concentrator, adapter, concentrating, config_of
from support.brokers import RunningBroker
from support.iec_wire import PtyMeter
from support.mbus import HEAT, WATER, PtyBus, volume_slave

SIDE = MeterSide(identification="MWY5VIRTUAL", lines=("1.8.0(001234.567*kWh)", "2.8.0(000000.001*kWh)"))
METERS = tuple(f"{n}{METER[1:]}" for n in range(1, 4))
NUMBERS = ("20264711", "20264712", "20264713")


def iec(port: str, *, interval_s: float = 1.0, **more: object) -> MeterConfig:
    source = SerialSource(port=Path(port), **more)  # type: ignore[arg-type]
    return MeterConfig(id=METER, family="iec-generic", source=source, interval_s=interval_s)


def energies(seen: Concentrator, meter_id: str = METER, property_id: str = "OBIS_1.8.0") -> list[float]:
    return [
        value["numericalValue"]
        for reading in seen.of("readings", meter_id)
        for value in reading["propertyValues"]
        if value["operationalPropertyDefinition"]["propertyId"] == property_id
    ]


def details(seen: Concentrator, state: str, meter_id: str = METER) -> list[str]:
    return [each.get("detail", "") for each in seen.of("status", meter_id) if each["state"] == state]


async def test_a_meter_is_asked_at_its_optical_head_again_and_again(tmp_path: Path, nats: RunningBroker) -> None:
    with PtyMeter(AnsweringMeter(SIDE)) as meter:
        async with concentrating(nats) as seen, adapter(tmp_path, nats, iec(meter.device)) as process:
            await seen.until(lambda: len(energies(seen)) >= 2)
            assert energies(seen)[:2] == [1234.567, 1234.567]
            assert "asked every 1 s; first answer pending" in details(seen, "waiting")
            await seen.until(lambda: bool(seen.of("meter")) and bool(details(seen, "online")))
            (description,) = seen.of("meter")[-1:]
            assert (description["protocol"], description["link"], description["intervalS"]) == (
                "iec62056_21",
                "serial",
                1.0,
            )
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            read = len(seen.of("readings"))
            await seen.until(lambda: len(seen.of("readings")) > read)
        numbers = [each["sequenceNumber"] for each in seen.of("readings")]
        assert sorted(set(numbers)) == list(range(1, max(numbers) + 1))
        assert set(meter.spoken_bauds) == {300, 9600}


class ParityMeter(AnsweringMeter):
    """A meter whose reader's line has eight bits, and sees the parity as the eighth."""

    def feed(self, data: bytes) -> list[Effect]:
        assert all(byte.bit_count() % 2 == 0 for byte in data), "the reader has not made the parity"
        effects = super().feed(strip_parity(data))
        return [Send(with_even_parity(each.data)) if isinstance(each, Send) else each for each in effects]


async def test_a_port_of_eight_bits_reads_a_meter_of_seven(tmp_path: Path, nats: RunningBroker) -> None:
    with PtyMeter(ParityMeter(SIDE)) as meter:
        async with concentrating(nats) as seen, adapter(tmp_path, nats, iec(meter.device, data_bits=8)):
            await seen.until(lambda: energies(seen)[:1] == [1234.567])


def slaves() -> list[MbusSlave]:
    """Two meters of three; the third address is dead."""
    return [volume_slave(WATER, 1, 1111), volume_slave(Header(NUMBERS[2], "MWY", 7, 7), 3, 3333)]


@contextmanager
def pty_bus() -> Iterator[Source]:
    stop = threading.Event()
    with PtyBus(slaves()) as bus:

        def serve() -> None:
            while not stop.is_set():
                bus.serve(0.05)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield SerialSource(port=Path(os.ttyname(bus.near)))
        finally:
            stop.set()
            thread.join()


@asynccontextmanager
async def tcp_bus(*, answers_a_connection: int | None = None) -> AsyncIterator[TcpSource]:
    """A gateway with meters behind it; closes each connection after so many answers."""
    segment = MbusSegment(slaves())

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = answers_a_connection
        while (data := await reader.read(1024)) and left != 0:
            if answer := segment.feed(data, 2400):
                writer.write(answer)
                left = None if left is None else left - 1
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield TcpSource(host="127.0.0.1", port=server.sockets[0].getsockname()[1])


def segment_of(source: Source, *addresses: str, interval_s: float = 0.5) -> tuple[MeterConfig, ...]:
    return tuple(
        MeterConfig(
            id=meter_id,
            family="mbus-water",
            source=source,
            address=address,
            interval_s=interval_s,
            watchdog_s=1 if address == "2" else 60,
        )
        for meter_id, address in zip(METERS, addresses, strict=True)
    )


async def goes_on_without_the_dead(seen: Concentrator) -> None:
    first, dead, third = METERS
    await seen.until(lambda: all(len(seen.of("readings", each)) >= 3 for each in (first, third)))
    assert set(energies(seen, first, "WATER_volume_of_water")) == {1.111}
    assert set(energies(seen, third, "WATER_volume_of_water")) == {3.333}
    sentence = "M-Bus meter 2: it does not answer; check address, baud rate"
    await seen.until(lambda: any(each.startswith(sentence) for each in details(seen, "silent", dead)))
    assert not seen.of("readings", dead)
    assert not details(seen, "silent", first)


async def test_a_segment_on_a_port_is_read_and_its_dead_meter_costs_the_others_nothing(
    tmp_path: Path, nats: RunningBroker
) -> None:
    with pty_bus() as source:
        meters = segment_of(source, "1", "2", NUMBERS[2])
        async with concentrating(nats) as seen, adapter(tmp_path, nats, *meters):
            await goes_on_without_the_dead(seen)


async def test_a_segment_behind_a_gateway_is_read_and_its_dead_meter_costs_the_others_nothing(
    tmp_path: Path, nats: RunningBroker
) -> None:
    async with (
        tcp_bus() as source,
        concentrating(nats) as seen,
        adapter(tmp_path, nats, *segment_of(source, "1", "2", NUMBERS[2])),
    ):
        await goes_on_without_the_dead(seen)


async def test_a_gateway_that_hangs_up_is_dialled_again(tmp_path: Path, nats: RunningBroker) -> None:
    async with (
        tcp_bus(answers_a_connection=3) as source,
        concentrating(nats) as seen,
        adapter(tmp_path, nats, *segment_of(source, "1", "2", NUMBERS[2], interval_s=0.2)[::2]),
    ):
        await seen.until(lambda: all(len(seen.of("readings", METERS[n])) >= 2 for n in (0, 2)))


async def test_a_silent_meter_is_said_to_be_silent_and_is_read_when_it_speaks(
    tmp_path: Path, nats: RunningBroker
) -> None:
    bus: list[MbusSlave] = []
    segment = MbusSegment(bus)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        segment.slaves = bus
        while data := await reader.read(1024):
            writer.write(segment.feed(data, 2400))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, concentrating(nats) as seen:
        source = TcpSource(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
        meter = MeterConfig(id=METER, family="mbus-heat", source=source, interval_s=0.3, watchdog_s=0.9)
        async with adapter(tmp_path, nats, meter):
            sentence = "M-Bus meter 254: it does not answer"
            await seen.until(lambda: any(sentence in each for each in details(seen, "silent")))
            bus.append(volume_slave(HEAT, 5, 4711))
            await seen.until(lambda: bool(details(seen, "online")))


async def test_a_link_that_cannot_change_its_rate_says_what_to_do(tmp_path: Path, nats: RunningBroker) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"!\r\n")
        writer.write(b"/MWY5VIRTUAL\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, concentrating(nats) as seen:
        source = TcpSource(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
        meter = MeterConfig(id=METER, family="iec-generic", source=source, interval_s=0.5)
        async with adapter(tmp_path, nats, meter):
            await seen.until(lambda: bool(details(seen, "offline")))
            assert "the meter wants " in details(seen, "offline")[0]
            assert details(seen, "offline")[0].endswith("; asked again after 3600 s")


async def test_a_file_cannot_be_asked(tmp_path: Path, nats: RunningBroker) -> None:
    file = tmp_path / "capture.bin"
    file.write_bytes(b"")
    meter = MeterConfig(id=METER, family="mbus-heat", source=ReplaySource(file=file))
    async with concentrating(nats) as seen, adapter(tmp_path, nats, meter):
        await seen.until(lambda: any("this link only listens" in each for each in details(seen, "offline")))


async def test_a_connection_that_has_died_unnoticed_is_not_waited_for(tmp_path: Path, nats: RunningBroker) -> None:
    segment = MbusSegment(slaves())
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        is_dead = len(connections) == 1
        while data := await reader.read(1024):
            writer.write(b"" if is_dead else segment.feed(data, 2400))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, concentrating(nats) as seen:
        source = TcpSource(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
        meter = MeterConfig(id=METER, family="mbus-water", source=source, address="1", interval_s=0.3)
        async with adapter(tmp_path, nats, meter):
            await seen.until(lambda: bool(seen.of("readings")))
        assert not any("nobody answers" in each for each in details(seen, "offline"))
    assert len(connections) == 2


@pytest.mark.parametrize(
    ("meters", "sentence"),
    [
        (
            (("mbus-heat", "1"), ("p1-generic", "2")),
            "share one source, and the first must be asked while the second sends by itself",
        ),
        ((("p1-generic", "1"), ("p1-v2", "2")), "share one serial line, and their families want different settings"),
        ((("mbus-heat", "x"),), "M-Bus address 'x': neither a number from 0 to 250, nor 8 or 16 digits"),
        ((("mbus-heat", "251"),), "M-Bus has no meter address 251"),
    ],
)
async def test_meters_that_cannot_be_read_so_stop_the_process_with_a_reason(
    tmp_path: Path, nats: RunningBroker, meters: tuple[tuple[str, str], ...], sentence: str
) -> None:
    source = SerialSource(port=tmp_path / "tty")
    configs = [
        MeterConfig(id=METERS[n], family=family, source=source, address=address)
        for n, (family, address) in enumerate(meters)
    ]
    with pytest.raises(SetupError, match=re.escape(sentence)):
        await service.run(config_of(tmp_path, nats, *configs), ready=pytest.fail)
