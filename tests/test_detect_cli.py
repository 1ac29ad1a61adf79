"""From a meter that is plugged in to its readings on the bus: detect, write, start; all of them real processes."""

import asyncio
import json
import os
import signal
import subprocess
import tomllib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from meterway.adapter.config import SerialSource, TcpSource
from meterway.adapter.detect_ports import holders, lasting, serial_ports
from meterway.cli.detect import cancel_on_interrupt, detect
from meterway.meter.virtual.answer_iec62056_21 import AnsweringMeter, MeterSide
from meterway.meter.virtual.mbus_slave import MbusSegment
from meterway.meter.virtual.modbus_slave import ModbusBus, ModbusSlave
from support.brokers import RunningBroker
from support.detect import answering, gateway, port, sample, sending
from support.iec_wire import PtyMeter
from support.mbus import HEAT, WATER, volume_slave
from support.platform import COMMAND, MqttClient, running, wait_for

WITHIN_S = 240


@dataclass(frozen=True)
class Place:
    """Somewhere with meters, and how it is looked at."""

    name: str
    meters: int
    arguments: tuple[str, ...]


async def run(*arguments: str, within_s: float = WITHIN_S) -> tuple[int, str, str]:
    """Run ``meterway detect`` as a process of its own; return its exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "detect", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), within_s)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def _modbus() -> ModbusBus:
    family, _ = sample("modbus-eastron-sdm630")
    assert family.modbus is not None
    assert family.sample is not None
    values = {obis: Decimal(value) for obis, value, unit, *_ in family.sample.registers if unit or "." in value}
    return ModbusBus([ModbusSlave(family.modbus, lambda: values)], "tcp")


def _named(source: SerialSource | TcpSource) -> str:
    return str(source.port) if isinstance(source, SerialSource) else f"{source.host}:{source.port}"


@asynccontextmanager
async def place(name: str, folder: Path) -> AsyncIterator[Place]:
    """Offer the meters of one kind."""
    async with AsyncExitStack() as stack:
        if name == "iec":
            lines = ("F.F(00000000)", "1.8.0(001234.5*kWh)", "2.8.0(000001.2*kWh)")
            meter = stack.enter_context(PtyMeter(AnsweringMeter(MeterSide(identification="MWY5VIRT", lines=lines))))
            yield Place(name, 1, (meter.device,))
            return
        extra: tuple[str, ...] = ()
        meters = 1
        source: SerialSource | TcpSource
        if name == "sml":
            source = await stack.enter_async_context(port(sample("sml-generic")[1], pause_s=0.5))
        elif name == "p1":
            source = await stack.enter_async_context(sending(sample("p1-generic")[1]))
        elif name == "dlms":
            family, telegram = sample("dlms-kaifa-austria")
            assert family.sample is not None
            assert family.sample.encryption_key is not None
            key = folder / "meter.key"
            key.write_text(family.sample.encryption_key)
            extra = ("--key-file", str(key))
            source = await stack.enter_async_context(gateway(telegram))
        elif name == "mbus":
            others = [WATER._replace(number=number) for number in ("40000001", "60000002")]
            segment = MbusSegment([volume_slave(header, at) for at, header in enumerate((HEAT, *others), 1)])
            source = await stack.enter_async_context(answering(lambda data: segment.feed(data, 2400)))
            meters = 3
        else:
            source = await stack.enter_async_context(answering(_modbus().feed))
        yield Place(name, meters, (_named(source), *extra))


@pytest.mark.parametrize("name", ["sml", "p1", "iec", "mbus", "modbus", "dlms"])
@pytest.mark.timeout(300)
async def test_readings_are_on_the_bus_after_detect_and_start(
    name: str, tmp_path: Path, mosquitto: RunningBroker
) -> None:
    config = tmp_path / "adapter.toml"
    async with place(name, tmp_path) as at:
        code, out, err = await run(*at.arguments, "--listen", "1.5", "--write", str(config), "--broker", mosquitto.url)
        assert code == 0, out + err
        assert max(map(len, out.splitlines())) <= 80
        assert f"written to {config}" in err
        table = tomllib.loads(config.read_text())
        ids = [meter["id"] for meter in table["meters"]]
        assert len(ids) == at.meters
        check = await asyncio.create_subprocess_exec(
            *COMMAND, "config", "check", str(config), stdout=asyncio.subprocess.DEVNULL
        )
        assert await check.wait() == 0
        table_text = config.read_text().replace('spool_dir = "spool"', f'spool_dir = "{tmp_path}/spool"')
        config.write_text(table_text)
        await asyncio.to_thread(_first_readings, tmp_path, config, mosquitto, ids)


def _first_readings(folder: Path, config: Path, broker: RunningBroker, ids: list[str]) -> None:
    with (
        MqttClient(broker.config, "smartMeterMessage/#") as client,
        running(folder, "adapter", "adapter", "--config", str(config), "--json") as adapter,
    ):

        def came() -> bool:
            assert adapter.running, adapter.err
            return all(client.on(f"smartMeterMessage/{each}/readings") for each in ids)

        wait_for(came, f"a reading of each of {ids}; the adapter said {adapter.err[-2000:]}", within_s=120)


def table(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out)
    return found


async def test_all_places_are_tried_and_all_meters_proposed() -> None:
    async with port(sample("sml-generic")[1]) as first, gateway(sample("p1-generic")[1]) as second:
        code, out, err = await run(
            _named(first), "/dev/no-such-port", _named(second), "--listen", "0.5", "--no-ask", "--json"
        )
    assert code == 0, err
    said = table(out)
    assert [found["protocol"] for found in said["found"]] == ["sml", "p1"]
    assert [finding["code"] for finding in said["findings"]] == ["cannot-open"]
    assert said["ended"] == "done"
    assert len(tomllib.loads(said["config"])["meters"]) == 2
    assert "listening at 9600 8N1" in err
    assert "at most" in err


async def test_number_of_the_meter_is_shown_and_not_written() -> None:
    async with port(sample("sml-generic")[1]) as source:
        _, out, _ = await run(_named(source), "--listen", "0.5", "--json")
    said = table(out)
    number = said["found"][0]["meter"]
    assert number
    assert number not in said["config"]


async def test_limit_ends_it() -> None:
    async with port() as source:
        code, out, err = await run(_named(source), "--limit", "2", "--json", within_s=60)
    assert code == 1
    assert table(out)["ended"] == "limit"
    assert "broken off" in err


async def test_hostile_line_ends_in_time() -> None:
    """Bytes without end at every setting, some of which begin like telegrams."""
    rubbish = bytes(range(256)) * 8 + b"/ABC5\r\n\r\n" + b"\x68\xff\xff\x68" + b"\x7e\xa7\xff" * 64
    async with port(rubbish, pause_s=0.001) as source:
        code, out, _ = await run(_named(source), "--listen", "0.5", "--limit", "20", "--json", within_s=120)
    assert code == 1
    said = table(out)
    assert said["found"] == []
    assert said["attempts"]


async def test_interrupt_says_what_was_tried() -> None:
    async with port() as source:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            "detect",
            _named(source),
            "--listen",
            "0.5",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        try:
            async with asyncio.timeout(60):
                while b"with /?!" not in (line := await process.stderr.readline()):
                    assert line, "it ended before it asked"
            process.send_signal(signal.SIGINT)
            out, err = await asyncio.wait_for(process.communicate(), 60)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 130
    assert b"listened at 9600 8N1: nothing came" in out
    assert b"interrupted" in err
    assert b"Traceback" not in err


def test_interrupt_in_the_midst_of_a_step_is_not_lost() -> None:
    """A time-out that is over as it begins must not take the interrupt for its own."""
    went_on = False

    async def look() -> None:
        nonlocal went_on
        cancel_on_interrupt()
        signal.raise_signal(signal.SIGINT)
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        went_on = True

    with pytest.raises((asyncio.CancelledError, KeyboardInterrupt)):
        asyncio.run(look())
    assert not went_on
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


async def test_wrong_key_and_missing_key_are_said(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("00" * 16)
    async with gateway(sample("dlms-kaifa-austria")[1] * 3) as source:
        _, without, _ = await run(_named(source), "--listen", "0.5")
        _, wrong, _ = await run(_named(source), "--listen", "0.5", "--key-file", str(key))
    assert "there is no key" in without
    assert "# key_file" in without
    assert "not this meter's" in " ".join(wrong.split())


async def test_port_that_another_program_holds() -> None:
    async with port() as source:
        program = (
            "import fcntl, os, sys; port = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY); fcntl.flock(port, 6); "
            "print('held', flush=True); sys.stdin.read()"
        )
        holder = await asyncio.create_subprocess_exec(
            COMMAND[0], "-c", program, str(source.port), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert holder.stdout is not None
        assert holder.stdin is not None
        try:
            await asyncio.wait_for(holder.stdout.readline(), 60)
            assert any(f"process {holder.pid}" in each for each in holders(source.port))
            code, out, _ = await run(_named(source), "--listen", "0.5")
        finally:
            holder.stdin.close()
            await holder.wait()
    assert code == 1
    assert f"process {holder.pid}" in " ".join(out.split())


def test_ports_have_one_name_each(tmp_path: Path) -> None:
    by_id = tmp_path / "serial" / "by-id"
    by_id.mkdir(parents=True)
    for name in ("ttyUSB0", "ttyUSB1", "ttyAMA0"):
        (tmp_path / name).touch()
    (by_id / "usb-head").symlink_to(tmp_path / "ttyUSB0")
    (tmp_path / "serial0").symlink_to(tmp_path / "ttyAMA0")
    names = [str(each.relative_to(tmp_path)) for each in serial_ports(tmp_path)]
    assert names == ["serial/by-id/usb-head", "ttyUSB1", "ttyAMA0"]
    assert lasting(tmp_path / "ttyUSB0", tmp_path) == by_id / "usb-head"
    assert lasting(tmp_path / "ttyS0", tmp_path) == tmp_path / "ttyS0"


def test_help_teaches() -> None:
    text = CliRunner().invoke(detect, ["--help"], terminal_width=80).output
    for word in ("/dev/ttyUSB0", "rfc2217://", "http://", "mqtt://", "--key-file", "--limit", "Ctrl-C"):
        assert word in text


def test_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "adapter.toml"
    target.write_text("mine")
    done = subprocess.run(
        [*COMMAND, "detect", "/dev/null", "--write", str(target)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
        timeout=60,
    )
    assert done.returncode == 2
    assert "exists already" in done.stderr
    assert target.read_text() == "mine"
