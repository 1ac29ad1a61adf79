"""Masters on real links: their steps in order and in time, their ends, and what one failure means for the others."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from meterway.adapter.ask import Asked, Asker
from meterway.adapter.config import MeterConfig, SerialSource, Source, TcpSource
from meterway.adapter.converse import AskedLink
from meterway.adapter.intake import Intake
from meterway.adapter.links import describe, open_link
from meterway.adapter.mapping import Mapper
from meterway.adapter.memory import Memories
from meterway.adapter.outlet import Outlet
from meterway.adapter.plausibility import Plausibility
from meterway.adapter.segment import Segment
from meterway.adapter.status import StatusSessions
from meterway.core.errors import SetupError, TransientError
from meterway.delivery.spool import Spool
from meterway.meter.codec import CodecError
from meterway.meter.family import Line, load_family
from meterway.meter.iec62056_21_access import FIRST_LINE, Access, Registers
from meterway.meter.iec62056_21_master import Iec62056Master
from meterway.meter.master import Deadline, Done, Master, Send, SetLine, Steps, Wait
from meterway.meter.mbus_master import MbusMaster, MbusMeter
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.answer_iec62056_21 import AnsweringMeter, MeterSide
from meterway.meter.virtual.mbus_slave import MbusSegment
from support.adapter import METER, Concentrator, concentrating
from support.brokers import RunningBroker
from support.iec_wire import PtyMeter
from support.mbus import BERLIN, HEAT, volume_slave

LINE = Line(baud=2400, parity="E")
OTHER = METER.replace("1", "2")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def gateway(serve: Serve) -> AsyncIterator[TcpSource]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield TcpSource(host="127.0.0.1", port=server.sockets[0].getsockname()[1])


@asynccontextmanager
async def asked(source: Source, line: Line = LINE) -> AsyncIterator[AskedLink]:
    async with open_link(source, line) as link:
        yield AskedLink(link, line, where=describe(source), monotonic=time.monotonic)


@dataclass
class Scripted:
    """A master that says what it was told to say, and keeps what it heard."""

    first: Steps
    then: Callable[[bytes], Steps] = lambda _: []
    late: Steps = field(default_factory=lambda: [Done(TransientError("late"))])
    heard: bytes = b""

    def start(self, now: float) -> Steps:  # noqa: ARG002
        return self.first

    def feed(self, data: bytes, now: float) -> Steps:  # noqa: ARG002
        self.heard += data
        return self.then(self.heard)

    def on_timeout(self, now: float) -> Steps:  # noqa: ARG002
        return self.late


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1024):
        writer.write(data)


async def test_steps_are_carried_out_in_order_and_bytes_that_come_while_waiting_are_kept() -> None:
    master = Scripted(
        [Send(b"one"), Wait(0.2), Send(b"two"), Deadline(10)],
        lambda heard: [Done()] if heard == b"onetwo" else [],
    )
    async with gateway(echo) as source, asked(source) as link:
        assert await link.converse(master, LINE, []) is None
    assert master.heard == b"onetwo"


async def test_a_deadline_is_told_once_it_has_passed_and_an_answer_of_nothing_leaves_it_standing() -> None:
    master = Scripted([Send(b"one"), Deadline(0.3)])
    async with gateway(echo) as source, asked(source) as link:
        begin = time.monotonic()
        error = await link.converse(master, LINE, [])
        assert time.monotonic() - begin >= 0.3
    assert isinstance(error, TransientError)
    assert master.heard == b"one"


@pytest.mark.parametrize(
    "master",
    [
        Scripted([]),
        Scripted([Deadline(0)], late=[Deadline(0)]),
        Scripted([Send(b"x"), Deadline(9)], lambda _: [Send(b"x"), Deadline(9)]),
        Scripted([Wait(3600)]),
    ],
    ids=["says nothing", "is always late", "asks for ever", "sleeps"],
)
async def test_a_session_that_does_not_end_is_broken_off(master: Scripted) -> None:
    async with gateway(echo) as source, asked(source) as link:
        error = await link.converse(master, LINE, [], limit_s=0.3)
        assert "the session was not over after 0.3 s; it was broken off" in str(error)
        await link.rest(0.05)
        assert await link.converse(Scripted([Done()]), LINE, []) is None


async def test_a_line_is_set_only_when_it_changes_and_a_link_that_cannot_is_a_setup_error() -> None:
    async with gateway(echo) as source, asked(source) as link:
        assert await link.converse(Scripted([SetLine(LINE), Done()]), LINE, []) is None
        with pytest.raises(SetupError, match="rfc2217"):
            await link.converse(Scripted([SetLine(Line(baud=9600)), Done()]), LINE, [])
        assert await link.converse(Scripted([Done()]), LINE, []) is None


async def test_a_link_that_breaks_leaves_what_was_read_before() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:  # noqa: ARG001
        await reader.read(1)

    found: list[Telegram | CodecError] = []
    damage = CodecError("a frame", reason="bad-checksum", data=b"x")
    async with gateway(hang_up) as source, asked(source) as link:
        with pytest.raises(TransientError, match="closed by the other side"):
            await link.converse(Scripted([damage, Send(b"one"), Deadline(10)]), LINE, found)
    assert found == [damage]


async def test_what_comes_unasked_is_dropped() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await echo(reader, writer)

    master = Scripted([Send(b"one"), Deadline(10)], lambda heard: [Done()] if heard else [])
    async with gateway(greet) as source, asked(source) as link:
        await link.rest(0.3)
        assert await link.converse(master, LINE, []) is None
    assert master.heard == b"one"


@pytest.mark.parametrize("password", [None, "0", "00000001"])
async def test_registers_are_read_with_the_right_password_and_a_wrong_one_is_for_a_person(password: str | None) -> None:
    side = MeterSide(identification="MWY5VIRTUAL", answers={"1.8.0()": ["(001.5*kWh)"]}, password="00000001")
    master = Iec62056Master(BERLIN, Access(password=password), Registers(("1.8.0",)))
    found: list[Telegram | CodecError] = []
    with PtyMeter(AnsweringMeter(side)) as meter:
        async with asked(SerialSource(port=Path(meter.device)), FIRST_LINE) as link:
            error = await link.converse(master, FIRST_LINE, found)
    if password == "00000001":
        assert error is None
        assert [str(r.value) for item in found if isinstance(item, Telegram) for r in item.registers] == ["1.5"]
    elif password is not None:
        assert isinstance(error, SetupError)
        assert "refused the password" in str(error)
    assert set(meter.spoken_bauds) == {300, 9600}


class Broken(Scripted):
    """A master that breaks its promise never to raise."""

    def feed(self, data: bytes, now: float) -> Steps:
        raise ZeroDivisionError(len(data), now)


@asynccontextmanager
async def asking(
    tmp_path: Path, broker: RunningBroker, source: Source, masters: Sequence[tuple[str, Callable[[], Master]]]
) -> AsyncIterator[Concentrator]:
    """Ask meters of a link by masters of the test's own, as the adapter does."""
    async with AsyncExitStack() as stack:
        seen = await stack.enter_async_context(concentrating(broker))
        spool = await stack.enter_async_context(Spool(tmp_path / "spool", count_topics=True))
        wall = partial(datetime.now, UTC)
        sessions = await stack.enter_async_context(StatusSessions(broker.config, "a", wall))
        family = load_family("mbus-heat")
        meters = []
        for meter_id, make_master in masters:
            config = MeterConfig(id=meter_id, source=source, interval_s=0.2)
            mapper = Mapper(config, family)
            intake = Intake(
                config,
                family,
                Outlet(spool),
                sessions,
                mapper=mapper,
                plausibility=Plausibility(family, mapper.meter_ids, Memories()),
                wall=wall,
                monotonic=time.monotonic,
            )
            await intake.open()
            meters.append(Asked(intake=intake, line=LINE, make_master=make_master, watchdog_s=60.0))
        segment = Segment(where=describe(source), line=LINE, open=partial(open_link, source))
        task = asyncio.create_task(Asker(segment, meters, monotonic=time.monotonic).run())
        yield seen
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def heat_meter() -> Master:
    return MbusMaster([MbusMeter(1)], BERLIN)


async def serve_mbus(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    segment = MbusSegment([volume_slave(HEAT, 1)])
    while data := await reader.read(1024):
        writer.write(segment.feed(data, 2400) or data)


def refuses() -> Master:
    raise SetupError("the address has another form; correct it")


@pytest.mark.parametrize(
    ("make_master", "sentence"),
    [
        (lambda: Broken([Send(b"x"), Deadline(5)]), "a defect of Meterway or a driver (ZeroDivisionError)"),
        (refuses, "the address has another form; correct it; asked again after 3600 s"),
        (lambda: Scripted([Done(SetupError("wrong key"))]), "wrong key; asked again after 3600 s"),
    ],
)
async def test_what_one_meter_is_wrong_about_is_said_and_the_others_are_read(
    tmp_path: Path, nats: RunningBroker, make_master: Callable[[], Master], sentence: str
) -> None:
    async with (
        gateway(serve_mbus) as source,
        asking(tmp_path, nats, source, [(OTHER, make_master), (METER, heat_meter)]) as seen,
    ):
        await seen.until(lambda: any(each["state"] == "offline" for each in seen.of("status", OTHER)))
        status = next(each for each in seen.of("status", OTHER) if each["state"] == "offline")
        assert sentence in status["detail"]
        await seen.until(lambda: any(each["state"] == "online" for each in seen.of("status")))
        assert not any(each["state"] == "offline" for each in seen.of("status"))


async def test_a_meter_that_answers_nothing_readable_is_not_online(tmp_path: Path, nats: RunningBroker) -> None:
    def ends() -> Master:
        return Scripted([Done()])

    async with gateway(echo) as source, asking(tmp_path, nats, source, [(METER, ends)]) as seen:
        await seen.until(
            lambda: any("nothing that could be read" in each.get("detail", "") for each in seen.of("status"))
        )
        assert {each["state"] for each in seen.of("status")} == {"waiting"}


async def test_a_gateway_that_closes_what_is_idle_does_not_make_its_meter_offline(
    tmp_path: Path, nats: RunningBroker
) -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        segment = MbusSegment([volume_slave(HEAT, 1)])
        for _ in range(2):
            writer.write(segment.feed(await reader.read(1024), 2400))

    async with gateway(serve) as source, asking(tmp_path, nats, source, [(METER, heat_meter)]) as seen:
        await seen.until(lambda: connections >= 3 and any(each["state"] == "online" for each in seen.of("status")))
        assert "offline" not in {each["state"] for each in seen.of("status")}
