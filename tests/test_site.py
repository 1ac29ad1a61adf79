"""A site as docs/getting-started.md sets it up: a cloud with its own broker, and an edge, each from one file."""

import asyncio
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from meterway.adapter.config import MeterConfig, Source
from meterway.bus.bus import BrokerConfig, EmbeddedBrokerConfig
from meterway.cloud.config import CloudConfig, DatabaseConfig, HttpConfig
from meterway.core.config import decode_path
from meterway.edge import EdgeAdapter, EdgeConcentrator, EdgeConfig, component
from meterway.process import ChildProcess, Command
from support.brokers import free_port

WITHIN_S = 60.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that every user may pass through, as PostgreSQL's must."""
    path = Path(tempfile.mkdtemp(prefix="meterway-site-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def stored(http_port: int) -> list[dict[str, object]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{http_port}/v1/meterReadings", data=b"{}", headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own address
        content: list[dict[str, object]] = msgspec.json.decode(answer.read())["content"]
        return content


async def test_a_meter_on_the_edge_is_read_in_the_cloud(folder: Path) -> None:
    http_port, broker_port = free_port(), free_port()
    broker_dir = folder / "broker"
    cloud = CloudConfig(
        embedded_broker=EmbeddedBrokerConfig(data_dir=broker_dir, port=broker_port),
        database=DatabaseConfig(embedded=folder / "postgres"),
        http=HttpConfig(port=http_port, open=True),
    )
    meters = Command(
        name="meters", arguments=[sys.executable, "-m", "meterway", "meter", "virtual", "--json", "--tcp", "0"]
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(ChildProcess(component("cloud", cloud, folder)))
        offered = (await stack.enter_async_context(ChildProcess(meters))).ready_message["meters"]
        assert isinstance(offered, list)
        source = msgspec.convert(offered[0]["source"], Source, dec_hook=decode_path)
        meter = MeterConfig(id=offered[0]["meter_id"], source=source, timezone="Europe/Vienna")
        edge = EdgeConfig(
            data_dir=folder / "edge",
            concentrator=EdgeConcentrator(
                id="house-12",
                cloud=BrokerConfig(
                    url=f"mqtt://127.0.0.1:{broker_port}",
                    username="meterway",
                    password_file=broker_dir / "meterway.password",
                ),
            ),
            adapters=(EdgeAdapter(id="cellar", meters=(meter,)),),
        )
        await stack.enter_async_context(ChildProcess(component("edge", edge, folder)))
        async with asyncio.timeout(WITHIN_S):
            while not any(reading["meterId"] == meter.id for reading in await asyncio.to_thread(stored, http_port)):
                await asyncio.sleep(0.1)
        first = next(reading for reading in stored(http_port) if reading["meterId"] == meter.id)
        assert first["sequenceNumber"] == 1
