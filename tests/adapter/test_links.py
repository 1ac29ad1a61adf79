"""What all links have in common, and the file that is replayed."""

import os
from pathlib import Path

import pytest

from meterway.adapter.config import (
    HttpSource,
    MqttSource,
    ProcessSource,
    ReplaySource,
    Rfc2217Source,
    SerialSource,
    Source,
    TcpListenerSource,
    TcpSource,
)
from meterway.adapter.links import describe, kind, open_link
from meterway.core.errors import SetupError, TransientError
from meterway.meter.family import Line

LINE = Line()


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


async def test_a_meter_that_must_be_asked_cannot_be_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "capture").write_bytes(b"x")
    async with open_link(ReplaySource(file=tmp_path / "capture"), LINE) as link:
        with pytest.raises(
            SetupError, match=r'this link only listens; a meter that must be asked needs `type = "serial"'
        ):
            await link.write(b"/?!\r\n")


@pytest.mark.parametrize(
    ("source", "place", "its_kind"),
    [
        (SerialSource(port=Path("/dev/ttyUSB0")), "serial port /dev/ttyUSB0", "serial"),
        (Rfc2217Source(host="gateway", port=4000), "rfc2217 gateway:4000", "rfc2217"),
        (TcpSource(host="gateway", port=4000), "tcp gateway:4000", "tcp"),
        (TcpListenerSource(port=4000), "tcp listener 127.0.0.1:4000", "tcp-listener"),
        (ReplaySource(file=Path("a.bin")), "file a.bin", "replay"),
        (MqttSource(topic="tele/+/SENSOR"), "mqtt topic tele/+/SENSOR", "mqtt"),
        (HttpSource(url="http://192.168.1.5:81/rpc?token=geheim#x"), "http://192.168.1.5:81/rpc", "http"),
        (ProcessSource(command=("/usr/bin/wmbusmeters", "geheim")), "program wmbusmeters", "process"),
    ],
)
def test_a_source_says_where_and_what_it_is_without_a_secret(source: Source, place: str, its_kind: str) -> None:
    assert describe(source) == place
    assert kind(source) == its_kind
