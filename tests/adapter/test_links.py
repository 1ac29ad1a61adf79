import asyncio
import os
import pty
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from meterway.adapter.config import ReplaySource, SerialSource, TcpSource
from meterway.adapter.links import describe, open_link
from meterway.core.errors import TransientError
from meterway.meter.family import Line
from support.brokers import free_port

LINE = Line()


@pytest.fixture
def line_and_port() -> Iterator[tuple[int, Path]]:
    """The meter's end of a serial line, and the device at the other end."""
    meter_end, adapter_end = pty.openpty()
    tty.setraw(adapter_end)
    yield meter_end, Path(os.ttyname(adapter_end))
    for descriptor in (meter_end, adapter_end):
        os.close(descriptor)


async def read_exactly(link: object, size: int) -> bytes:
    data = b""
    async with asyncio.timeout(10):
        while len(data) < size:
            data += await link.read()  # type: ignore[attr-defined]
    return data


async def test_a_serial_line_hands_on_every_byte_value(line_and_port: tuple[int, Path]) -> None:
    meter_end, port = line_and_port
    sent = bytes(range(256)) * 4
    async with open_link(SerialSource(port=port), LINE) as link:
        os.write(meter_end, sent)
        assert await read_exactly(link, len(sent)) == sent


async def test_a_port_that_is_not_there_is_named() -> None:
    source = SerialSource(port=Path("/dev/serial/by-id/usb-none"))
    with pytest.raises(TransientError, match="serial port /dev/serial/by-id/usb-none cannot be opened: No such file"):
        async with open_link(source, LINE):
            pass


async def test_a_gateway_that_closes_is_a_transient_error() -> None:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"/half")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, open_link(TcpSource(host="127.0.0.1", port=port), LINE) as link:
        assert await read_exactly(link, 5) == b"/half"
        with pytest.raises(TransientError, match=f"tcp 127.0.0.1:{port} was closed by the other side"):
            await link.read()


async def test_nobody_listening_is_a_transient_error_that_names_the_address() -> None:
    port = free_port()
    with pytest.raises(TransientError, match=f"tcp 127.0.0.1:{port} cannot be opened"):
        async with open_link(TcpSource(host="127.0.0.1", port=port), LINE):
            pass


@pytest.mark.parametrize("bytes_per_s", [None, 1_000_000])
async def test_a_file_is_read_to_its_end(tmp_path: Path, bytes_per_s: int | None) -> None:
    file = tmp_path / "capture.bin"
    file.write_bytes(os.urandom(10_000))
    data = b""
    async with open_link(ReplaySource(file=file, bytes_per_s=bytes_per_s), LINE) as link:
        while chunk := await link.read():
            data += chunk
    assert data == file.read_bytes()


async def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = ReplaySource(file=tmp_path / "none")
    with pytest.raises(TransientError, match="none cannot be read: No such file"):
        async with open_link(source, LINE) as link:
            await link.read()


def test_a_source_says_where_it_is() -> None:
    assert describe(TcpSource(host="gateway", port=4000)) == "tcp gateway:4000"
