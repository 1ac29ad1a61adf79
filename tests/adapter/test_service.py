"""The adapter as a process, on a real broker, reading files, sockets and ptys."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from meterway.adapter.config import AdapterConfig, MeterConfig, MqttSource, ReplaySource, TcpSource
from meterway.adapter.intake import Intake
from meterway.adapter.links import open_link
from meterway.adapter.listen import Ear, Listener
from meterway.adapter.mapping import Mapper
from meterway.adapter.memory import Memories
from meterway.adapter.outlet import Outlet
from meterway.adapter.plausibility import Plausibility
from meterway.adapter.segment import Segment
from meterway.adapter.service import keep_reading
from meterway.adapter.status import StatusSessions
from meterway.bus.mqtt import MqttBus
from meterway.core.channels import channel_meter_id
from meterway.core.config import dump_config
from meterway.core.obis import Obis
from meterway.delivery.config import RelayConfig
from meterway.delivery.relay import Relay
from meterway.delivery.spool import Spool
from meterway.meter.codec import CodecError, Decoder
from meterway.meter.crc import crc16_arc
from meterway.meter.dlms_security import seal
from meterway.meter.family import load_family
from meterway.meter.keys import Keys
from meterway.meter.p1 import P1Decoder
from meterway.meter.sml import SmlDecoder
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.encode_dlms import (
    date_time,
    encode_hdlc,
    encode_notification,
    flat,
    structure,
    uint32,
)
from support.adapter import METER, Concentrator, adapter, concentrating
from support.brokers import RunningBroker

TELEGRAM = (load_family("p1-generic").sample or pytest.fail("no sample")).telegram


def replay(tmp_path: Path, *telegrams: bytes) -> MeterConfig:
    file = tmp_path / "capture.bin"
    file.write_bytes(b"".join(telegrams))
    return MeterConfig(id=METER, source=ReplaySource(file=file))


@asynccontextmanager
async def speaking(data: bytes) -> AsyncIterator[TcpSource]:
    """A gateway that says ``data`` once to everyone who connects, and then keeps quiet."""
    writers: list[asyncio.StreamWriter] = []

    def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(data)

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        yield TcpSource(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


def checked(body: bytes) -> bytes:
    """A telegram up to its exclamation mark, with the checksum to match."""
    return body + f"{crc16_arc(body):04X}\r\n".encode()


def at(second: int, *, day: bytes = b"", line: bytes = b"") -> bytes:
    """The sample telegram at another second, on another day, with another line."""
    body = TELEGRAM[: TELEGRAM.rindex(b"!")] + line + b"!"
    start = body.index(b"0-0:1.0.0(") + len(b"0-0:1.0.0(")
    day = day or body[start : start + 6]
    return checked(body[:start] + day + body[start + 6 : start + 10] + b"%02d" % second + body[start + 12 :])


async def test_readings_are_numbered_without_a_gap_and_the_meter_is_described(
    tmp_path: Path, broker: RunningBroker
) -> None:
    async with concentrating(broker) as seen, adapter(tmp_path, broker, replay(tmp_path, at(1), at(2), at(3))):
        await seen.until(lambda: len(seen.of("readings")) == 3)
        assert [each["sequenceNumber"] for each in seen.of("readings")] == [1, 2, 3]
        await seen.until(lambda: bool(seen.of("meter")))
        (description,) = seen.of("meter")[-1:]
        assert description["meterIndividualId"] == METER
        assert (description["protocol"], description["link"], description["family"]) == ("p1", "replay", "p1-generic")
        assert {"propertyId": "OBIS_1.8.1", "unit": "kWh"} in description["properties"]


def falling(second: int) -> bytes:
    """The sample telegram with a register that is 100 kWh lower."""
    body = at(second)[: -len("ABCD\r\n")]
    start = body.index(b"1-0:1.8.1(") + len(b"1-0:1.8.1(")
    end = body.index(b"*", start)
    lower = float(body[start:end]) - 100
    return checked(body[:start] + b"%010.3f" % lower + body[end:])


async def test_a_register_that_falls_is_marked_and_reported_also_after_a_restart(
    tmp_path: Path, broker: RunningBroker
) -> None:
    async with concentrating(broker) as seen:
        async with adapter(tmp_path, broker, replay(tmp_path, at(1))):
            await seen.until(lambda: len(seen.of("readings")) == 1)
        async with adapter(tmp_path, broker, replay(tmp_path, falling(2))):
            await seen.until(lambda: len(seen.of("readings")) == 2 and bool(seen.of("faults")))
    assert [each["faultCode"] for each in seen.of("readings")] == [None, "register-fell"]
    [fault] = seen.of("faults")
    assert fault["reason"] == "register-fell"
    assert "OBIS_1.8.1" in fault["message"]


async def test_the_number_goes_on_after_a_kill_and_the_same_telegram_is_not_published_again(
    tmp_path: Path, broker: RunningBroker
) -> None:
    async with concentrating(broker) as seen, AsyncExitStack() as stack:
        process = await stack.enter_async_context(adapter(tmp_path, broker, replay(tmp_path, at(1), at(2))))
        await seen.until(lambda: len(seen.of("readings")) == 2)
        replay(tmp_path, at(2), at(3))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        await seen.until(lambda: any(each["sequenceNumber"] >= 3 for each in seen.of("readings")))
        numbers = {each["meterReadingIdentifier"]: each["sequenceNumber"] for each in seen.of("readings")}
        assert sorted(numbers.values()) == [1, 2, 3]


async def test_a_rejected_telegram_is_reported_with_its_reason_and_without_serial_numbers(
    tmp_path: Path, broker: RunningBroker
) -> None:
    broken = at(1).replace(b"*kWh", b"*kVh")
    async with concentrating(broker) as seen, adapter(tmp_path, broker, replay(tmp_path, broken, at(2))):
        await seen.until(lambda: bool(seen.of("faults")) and bool(seen.of("readings")))
        (fault,) = seen.of("faults")
        assert fault["reason"] == "bad-checksum"
        assert fault["sizeBytes"] == len(broken.rstrip())
        data = msgspec.convert(fault["data"], bytes)
        assert b"0-0:96.1.1(xxxx" in data
        assert [each["sequenceNumber"] for each in seen.of("readings")] == [1]


async def test_a_reading_that_no_store_takes_is_a_fault_and_the_others_arrive(
    tmp_path: Path, broker: RunningBroker
) -> None:
    never_set = at(1, day=b"900101")
    with_nul = at(3, line=b"0-0:96.13.1(meet\0me)\r\n")
    telegrams = (never_set, at(2), with_nul, at(4))
    async with concentrating(broker) as seen, adapter(tmp_path, broker, replay(tmp_path, *telegrams)):
        await seen.until(lambda: len(seen.of("readings")) == 2 and len(seen.of("faults")) == 2)
        assert [each["sequenceNumber"] for each in seen.of("readings")] == [1, 2]
        assert sorted(each["reason"] for each in seen.of("faults")) == ["absurd-time", "bad-text"]


async def test_the_broker_says_offline_for_a_meter_whose_adapter_was_killed(
    tmp_path: Path, broker: RunningBroker
) -> None:
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(speaking(at(1)))
        seen = await stack.enter_async_context(concentrating(broker))
        process = await stack.enter_async_context(adapter(tmp_path, broker, MeterConfig(id=METER, source=source)))
        await seen.until(lambda: any(each["state"] == "online" for each in seen.of("status")))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        await seen.until(lambda: any("last will" in each.get("detail", "") for each in seen.of("status")))
        will = next(each for each in seen.of("status") if "last will" in each.get("detail", ""))
        assert will["state"] == "offline"


async def test_a_meter_is_online_again_after_a_kill_though_it_only_repeats_itself(
    tmp_path: Path, broker: RunningBroker
) -> None:
    gas = channel_meter_id(METER, 1)
    async with AsyncExitStack() as stack:
        seen = await stack.enter_async_context(concentrating(broker))
        source = await stack.enter_async_context(speaking(at(1)))
        process = await stack.enter_async_context(adapter(tmp_path, broker, MeterConfig(id=METER, source=source)))
        await seen.until(lambda: any(each["state"] == "online" for each in seen.of("status", gas)))
        before = len(seen.of("status", gas))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        await seen.until(lambda: any(each["state"] == "offline" for each in seen.of("status", gas)[before:]))
        await seen.until(lambda: seen.of("status", gas)[-1]["state"] == "online")
        assert {each["sequenceNumber"] for each in seen.of("readings", gas)} == {1}


async def test_a_meter_whose_readings_are_refused_says_so(tmp_path: Path, broker: RunningBroker) -> None:
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(speaking(at(1, day=b"900101")))
        seen = await stack.enter_async_context(concentrating(broker))
        await stack.enter_async_context(adapter(tmp_path, broker, MeterConfig(id=METER, source=source)))
        await seen.until(lambda: any("was refused" in each.get("detail", "") for each in seen.of("status")))
        status = next(each for each in seen.of("status") if "was refused" in each.get("detail", ""))
        assert status["state"] == "waiting"
        assert "is not in the years 2000 to 2100" in status["detail"]


class BrokenDecoder:
    """A codec that breaks its promise never to raise."""

    skipped_bytes = 0
    buffered_bytes = 0

    def feed(self, data: bytes, now: float) -> list[Telegram | CodecError]:
        raise ZeroDivisionError(len(data), now)

    def idle(self, now: float) -> list[Telegram | CodecError]:
        raise ZeroDivisionError(now)


@asynccontextmanager
async def listening(
    tmp_path: Path, broker: RunningBroker, source: TcpSource, decoder: Decoder, *, watchdog_s: float = 60
) -> AsyncIterator[Concentrator]:
    """Listen to a meter in this process."""
    async with AsyncExitStack() as stack:
        seen = await stack.enter_async_context(concentrating(broker))
        spool = await stack.enter_async_context(Spool(tmp_path / "spool", count_topics=True))
        now = partial(datetime.now, UTC)
        sessions = await stack.enter_async_context(StatusSessions(broker.config, "a", now))
        meter, family = MeterConfig(id=METER, source=source), load_family("p1-generic")
        mapper = Mapper(meter, family)
        intake = Intake(
            meter,
            family,
            Outlet(spool),
            sessions,
            mapper=mapper,
            plausibility=Plausibility(family, mapper.meter_ids, Memories()),
            wall=now,
            monotonic=time.monotonic,
        )
        segment = Segment(where="there", line=family.line, open=partial(open_link, source))
        listener = Listener(
            segment, [Ear(intake=intake, decoder=decoder, watchdog_s=watchdog_s)], monotonic=time.monotonic
        )
        reading = asyncio.create_task(keep_reading(listener, [intake]))
        bus = await stack.enter_async_context(MqttBus(broker.config, "a-adapter"))
        relay = asyncio.create_task(Relay(spool, bus, RelayConfig(confirm="broker")).run())
        yield seen
        for task in (reading, relay):
            task.cancel()
        await asyncio.gather(reading, relay, return_exceptions=True)


async def test_a_defect_is_said_in_the_status(tmp_path: Path, broker: RunningBroker) -> None:
    async with speaking(at(1)) as source, listening(tmp_path, broker, source, BrokenDecoder()) as seen:
        await seen.until(lambda: any("(ZeroDivisionError)" in each.get("detail", "") for each in seen.of("status")))
        status = next(each for each in seen.of("status") if "(ZeroDivisionError)" in each.get("detail", ""))
        assert status["state"] == "offline"


async def test_a_process_that_stood_still_takes_no_telegram_for_cut(tmp_path: Path, nats: RunningBroker) -> None:
    """Its time for a quiet line is over, and the rest of the telegram waits at the socket."""
    telegram = at(1)
    decoder = P1Decoder(zone=ZoneInfo("Europe/Amsterdam"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = TcpSource(host="127.0.0.1", port=server.getsockname()[1])
        async with listening(tmp_path, nats, source, decoder, watchdog_s=1.0) as seen:
            connection, _ = await asyncio.to_thread(server.accept)
            connection.sendall(telegram[:300])
            await seen.until(lambda: decoder.buffered_bytes > 0)
            connection.sendall(telegram[300:])
            time.sleep(1.3)  # noqa: ASYNC251 - the process stands still
            await seen.until(lambda: bool(seen.of("readings") or seen.of("faults")))
            assert [each["reason"] for each in seen.of("faults") if each["reason"] != "clock-wrong"] == []
            assert len(seen.of("readings")) == 1
            connection.close()


async def test_silence_has_a_cause(tmp_path: Path, broker: RunningBroker) -> None:
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(speaking(b"\x00\xff" * 20))
        seen = await stack.enter_async_context(concentrating(broker))
        meter = MeterConfig(id=METER, source=source, watchdog_s=0.3)
        await stack.enter_async_context(adapter(tmp_path, broker, meter))
        sentence = "40 bytes for 0.3 s but no whole p1 telegram; wrong baud rate, parity or family?"
        await seen.until(lambda: any(sentence in each.get("detail", "") for each in seen.of("status")))
        assert next(each for each in seen.of("status") if sentence in each.get("detail", ""))["state"] == "silent"


async def test_meters_that_share_a_link_are_told_apart_and_a_silent_one_does_not_hurt_the_other(
    tmp_path: Path, nats: RunningBroker
) -> None:
    sample = load_family("sml-generic").sample
    assert sample is not None
    [telegram] = SmlDecoder().feed(sample.telegram, 0.0)
    assert isinstance(telegram, Telegram)
    other = METER.replace("1", "2")
    connections = 0
    is_over = asyncio.Event()

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with suppress(ConnectionError):
            while True:
                writer.write(sample.telegram)
                await writer.drain()
                await asyncio.sleep(0.1)
        writer.close()
        is_over.set()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server, concentrating(nats) as seen:
        source = TcpSource(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
        meters = [
            MeterConfig(id=METER, source=source, family="sml-generic", address=telegram.meter),
            MeterConfig(id=other, source=source, family="sml-generic", address="0A01", watchdog_s=2.0),
        ]
        async with adapter(tmp_path, nats, *meters):
            await seen.until(lambda: any(each["state"] == "silent" for each in seen.of("status", other)))
            status = next(each for each in seen.of("status", other) if each["state"] == "silent")
            assert status["detail"].endswith("but no telegram of this meter; is its address right?")
            await seen.until(lambda: len(seen.of("readings")) >= 2)
            assert seen.of("status")[-1]["state"] == "online"
            assert not seen.of("readings", other)
        await is_over.wait()
        assert connections == 1


async def test_a_message_is_whole_or_damaged_and_never_the_beginning_of_the_next(
    tmp_path: Path, nats: RunningBroker
) -> None:
    meter = MeterConfig(id=METER, source=MqttSource(topic="house/p1"), clock="recorded")
    async with concentrating(nats) as seen, adapter(tmp_path, nats, meter):
        async with asyncio.timeout(30):
            while not seen.of("faults"):  # the adapter may not have subscribed yet
                seen.bus.publish("house/p1", TELEGRAM[:300])
                await asyncio.sleep(0.05)
        seen.bus.publish("house/p1", at(2))
        await seen.until(lambda: bool(seen.of("readings")))
        assert {each["reason"] for each in seen.of("faults")} == {"truncated"}


@pytest.mark.parametrize(
    ("family", "sentence"),
    [
        ("p1-genric", "there is no family of meters `p1-genric`; did you mean `p1-generic`?"),
    ],
)
async def test_a_family_that_cannot_be_read_stops_the_process_with_a_reason(
    tmp_path: Path, nats: RunningBroker, family: str, sentence: str
) -> None:
    config = AdapterConfig(
        id="test",
        broker=nats.config,
        spool_dir=tmp_path / "spool",
        meters=(MeterConfig(id=METER, family=family, source=ReplaySource(file=tmp_path / "x")),),
    )
    path = tmp_path / "adapter.toml"
    path.write_text(dump_config(config))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "meterway", "adapter", "--config", str(path), stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert sentence in said.decode()


KEYS = Keys(bytes(range(16)), bytes(range(16, 32)))


def encrypted(counter: int, *, energy_wh: int) -> bytes:
    """A push of an E450 in Austria, whose values have no units."""
    time_ = datetime(2026, 6, 5, 12, 0, counter, tzinfo=UTC)
    values = flat([(Obis(1, 0, 1, 8, 0), uint32(energy_wh), None), (Obis(1, 0, 1, 7, 0), uint32(2718), None)])
    apdu = encode_notification(counter, structure(*values), date_time(time_))
    return encode_hdlc(seal(apdu, title=b"LGZ\x67\x00\x00\x00\x2a", counter=counter, keys=KEYS), most_bytes=60)


def encrypted_meter(tmp_path: Path, source: TcpSource | ReplaySource, *keys: bytes | None) -> MeterConfig:
    key_file = tmp_path / "meter.key"
    key_file.write_text("\n".join(key.hex() for key in keys if key))
    return MeterConfig(id=METER, source=source, family="dlms-lg-e450-austria", key_file=key_file)


async def test_an_encrypted_meter_is_read_and_its_replays_are_refused(tmp_path: Path, broker: RunningBroker) -> None:
    telegrams = encrypted(1, energy_wh=12345678), encrypted(2, energy_wh=12345679), encrypted(1, energy_wh=1)
    file = tmp_path / "capture.bin"
    file.write_bytes(b"".join(telegrams))
    meter = encrypted_meter(tmp_path, ReplaySource(file=file), KEYS.encryption, KEYS.authentication)
    async with concentrating(broker) as seen, adapter(tmp_path, broker, meter):
        await seen.until(lambda: len(seen.of("readings")) == 2 and bool(seen.of("faults")))
        first, second = seen.of("readings")
        values = {each["operationalPropertyDefinition"]["propertyId"]: each for each in first["propertyValues"]}
        assert (values["OBIS_1.8.0"]["numericalValue"], values["OBIS_1.8.0"]["unit"]) == (12345.678, "kWh")
        assert (values["OBIS_1.7.0"]["numericalValue"], values["OBIS_1.7.0"]["unit"]) == (2.718, "kW")
        assert first["readingTime"] == "2026-06-05T12:00:01Z"
        assert first["faultCode"] is second["faultCode"] is None
        assert [each["reason"] for each in seen.of("faults")] == ["replayed"]
        assert not any(KEYS.encryption.hex().encode() in payload for _, payload in seen.messages if KEYS.encryption)


async def test_without_the_authentication_key_readings_are_marked_unverified(
    tmp_path: Path, broker: RunningBroker
) -> None:
    async with speaking(encrypted(1, energy_wh=5)) as source, concentrating(broker) as seen:
        async with adapter(tmp_path, broker, encrypted_meter(tmp_path, source, KEYS.encryption)):
            await seen.until(lambda: bool(seen.of("readings")))
        assert seen.of("readings")[0]["faultCode"] == "unverified,clock-wrong"


async def test_what_was_read_before_the_link_broke_cannot_be_replayed_after_it(
    tmp_path: Path, broker: RunningBroker
) -> None:
    async with speaking(encrypted(1, energy_wh=5)) as source, concentrating(broker) as seen:
        meter = encrypted_meter(tmp_path, source, KEYS.encryption, KEYS.authentication)
        async with adapter(tmp_path, broker, msgspec.structs.replace(meter, watchdog_s=0.3)):
            await seen.until(lambda: any(each["reason"] == "replayed" for each in seen.of("faults")))
        assert len(seen.of("readings")) == 1


async def test_a_wrong_key_is_said_and_a_missing_key_file_stops_the_process(
    tmp_path: Path, broker: RunningBroker
) -> None:
    async with speaking(encrypted(1, energy_wh=5)) as source, concentrating(broker) as seen:
        async with adapter(tmp_path, broker, encrypted_meter(tmp_path, source, bytes(16))):
            await seen.until(lambda: bool(seen.of("faults")))
        assert seen.of("faults")[0]["reason"] == "bad-key"
        meter = encrypted_meter(tmp_path, source)
        assert meter.key_file is not None
        meter.key_file.unlink()
        config = AdapterConfig(id="test", broker=broker.config, spool_dir=tmp_path / "other", meters=(meter,))
        path = tmp_path / "adapter.toml"
        path.write_text(dump_config(config))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "meterway", "adapter", "--config", str(path), stderr=asyncio.subprocess.PIPE
        )
        _, said = await process.communicate()
        assert process.returncode == 2
        assert "meter.key: the key file cannot be read: No such file or directory" in said.decode()
