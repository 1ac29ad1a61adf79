"""Virtual meters on real sockets and real ptys: what the ledger says was sent is what readers got."""

import asyncio
import os
import socket
import tty
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from meterway.core.errors import SetupError
from meterway.meter.codec import CodecError, Decoder
from meterway.meter.p1 import P1Decoder
from meterway.meter.sml import SmlDecoder
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.counters import Counters
from meterway.meter.virtual.faults import FaultName
from meterway.meter.virtual.ledger import LedgerLine, read_ledger
from meterway.meter.virtual.links import READERS_LIMIT, SerialAddress, TcpAddress
from meterway.meter.virtual.meter import Kind, meter_id
from meterway.meter.virtual.serve import Offer, Run, serve

VIENNA = ZoneInfo("Europe/Vienna")
JUNE = 1_781_690_400
DEADLINE_S = 90.0


class Serving:
    """A run in the background."""

    def __init__(self, run: Run) -> None:
        self._stop = asyncio.Event()
        self._offers: asyncio.Future[list[Offer]] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(serve(run, self._offers.set_result, self._stop))

    async def offers(self) -> list[Offer]:
        await until(lambda: self._offers.done() or self._task.done())
        if not self._offers.done():
            await self._task
        return await self._offers

    async def stop(self) -> Counters:
        self._stop.set()
        return await asyncio.wait_for(self._task, DEADLINE_S)


@asynccontextmanager
async def serving(run: Run) -> AsyncIterator[Serving]:
    run_now = Serving(run)
    try:
        yield run_now
    finally:
        await run_now.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


def decoder_for(kind: str) -> Decoder:
    return P1Decoder(VIENNA) if kind == "p1" else SmlDecoder()


def telegrams_in(kind: str, data: bytes) -> list[dict[str, str]]:
    """Return the numbers of all telegrams in ``data``, read in chunks of a size that divides nothing."""
    decoder = decoder_for(kind)
    items: list[Telegram | CodecError] = []
    for start in range(0, len(data), 61):
        items += decoder.feed(data[start : start + 61], 0.0)
    items += decoder.idle(1.0)
    return [
        {str(register.obis): str(register.value) for register in item.registers}
        for item in items
        if isinstance(item, Telegram)
    ]


def lines_of(path: Path, meter: str, *states: str) -> list[LedgerLine]:
    return [line for line in read_ledger(path) if line.meter_id == meter and line.state in states]


def assert_same(lines: list[LedgerLine], received: list[dict[str, str]]) -> None:
    assert len(lines) == len(received)
    for line, telegram in zip(lines, received, strict=True):
        assert line.values.items() <= telegram.items()


async def read_all(address: TcpAddress, into: bytearray) -> None:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        while data := await reader.read(1000):
            into += data
    finally:
        writer.close()


def tcp(offer: Offer) -> TcpAddress:
    assert isinstance(offer.source, TcpAddress)
    return offer.source


async def test_tcp_readers_get_exactly_what_the_ledger_says(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    run = Run(kinds=(Kind.P1, Kind.SML), count=4, seed="tcp", zone=VIENNA, speed=200, start_s=JUNE, ledger=ledger)
    received = [bytearray() for _ in range(run.count)]
    async with serving(run) as meters:
        offers = await meters.offers()
        readers = [asyncio.create_task(read_all(tcp(o), b)) for o, b in zip(offers, received, strict=True)]
        await until(lambda: min(map(len, received)) > 30_000)
        counters = await meters.stop()
        await asyncio.gather(*readers)
    assert [offer.meter_id for offer in offers] == [meter_id("tcp", index) for index in range(4)]
    total = 0
    for offer, data in zip(offers, received, strict=True):
        sent = lines_of(ledger, offer.meter_id, "whole")
        assert_same(sent, telegrams_in(offer.kind, bytes(data)))
        assert [line.n for line in sent] == list(range(1, len(sent) + 1))
        assert decoder_for(offer.kind).feed(bytes(data), 0.0), "the last telegram is whole"
        total += len(sent)
    assert counters.telegrams_whole == total
    assert counters.bytes_sent == sum(map(len, received))
    assert counters.telegrams_cut_by_stop == 0


async def test_nothing_is_said_while_nobody_listens_and_all_readers_hear_the_same(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    run = Run(seed="alone", zone=VIENNA, speed=200, start_s=JUNE, ledger=ledger)
    first, second = bytearray(), bytearray()
    async with serving(run) as meters:
        (offer,) = await meters.offers()
        await asyncio.sleep(0.1)
        assert not list(read_ledger(ledger))
        tasks = [asyncio.create_task(read_all(tcp(offer), first))]
        await until(lambda: len(first) > 5_000)
        tasks.append(asyncio.create_task(read_all(tcp(offer), second)))
        await until(lambda: len(second) > 5_000)
        counters = await meters.stop()
        await asyncio.gather(*tasks)
    assert counters.ticks_unheard > 0
    assert counters.telegrams_whole == len(telegrams_in("p1", bytes(first)))
    assert first.endswith(second)
    assert second.startswith(b"/MWY5")
    states = [line.state for line in read_ledger(ledger)]
    assert states.count("joined") == states.count("left") == 2


async def test_faults_stand_in_the_ledger(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    rates = dict.fromkeys(FaultName, 0.08)
    run = Run(kinds=(Kind.SML,), seed="f", zone=VIENNA, speed=300, start_s=JUNE, faults=rates, ledger=ledger)
    data = bytearray()
    async with serving(run) as meters:
        (offer,) = await meters.offers()
        task = asyncio.create_task(read_all(tcp(offer), data))
        await until(lambda: len(data) > 100_000)
        counters = await meters.stop()
        await task
    assert_same(lines_of(ledger, offer.meter_id, "whole"), telegrams_in("sml", bytes(data)))
    lines = lines_of(ledger, offer.meter_id, "whole", "spoilt", "silent")
    assert [line.n for line in lines] == list(range(1, len(lines) + 1))
    assert {line.fault for line in lines} == {None, *FaultName}
    assert counters.telegrams_spoilt == sum(line.state == "spoilt" for line in lines)
    assert counters.telegrams_silent == sum(line.state == "silent" for line in lines)


async def test_a_reader_that_does_not_read_is_dropped_and_hinders_nobody() -> None:
    run = Run(count=2, seed="slow", zone=VIENNA, speed=2000, start_s=JUNE)
    data = bytearray()
    async with serving(run) as meters:
        slow, quick = await meters.offers()
        with socket.socket() as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            lazy.connect((tcp(slow).host, tcp(slow).port))
            task = asyncio.create_task(read_all(tcp(quick), data))
            await until(lambda: len(data) > 5_000_000 or meters._task.done())
            counters = await meters.stop()
        await task
    assert counters.readers_dropped == 1
    assert len(telegrams_in("p1", bytes(data[-50_000:]))) > 10


async def test_readers_beyond_the_limit_are_refused() -> None:
    async with serving(Run(seed="full", zone=VIENNA, speed=50, start_s=JUNE)) as meters:
        (offer,) = await meters.offers()
        for _ in range(READERS_LIMIT):
            assert await _connects(tcp(offer))
        assert not await _connects(tcp(offer))
        assert (await meters.stop()).readers_refused == 1


_open_writers: list[asyncio.StreamWriter] = []


async def _connects(address: TcpAddress) -> bool:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        await asyncio.wait_for(reader.readexactly(1), DEADLINE_S)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
        return False
    _open_writers.append(writer)
    return True


@pytest.fixture(autouse=True)
async def _close_writers() -> AsyncIterator[None]:
    yield
    while _open_writers:
        _open_writers.pop().close()


class PtyReader:
    """Opens the device as a serial reader does, and collects what comes."""

    def __init__(self, path: str) -> None:
        self.data = bytearray()
        self._fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._fd)
        asyncio.get_running_loop().add_reader(self._fd, self._take)

    def _take(self) -> None:
        try:
            taken = os.read(self._fd, 100)
        except OSError:  # the meter went away
            asyncio.get_running_loop().remove_reader(self._fd)
            return
        self.data += taken

    def stop_reading(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)


def device(offer: Offer) -> str:
    assert isinstance(offer.source, SerialAddress)
    return offer.source.port


@pytest.mark.parametrize("kind", Kind)
async def test_a_pty_is_a_serial_meter(tmp_path: Path, kind: Kind) -> None:
    ledger = tmp_path / "ledger.jsonl"
    aliases = tmp_path / "dev"
    run = Run(
        kinds=(kind,), seed="pty", zone=VIENNA, speed=100, start_s=JUNE, ledger=ledger, tcp_port=None,
        alias_folder=aliases,
    )  # fmt: skip
    async with serving(run) as meters:
        (offer,) = await meters.offers()
        assert device(offer) == str(aliases / meter_id("pty", 0))
        reader = PtyReader(device(offer))
        await until(lambda: len(reader.data) > 20_000)
        lines_before = len(lines_of(ledger, offer.meter_id, "whole"))
        await until(lambda: len(lines_of(ledger, offer.meter_id, "whole")) > lines_before)
        received = telegrams_in(kind, bytes(reader.data))
        reader.close()
        counters = await meters.stop()
    sent = lines_of(ledger, offer.meter_id, "whole")
    assert_same(sent[: len(received)], received)
    assert len(received) >= lines_before - 1
    assert counters.ticks_unheard > 0
    assert not list(aliases.iterdir())


async def test_the_next_reader_of_a_pty_begins_with_a_whole_telegram(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    run = Run(seed="again", zone=VIENNA, speed=100, start_s=JUNE, ledger=ledger, tcp_port=None)
    async with serving(run) as meters:
        (offer,) = await meters.offers()
        first = PtyReader(device(offer))
        await until(lambda: len(first.data) > 2_000)
        first.stop_reading()
        before = len(lines_of(ledger, offer.meter_id, "whole"))
        await until(lambda: len(lines_of(ledger, offer.meter_id, "whole")) > before + 1)
        first.close()
        await until(lambda: bool(lines_of(ledger, offer.meter_id, "left")))
        second = PtyReader(device(offer))
        await until(lambda: len(second.data) > 2_000)
        second.close()
    assert second.data.startswith(b"/MWY5")
    assert lines_of(ledger, offer.meter_id, "left")[0].unread_bytes > 0


async def test_a_pty_reader_that_is_too_slow_misses_whole_telegrams(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    run = Run(seed="lazy", zone=VIENNA, speed=500, start_s=JUNE, ledger=ledger, tcp_port=None)
    async with serving(run) as meters:
        (offer,) = await meters.offers()
        reader = PtyReader(device(offer))
        await until(lambda: len(reader.data) > 2_000)
        reader.stop_reading()
        await asyncio.sleep(0.5)
        asyncio.get_running_loop().add_reader(reader._fd, reader._take)
        size = len(reader.data)
        await until(lambda: len(reader.data) > size + 50_000)
        counters = await meters.stop()
        reader.close()
    assert counters.telegrams_missed > 0
    decoder = P1Decoder(VIENNA)
    items = decoder.feed(bytes(reader.data), 0.0)
    assert all(isinstance(item, Telegram) for item in items)


async def test_a_taken_port_is_named_in_the_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"cannot listen on 127.0.0.1:{port}: .*--tcp 0 takes free ports"):
            await serve(Run(tcp_port=port), lambda _: None, asyncio.Event())


async def test_ports_must_exist() -> None:
    with pytest.raises(SetupError, match="exceed 65535"):
        await serve(Run(tcp_port=65_530, count=100), lambda _: None, asyncio.Event())


async def test_a_ledger_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be written"):
        await serve(Run(ledger=tmp_path / "no" / "folder"), lambda _: None, asyncio.Event())


async def test_an_alias_never_replaces_a_file(tmp_path: Path) -> None:
    precious = tmp_path / meter_id("1", 0)
    precious.write_text("precious")
    with pytest.raises(SetupError, match="cannot link"):
        await serve(Run(tcp_port=None, alias_folder=tmp_path), lambda _: None, asyncio.Event())
    assert precious.read_text() == "precious"


async def test_time_is_kept_at_the_speed_asked_for(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    run = Run(seed="t", zone=VIENNA, speed=600, interval_s=60, start_s=JUNE + 1, ledger=ledger)
    data = bytearray()
    async with serving(run) as meters:
        (offer,) = await meters.offers()
        task = asyncio.create_task(read_all(tcp(offer), data))
        await until(lambda: len(data) > 4_000)
        await meters.stop()
        await task
    assert offer.interval_s == 0.1
    instants = [line.instant for line in lines_of(ledger, offer.meter_id, "whole")]
    assert {instant[17:] for instant in instants} == {"00+00:00"}
    assert len(set(instants)) == len(instants)
