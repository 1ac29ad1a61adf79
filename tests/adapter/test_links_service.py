"""Any decoder on any link: one adapter process, one family, every kind of source."""

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

from meterway.adapter.config import (
    HttpSource,
    MeterConfig,
    MqttSource,
    ProcessSource,
    ReplaySource,
    Rfc2217Source,
    SerialSource,
    Source,
    TcpListenerSource,
    TcpSource,
)
from meterway.meter.family import load_family
from support.adapter import adapter, concentrating
from support.brokers import RunningBroker, free_port
from support.links import HttpDevice, Rfc2217Gateway, always, answer, serial_line, tcp_server
from support.platform import alive, descendants

SAMPLE = load_family("p1-generic").sample
TELEGRAM = SAMPLE.telegram if SAMPLE else b""


async def say_for_ever(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(TELEGRAM)
        await writer.drain()
        await asyncio.sleep(0.2)


async def dial_in_for_ever(port: int) -> None:
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(TELEGRAM)
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.2)


async def test_a_telegram_becomes_a_reading_over_every_kind_of_link(tmp_path: Path, nats: RunningBroker) -> None:
    telegram = tmp_path / "telegram"
    telegram.write_bytes(TELEGRAM)
    program = f"import sys, time; sys.stdout.write(open({str(telegram)!r}).read()); sys.stdout.flush(); time.sleep(600)"
    device = HttpDevice(always(answer(TELEGRAM)))
    gateway = Rfc2217Gateway()
    gateway.says, gateway.pause_s = TELEGRAM, 0.2
    dialled = free_port()
    with serial_line() as (meter_end, port):
        os.set_blocking(meter_end, False)
        async with tcp_server(say_for_ever) as tcp, device.serving(), gateway.serving(), concentrating(nats) as seen:
            sources: dict[str, Source] = {
                "serial": SerialSource(port=port),
                "rfc2217": Rfc2217Source(host="127.0.0.1", port=gateway.port),
                "tcp": TcpSource(host="127.0.0.1", port=tcp),
                "tcp-listener": TcpListenerSource(port=dialled),
                "replay": ReplaySource(file=telegram),
                "mqtt": MqttSource(topic="house/p1"),
                "http": HttpSource(url=device.url, interval_s=0.5),
                "process": ProcessSource(command=(sys.executable, "-c", program)),
            }
            meters = [MeterConfig(id=kind, source=source) for kind, source in sources.items()]
            process = adapter(tmp_path, nats, *meters)
            async with process:
                dialling = asyncio.create_task(dial_in_for_ever(dialled))

                async def speak() -> None:
                    while True:
                        with suppress(BlockingIOError):  # nobody reads the line yet
                            os.write(meter_end, TELEGRAM)
                        seen.bus.publish("house/p1", TELEGRAM)
                        await asyncio.sleep(0.2)

                speaking = asyncio.create_task(speak())
                try:
                    await seen.until(
                        lambda: all(seen.of("readings", kind) and seen.of("meter", kind) for kind in sources)
                    )
                finally:
                    for task in (dialling, speaking):
                        task.cancel()
                    await asyncio.gather(dialling, speaking, return_exceptions=True)
                children = descendants(process.pid or 0)
            assert {kind: seen.of("meter", kind)[-1]["link"] for kind in sources} == {kind: kind for kind in sources}
            assert any("time.sleep(600)" in command for command in children.values())
            assert not alive(children)
