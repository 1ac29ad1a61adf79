import asyncio
import os
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from meterway.adapter.config import Rfc2217Source, SerialSource
from meterway.adapter.links import open_link
from meterway.core.errors import TransientError
from meterway.meter.family import Line
from meterway.meter.wmbus_receivers import start_bytes
from support.brokers import free_port
from support.links import IN_TIME_S, Rfc2217Gateway, read_exactly, serial_line, tcp_server

SIGN_ON = Line(baud=300, data_bits=7, parity="E", stop_bits=1)
FAST = Line(baud=9600, data_bits=7, parity="E", stop_bits=1)

HOLD = """
import fcntl, os, sys
held = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def line_and_port() -> Iterator[tuple[int, Path]]:
    with serial_line() as made:
        yield made


def heard(meter_end: int, size_bytes: int) -> bytes:
    """What has arrived at the meter's end; a pty may hand it on in pieces."""
    data = b""
    while len(data) < size_bytes:
        data += os.read(meter_end, size_bytes - len(data))
    return data


def speed(meter_end: int) -> int:
    """What is set at the other end, as the meter's end sees it."""
    return int(termios.tcgetattr(meter_end)[5])


async def test_a_serial_line_hands_on_every_byte_value_both_ways(line_and_port: tuple[int, Path]) -> None:
    meter_end, port = line_and_port
    sent = bytes(range(256)) * 4
    async with open_link(SerialSource(port=port), Line()) as link:
        os.write(meter_end, sent)
        assert await read_exactly(link, len(sent)) == sent
        await link.write(sent)
        assert heard(meter_end, len(sent)) == sent


async def test_the_line_is_set_while_it_is_open(line_and_port: tuple[int, Path]) -> None:
    meter_end, port = line_and_port
    async with open_link(SerialSource(port=port), SIGN_ON) as link:
        assert speed(meter_end) == termios.B300
        await link.set_line(FAST)
        assert speed(meter_end) == termios.B9600
        os.write(meter_end, b"as before")
        assert await read_exactly(link, 9) == b"as before"
        await link.set_line(SIGN_ON)
        assert speed(meter_end) == termios.B300


async def test_a_radio_receiver_is_told_to_listen(line_and_port: tuple[int, Path]) -> None:
    meter_end, port = line_and_port
    async with open_link(SerialSource(port=port, receiver="cul", radio_mode="C"), Line(baud=57_600)):
        assert speed(meter_end) == termios.B38400
        expected = start_bytes("cul", "C")
        assert heard(meter_end, len(expected)) == expected


async def test_the_owners_baud_stands_for_the_one_with_which_the_family_begins(
    line_and_port: tuple[int, Path],
) -> None:
    meter_end, port = line_and_port
    async with open_link(SerialSource(port=port, baud=2400), SIGN_ON) as link:
        assert speed(meter_end) == termios.B2400
        await link.set_line(SIGN_ON)
        assert speed(meter_end) == termios.B2400
        await link.set_line(FAST)
        assert speed(meter_end) == termios.B9600


async def test_bytes_that_wait_are_not_lost_when_the_same_line_is_set_again(line_and_port: tuple[int, Path]) -> None:
    meter_end, port = line_and_port
    async with open_link(SerialSource(port=port), SIGN_ON) as link:
        os.write(meter_end, b"waiting")
        await link.set_line(SIGN_ON)
        assert await read_exactly(link, 7) == b"waiting"


async def test_writing_takes_as_long_as_the_line_needs(line_and_port: tuple[int, Path]) -> None:
    _, port = line_and_port
    loop = asyncio.get_running_loop()
    async with open_link(SerialSource(port=port), Line(baud=2400, data_bits=8, parity="E")) as link:
        began = loop.time()
        await link.write(bytes(24))
        assert loop.time() - began >= 24 * 11 / 2400 - 0.001


async def test_a_port_that_is_not_there_is_named() -> None:
    source = SerialSource(port=Path("/dev/serial/by-id/usb-none"))
    with pytest.raises(TransientError, match="serial port /dev/serial/by-id/usb-none cannot be opened: No such file"):
        async with open_link(source, Line()):
            pass


async def test_a_port_that_another_process_holds_is_said_so(line_and_port: tuple[int, Path]) -> None:
    _, port = line_and_port
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            HOLD,
            str(port),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert await asyncio.to_thread(holder.stdout.readline) == b"held\n"
        with pytest.raises(TransientError, match=f"another process holds it; `fuser -v {port}` names it"):
            async with open_link(SerialSource(port=port), Line()):
                pass
    finally:
        holder.communicate(timeout=IN_TIME_S)
    async with open_link(SerialSource(port=port), Line()):
        pass


async def test_a_meter_end_that_goes_away_is_a_transient_error() -> None:
    meter_end, adapter_end = os.openpty()
    port = Path(os.ttyname(adapter_end))
    async with open_link(SerialSource(port=port), Line()) as link:
        os.close(adapter_end)
        os.close(meter_end)
        with pytest.raises(TransientError, match=f"serial port {port} (broke|was closed)"):
            async with asyncio.timeout(IN_TIME_S):
                await link.read()


async def test_a_line_behind_rfc_2217_is_set_and_hands_on_every_byte_value() -> None:
    gateway = Rfc2217Gateway()
    source = Rfc2217Source(host="127.0.0.1", port=gateway.port)
    async with gateway.serving(), open_link(source, SIGN_ON) as link:
        assert gateway.line == {"baud": 300, "data_bits": 7, "parity": 3, "stop_bits": 1}
        await link.set_line(FAST)
        assert gateway.line == {"baud": 9600, "data_bits": 7, "parity": 3, "stop_bits": 1}
        sent = bytes(range(256))
        await link.write(sent)
        assert await read_exactly(link, 256) == sent


async def test_what_the_owner_has_pinned_stays_when_the_meter_wants_another_line() -> None:
    async with Rfc2217Gateway().serving() as gateway:
        source = Rfc2217Source(host="127.0.0.1", port=gateway.port, data_bits=8, parity="N")
        async with open_link(source, SIGN_ON) as link:
            assert gateway.line == {"baud": 300, "data_bits": 8, "parity": 1, "stop_bits": 1}
            await link.set_line(FAST)
            assert gateway.line == {"baud": 9600, "data_bits": 8, "parity": 1, "stop_bits": 1}


async def test_a_gateway_that_is_not_there_is_named() -> None:
    port = free_port()
    with pytest.raises(TransientError, match=f"rfc2217 127.0.0.1:{port} cannot be opened"):
        async with open_link(Rfc2217Source(host="127.0.0.1", port=port), Line()):
            pass


async def test_a_gateway_that_speaks_no_rfc_2217_is_said_so() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(3):
            writer.write(bytes((255, 254, request[2])))

    async with tcp_server(refuse) as port:
        with pytest.raises(
            TransientError, match='does the gateway speak RFC 2217 on this port\\? If not, use `type = "tcp"`'
        ):
            async with open_link(Rfc2217Source(host="127.0.0.1", port=port), Line()):
                pass


@pytest.mark.parametrize(
    "flood", [b"\xff\xfa\x2c" + bytes(4000), b"\xff\xfb\x63" * 2000], ids=["sub-negotiation", "offers"]
)
async def test_a_gateway_that_negotiates_without_end_is_cut_off(flood: bytes) -> None:
    gateway = Rfc2217Gateway()
    gateway.says = flood
    async with gateway.serving():
        with pytest.raises(TransientError, match="the gateway negotiates without end"):
            await first_bytes(Rfc2217Source(host="127.0.0.1", port=gateway.port))


async def first_bytes(source: Rfc2217Source) -> bytes:
    async with asyncio.timeout(IN_TIME_S), open_link(source, Line()) as link:
        return await link.read()
