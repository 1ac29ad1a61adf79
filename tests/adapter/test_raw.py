"""The ring of raw bytes that `meterway doctor` looks at."""

import asyncio
import logging
import stat
import sys
from pathlib import Path

import pytest

from meterway.adapter.config import AdapterConfig, MeterConfig, ReplaySource
from meterway.adapter.links import open_link
from meterway.adapter.raw import FOLDER, RawRings, read_ring
from meterway.core.config import dump_config
from meterway.meter.family import Line, load_family
from meterway.process import ChildProcess, Command
from support.adapter import METER, concentrating
from support.brokers import RunningBroker

TELEGRAM = (load_family("p1-generic").sample or pytest.fail("no sample")).telegram

LIMIT_BYTES = 4096


async def record(folder: Path, data: bytes, limit_bytes: int = LIMIT_BYTES) -> None:
    """Read a file through a recording link."""
    file = folder / "bytes"
    file.write_bytes(data)
    rings = RawRings(folder / FOLDER, limit_bytes)
    running = asyncio.create_task(rings.run())
    await asyncio.sleep(0)
    async with open_link(ReplaySource(file=file, bytes_per_s=1_000_000), Line()) as link:
        recorded = rings.recording(link, "meter-1")
        assert recorded.message_bounded is link.message_bounded
        while await recorded.read():
            pass
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_was_read_is_found_again(tmp_path: Path) -> None:
    await record(tmp_path, b"\x00\xff/ABC5")
    chunks = read_ring(tmp_path, "meter-1")
    assert b"".join(chunk.data for chunk in chunks) == b"\x00\xff/ABC5"
    assert chunks[0].time.tzinfo is not None


async def test_it_is_bounded_and_keeps_the_last(tmp_path: Path) -> None:
    for number in range(40):
        await record(tmp_path, b"%04d" % number * 100)
    size_bytes = sum(file.stat().st_size for file in (tmp_path / FOLDER).iterdir())
    assert size_bytes <= LIMIT_BYTES
    kept = b"".join(chunk.data for chunk in read_ring(tmp_path, "meter-1"))
    assert kept.endswith(b"0039" * 100)
    assert kept.startswith(b"00")
    assert len(kept) > LIMIT_BYTES // 8


async def test_it_is_bounded_between_two_writes(tmp_path: Path) -> None:
    await record(tmp_path, bytes(range(256)) * 4096)
    size_bytes = sum(file.stat().st_size for file in (tmp_path / FOLDER).iterdir())
    assert size_bytes < 200_000  # one read of a file is 100 kB


async def test_only_its_user_may_read_it(tmp_path: Path) -> None:
    await record(tmp_path, b"secret")
    folder = tmp_path / FOLDER
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


async def test_a_disk_that_fails_costs_the_ring_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    with caplog.at_level(logging.WARNING):
        await record(tmp_path, b"data")
    assert "not kept" in caplog.text


def test_nothing_kept(tmp_path: Path) -> None:
    assert read_ring(tmp_path, "meter-1") == []


async def test_a_line_that_a_crash_cut_is_left_out(tmp_path: Path) -> None:
    await record(tmp_path, b"whole")
    [file] = (tmp_path / FOLDER).iterdir()
    file.write_bytes(file.read_bytes() + b'{"time":"2026-')
    assert [chunk.data for chunk in read_ring(tmp_path, "meter-1")] == [b"whole"]


@pytest.mark.parametrize("ring_bytes", [0, 100_000])
async def test_the_adapter_keeps_what_its_meters_send(tmp_path: Path, nats: RunningBroker, ring_bytes: int) -> None:
    file = tmp_path / "capture"
    file.write_bytes(TELEGRAM)
    meter = MeterConfig(id=METER, source=ReplaySource(file=file))
    config = AdapterConfig(
        id="a", broker=nats.config, spool_dir=tmp_path / "spool", meters=(meter,), raw_ring_bytes=ring_bytes
    )
    path = tmp_path / "adapter.toml"
    path.write_text(dump_config(config))
    arguments = [sys.executable, "-m", "meterway", "adapter", "--config", str(path), "--json"]
    async with concentrating(nats) as concentrator, ChildProcess(Command(name="adapter", arguments=arguments)):
        await concentrator.until(lambda: bool(concentrator.of("readings")))
    kept = b"".join(chunk.data for chunk in read_ring(config.spool_dir, METER))
    assert kept == (TELEGRAM if ring_bytes else b"")
