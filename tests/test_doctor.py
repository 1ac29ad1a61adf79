"""The doctor beside real adapters, brokers, ptys and processes."""

import asyncio
import json
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from meterway.adapter.config import (
    AdapterConfig,
    HttpSource,
    MeterConfig,
    ProcessSource,
    ReplaySource,
    SerialSource,
    TcpListenerSource,
    TcpSource,
)
from meterway.adapter.doctor.adapter import look_at_adapter, same_meter_twice
from meterway.adapter.doctor.broker import look_at_broker
from meterway.adapter.doctor.check import CODES, Check
from meterway.bus.bus import BrokerConfig
from meterway.cli.doctor import doctor
from meterway.core import reports
from meterway.core.config import dump_config
from meterway.delivery.spool import Spool
from meterway.edge import EdgeAdapter, EdgeConcentrator, EdgeConfig
from meterway.meter import diagnose
from support import sml
from support.adapter import METER, Concentrator, adapter, concentrating, config_of
from support.brokers import RunningBroker, free_port, running_mosquitto
from support.links import serial_line, tcp_server, until

POWER = sml.entry(sml.POWER, sml.integer(120, 4), unit=sml.W)
TELEGRAM = sml.frame(sml.get_list(sml.entry(sml.IMPORT, sml.integer(12345001, 8), unit=sml.WH), POWER))
NOISE = b"\x55" * 400
OTHER = METER[:-1] + "2"
PROJECT = Path(__file__).parent.parent


def sml_at(source: TcpSource | SerialSource | ReplaySource, meter_id: str = METER) -> MeterConfig:
    return MeterConfig(id=meter_id, source=source, family="sml-generic")


@asynccontextmanager
async def speaking(data: bytes, *, every_s: float = 0.1) -> AsyncIterator[TcpSource]:
    """A gateway that says ``data`` again and again to everyone who connects."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(every_s)

    async with tcp_server(serve) as port:
        yield TcpSource(host="127.0.0.1", port=port)


def codes(checks: list[Check], *, ok: bool) -> set[str]:
    assert {check.word for check in checks} <= CODES | diagnose.CODES
    assert all(check.ok or check.fix for check in checks)
    return {check.word for check in checks if check.ok is ok}


def one(checks: list[Check], code: str) -> Check:
    [found] = [check for check in checks if check.word == code]
    return found


async def recorded(config: AdapterConfig, size_bytes: int = 1) -> None:
    """Wait until the adapter's ring holds something."""
    folder = config.spool_dir / "raw"
    await until(lambda: sum(file.stat().st_size for file in folder.glob("*")) >= size_bytes)


async def test_a_running_adapter_whose_meter_is_well(tmp_path: Path, broker: RunningBroker) -> None:
    async with speaking(TELEGRAM) as source, concentrating(broker) as concentrator:
        meter = sml_at(source)
        config = config_of(tmp_path, broker, meter)
        async with adapter(tmp_path, broker, meter):
            await concentrator.until(lambda: bool(concentrator.of("readings")))
            await recorded(config)
            found = await look_at_adapter(config, listen_s=1)
    assert codes(found.checks, ok=False) == set()
    assert "whole sml telegrams, the last" in one(found.checks, "telegrams").detail
    assert "online since" in one(found.checks, "status").detail
    assert "takes us" in one(found.checks, "broker").detail
    assert "is the adapter's" in one(found.checks, "port").detail
    assert one(found.checks, "receipts").ok
    assert "runs as process" in one(found.checks, "setup").detail


async def test_a_running_adapter_whose_line_is_wrong(tmp_path: Path, nats: RunningBroker) -> None:
    async with speaking(NOISE) as source:
        meter = sml_at(source)
        config = config_of(tmp_path, nats, meter)
        async with adapter(tmp_path, nats, meter):
            await recorded(config)
            found = await look_at_adapter(config, listen_s=0)
    assert "wrong-baud" in codes(found.checks, ok=False)
    assert one(found.checks, "status").detail.startswith("the broker says waiting")


async def test_a_running_adapter_whose_meter_says_nothing(tmp_path: Path, nats: RunningBroker) -> None:
    async with speaking(b"", every_s=1) as source:
        meter = sml_at(source)
        async with adapter(tmp_path, nats, meter):
            found = await look_at_adapter(config_of(tmp_path, nats, meter), listen_s=0)
            silent = config_of(tmp_path, nats, meter)
            no_ring = await look_at_adapter(replace(silent, raw_ring_bytes=0), listen_s=0)
    assert "no-bytes" in codes(found.checks, ok=False)
    assert "no-bytes" not in codes(no_ring.checks, ok=False)
    assert "skipped: the adapter keeps no bytes" in one(no_ring.checks, "recorded").detail


async def test_without_an_adapter_nothing_is_opened_unless_told(tmp_path: Path, nats: RunningBroker) -> None:
    async with speaking(TELEGRAM) as source:
        config = config_of(tmp_path, nats, sml_at(source))
        left = await look_at_adapter(config, listen_s=0)
        heard = await look_at_adapter(config, listen_s=1)
    assert one(left.checks, "recorded").detail.startswith("skipped: no adapter runs")
    assert one(heard.checks, "telegrams").ok
    assert codes(heard.checks, ok=False) == set()
    assert not (config.spool_dir).exists()


async def test_meters_that_are_asked_are_asked_once(tmp_path: Path, nats: RunningBroker) -> None:
    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with tcp_server(serve) as port:
        source = TcpSource(host="127.0.0.1", port=port)
        meter = MeterConfig(id=METER, source=source, family="mbus-heat", address="5")
        found = await look_at_adapter(config_of(tmp_path, nats, meter), listen_s=1)
    no_answer = one(found.checks, "no-answer")
    assert not no_answer.ok
    assert "not one byte came" in no_answer.detail


async def test_a_program_is_not_started(tmp_path: Path, nats: RunningBroker) -> None:
    made = tmp_path / "made"
    meter = MeterConfig(id=METER, source=ProcessSource(command=("touch", str(made))), family="json-tasmota-sml")
    found = await look_at_adapter(config_of(tmp_path, nats, meter), listen_s=1)
    assert one(found.checks, "recorded").detail.startswith("skipped: its source is a program")
    assert not made.exists()


async def test_a_configuration_that_cannot_work_is_said(tmp_path: Path, nats: RunningBroker) -> None:
    source = HttpSource(url="http://127.0.0.1:1/")
    meter = MeterConfig(id=METER, source=source, family="json-shrdzm", key_file=tmp_path / "absent")
    found = await look_at_adapter(config_of(tmp_path, nats, meter), listen_s=0)
    assert any("the key file cannot be read" in check.detail and not check.ok for check in found.checks)


@contextmanager
def holding(path: Path) -> Iterator[int]:
    """Another process that has the device open."""
    program = (
        "import os, sys; os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        yield process.pid
        process.kill()


async def test_a_port_that_another_program_holds(tmp_path: Path, nats: RunningBroker) -> None:
    with serial_line() as (_, device):
        config = config_of(tmp_path, nats, sml_at(SerialSource(port=device)))
        free = await look_at_adapter(config, listen_s=0)
        with holding(device) as pid:
            held = await look_at_adapter(config, listen_s=1)
    assert one(free.checks, "port").detail == f"{device} can be opened"
    check = one(held.checks, "port-held")
    assert not check.ok
    assert f"process {pid} (python" in check.detail
    gone = await look_at_adapter(config_of(tmp_path, nats, sml_at(SerialSource(port=Path("/dev/absent")))), listen_s=0)
    assert not one(gone.checks, "port-missing").ok


async def test_a_listening_port_that_another_program_holds(tmp_path: Path, nats: RunningBroker) -> None:
    listen = "s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)"
    program = f"import socket, sys; {listen}; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        meter = MeterConfig(id=METER, source=TcpListenerSource(port=port), family="sml-generic")
        found = await look_at_adapter(config_of(tmp_path, nats, meter), listen_s=0)
        process.kill()
    assert f"port {port} is held by process {process.pid}" in one(found.checks, "port-held").detail


async def test_messages_that_nobody_confirms(tmp_path: Path, nats: RunningBroker) -> None:
    async with speaking(TELEGRAM) as source:
        meter = sml_at(source)
        config = config_of(tmp_path, nats, meter)
        hour_ago_s = datetime.now(UTC).timestamp() - 3600
        async with Spool(config.spool_dir, config.spool, count_topics=True, clock=lambda: hour_ago_s) as spool:
            spool.append(f"smartMeterMessage/{METER}/readings", b"{}")
            await spool.commit()
        stopped = await look_at_adapter(config, listen_s=0)
        async with adapter(tmp_path, nats, meter):
            await recorded(config)
            running = await look_at_adapter(config, listen_s=2)
    assert "1 messages wait" in one(stopped.checks, "spool").detail
    assert one(stopped.checks, "spool").ok
    check = one(running.checks, "not-confirmed")
    assert "the concentrator does not confirm" in check.detail
    assert "the oldest for 36" in check.detail
    assert one(running.checks, "concentrator").detail.startswith("skipped: no concentrator speaks")


async def test_readings_without_receipts(tmp_path: Path, nats: RunningBroker) -> None:
    """A concentrator that does not answer, and a meter that goes on."""
    count = iter(range(12_345_001, 99_999_999))

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            energy = sml.entry(sml.IMPORT, sml.integer(next(count), 8), unit=sml.WH)
            writer.write(sml.frame(sml.get_list(energy, POWER)))
            await writer.drain()
            await asyncio.sleep(0.1)

    async with tcp_server(serve) as port:
        meter = sml_at(TcpSource(host="127.0.0.1", port=port))
        config = config_of(tmp_path, nats, meter)
        deaf = Concentrator(nats, confirm=False)
        async with deaf.bus, adapter(tmp_path, nats, meter):
            await deaf.until(lambda: len(deaf.of("readings")) > 5)
            found = await look_at_adapter(config, listen_s=4)
    receipts = one(found.checks, "receipts")
    assert not receipts.ok
    assert "0 receipts came" in receipts.detail


async def test_an_id_that_another_adapter_uses(tmp_path: Path, nats: RunningBroker) -> None:
    async with speaking(TELEGRAM) as source, concentrating(nats) as concentrator:
        meter = sml_at(source)
        async with adapter(tmp_path, nats, meter):
            await concentrator.until(lambda: any(each["state"] == "online" for each in concentrator.of("status")))
            ours = replace(config_of(tmp_path, nats, meter), id="ours", spool_dir=tmp_path / "ours")
            found = await look_at_adapter(ours, listen_s=0)
            path = tmp_path / "ours.toml"
            path.write_text(dump_config(ours))
            result = await asyncio.to_thread(CliRunner().invoke, doctor, ["--json", "--config", str(path)])
    taken = one(found.checks, "meter-id-taken")
    assert not taken.ok
    assert "this adapter does not run here" in taken.detail
    lines = [json.loads(line) for line in result.output.splitlines()]
    [twice] = [line for line in lines if line["code"] == "meter-id-twice"]
    assert f"meterway adapter --config {tmp_path / 'adapter.toml'}" in twice["detail"]
    assert result.exit_code == 1


def test_two_configurations_with_one_id(tmp_path: Path) -> None:
    first, second = (
        AdapterConfig(id=name, spool_dir=tmp_path / name, meters=(sml_at(ReplaySource(file=Path("x"))),))
        for name in ("a", "b")
    )
    [check] = same_meter_twice([("a.toml", first), ("b.toml", second)])
    assert (check.word, check.detail) == ("meter-id-twice", "two adapters use this id: a.toml and b.toml")
    assert same_meter_twice([("a.toml", first), ("process 1", first)]) == []


async def test_a_broker_that_is_away() -> None:
    seen = await look_at_broker(BrokerConfig(url=f"mqtt://127.0.0.1:{free_port()}"), watch_s=0)
    assert codes(seen.checks, ok=False) == {"broker-unreachable"}


async def test_a_broker_that_knows_another_password(tmp_path: Path) -> None:
    users, password = tmp_path / "users", tmp_path / "password"
    users.write_text("meter:$7$101$AAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==\n")
    password.write_text("wrong-17\n")
    with running_mosquitto(tmp_path / "broker", extra=f"password_file {users}\nallow_anonymous false") as broker:
        config = BrokerConfig(url=broker.url, username="meter", password_file=password)
        seen = await look_at_broker(config, watch_s=0)
        absent = await look_at_broker(replace(config, password_file=tmp_path / "absent"), watch_s=0)
    assert codes(seen.checks, ok=False) == {"broker-not-authorised"}
    assert "the password is wrong" in seen.checks[0].fix
    assert codes(absent.checks, ok=False) == {"broker-password"}
    assert "wrong-17" not in str(seen.checks)


@pytest.mark.parametrize(
    ("code", "expected"), [(4, "broker-password"), (5, "broker-not-authorised"), (2, "broker-refused")]
)
async def test_why_a_broker_refuses(code: int, expected: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(bytes((0x20, 2, 0, code)))
        await reader.read()

    async with tcp_server(serve) as port:
        seen = await look_at_broker(BrokerConfig(url=f"mqtt://127.0.0.1:{port}"), watch_s=0)
    assert codes(seen.checks, ok=False) == {expected}


async def test_a_broker_that_refuses_a_subscription() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(b"\x20\x02\x00\x00")
        while subscribe := await reader.read(4096):
            if subscribe[0] == 0x82:
                writer.write(b"\x90\x03" + subscribe[2:4] + b"\x80")

    async with tcp_server(serve) as port:
        config = BrokerConfig(url=f"mqtt://127.0.0.1:{port}")
        seen = await look_at_broker(config, needed=["receipt/a"], watch_s=0)
        less = await look_at_broker(config, wanted=["smartMeterMessage/+/status"], watch_s=0)
    assert codes(seen.checks, ok=False) == {"broker-not-authorised"}
    assert "receipt/a" in seen.checks[0].detail
    assert codes(less.checks, ok=False) == set()


async def test_a_broker_that_speaks_tls(tmp_path: Path) -> None:
    pair = tmp_path / "pair.pem"
    await asyncio.to_thread(
        subprocess.run,
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=broker", "-keyout", str(pair), "-out", str(tmp_path / "certificate.pem")),
        ],
        check=True,
        capture_output=True,
    )
    pair.write_bytes(pair.read_bytes() + (tmp_path / "certificate.pem").read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with tcp_server(serve, tls=context) as port:
        seen = await look_at_broker(BrokerConfig(url=f"mqtt://127.0.0.1:{port}"), watch_s=0)
    assert codes(seen.checks, ok=False) == {"broker-tls"}


def lines_of(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    result = CliRunner().invoke(doctor, ["--json", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, [json.loads(line) for line in result.output.splitlines()]


def test_an_edge_is_looked_at_part_by_part(tmp_path: Path) -> None:
    (tmp_path / "capture").write_bytes(TELEGRAM)
    config = EdgeConfig(
        data_dir=tmp_path / "data",
        concentrator=EdgeConcentrator(id="device", cloud=BrokerConfig(url=f"mqtt://127.0.0.1:{free_port()}")),
        adapters=tuple(
            EdgeAdapter(id=name, meters=(sml_at(ReplaySource(file=tmp_path / "capture"), meter_id),))
            for name, meter_id in (("cellar", METER), ("roof", OTHER))
        ),
    )
    path = tmp_path / "edge.toml"
    path.write_text(dump_config(config))
    code, lines = lines_of("--config", str(path), "--listen", "1")
    assert code == 1
    found = {(line["check"], line["code"]): line for line in lines}
    for name, meter_id in (("cellar", METER), ("roof", OTHER)):
        assert found[f"adapter {name}", "setup"]["detail"] == "does not run"
        assert found[f"meter {meter_id}", "telegrams"]["ok"]
    assert found["broker", "broker-unreachable"]["ok"] is False
    assert found["concentrator device", "concentrator"]["detail"] == "does not run"
    assert "skipped" in found["spool of the concentrator", "spool"]["detail"]


def test_a_bundle_is_written_shown_and_replayed(tmp_path: Path) -> None:
    (tmp_path / "capture").write_bytes(TELEGRAM)
    broker = BrokerConfig(url=f"mqtt://127.0.0.1:{free_port()}")
    meter = sml_at(ReplaySource(file=tmp_path / "capture"))
    config = AdapterConfig(id="cellar", spool_dir=tmp_path / "spool", meters=(meter,), broker=broker)
    path, bundle = tmp_path / "adapter.toml", tmp_path / "help.zip"
    path.write_text(dump_config(config))
    code, lines = lines_of("--config", str(path), "--listen", "1", "--bundle", str(bundle))
    assert code == 1  # nobody is at the broker's port
    assert lines[-1]["bundle"] == str(bundle)
    code, again = lines_of("--replay", str(bundle))
    assert code == 1
    details = {line["code"]: line["detail"] for line in again}
    assert details["telegrams"].startswith("replayed: 1 whole sml telegrams")
    assert details["broker-unreachable"].startswith("recorded: ")
    assert not any(str(tmp_path) in detail or METER in detail for detail in details.values())
    for wrong in (["--bundle", str(bundle)], ["--replay", str(bundle), "--config", str(path)]):
        assert CliRunner().invoke(doctor, wrong).exit_code == 2


async def test_what_the_concentrator_says_of_itself_is_passed_on(tmp_path: Path, nats: RunningBroker) -> None:
    status = reports.Status(
        state="online", since=datetime.now(UTC), counters={"pending": 7, "oldest_age_s": 900}, detail=None
    )
    from meterway.bus.mqtt import MqttBus

    async with MqttBus(nats.config, "test-concentrator-status", clean_session=True) as bus:
        await bus.wait_connected()
        bus.publish("concentrator/c1/status", reports.encode(status), retain=True)
        await until(lambda: bus.unacknowledged == 0)
        meter = sml_at(ReplaySource(file=tmp_path / "absent"))
        found = await look_at_adapter(config_of(tmp_path, nats, meter), listen_s=0)
    check = one(found.checks, "concentrator")
    assert not check.ok
    assert "7 messages wait there, the oldest for 900 s" in check.detail
    assert not one(found.checks, "file-missing").ok


def test_every_code_is_on_the_page_of_symptoms() -> None:
    page = (PROJECT / "docs/troubleshooting.md").read_text()
    machine = {"python", "setpriv", "nats-server", "postgresql", "database", "http", "folder", "secret", "config"}
    assert [code for code in sorted(CODES | diagnose.CODES | machine) if f"`{code}`" not in page] == []
