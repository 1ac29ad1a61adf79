import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from meterway.adapter.config import TcpListenerSource, TcpSource
from meterway.adapter.links import open_link
from meterway.adapter.links.stream import CHUNK_LIMIT_BYTES
from meterway.core.errors import SetupError, TransientError
from meterway.meter.family import Line
from support.brokers import free_port
from support.links import IN_TIME_S, read_exactly, tcp_server

LINE = Line(baud=2400, parity="E")


@asynccontextmanager
async def echoing() -> AsyncIterator[TcpSource]:
    """Run a gateway whose line is a loop back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)

    async with tcp_server(echo) as port:
        yield TcpSource(host="127.0.0.1", port=port)


async def test_a_gateway_hands_on_every_byte_value_both_ways() -> None:
    sent = bytes(range(256)) * 16
    async with echoing() as source, open_link(source, LINE) as link:
        await link.write(sent)
        assert await read_exactly(link, len(sent)) == sent


async def test_a_gateway_that_closes_is_a_transient_error() -> None:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"/half")

    async with tcp_server(speak) as port, open_link(TcpSource(host="127.0.0.1", port=port), LINE) as link:
        assert await read_exactly(link, 5) == b"/half"
        with pytest.raises(TransientError, match=f"tcp 127.0.0.1:{port} was closed by the other side"):
            await link.read()


async def test_nobody_listening_is_a_transient_error_that_names_the_address() -> None:
    port = free_port()
    with pytest.raises(TransientError, match=f"tcp 127.0.0.1:{port} cannot be opened"):
        async with open_link(TcpSource(host="127.0.0.1", port=port), LINE):
            pass


async def test_the_line_behind_a_gateway_is_the_familys_and_no_other() -> None:
    async with echoing() as source, open_link(source, LINE) as link:
        await link.set_line(Line(baud=2400, parity="E"))
        with pytest.raises(
            SetupError, match=r'the meter wants .*9600.* cannot be set over plain TCP; use `type = "rfc2217"`'
        ):
            await link.set_line(Line(baud=9600, parity="E"))


@pytest.fixture
def listening() -> TcpListenerSource:
    return TcpListenerSource(port=free_port())


@pytest.mark.parametrize("kind", ["dials", "listens"])
async def test_a_cancellation_while_a_link_closes_is_never_lost(kind: str, listening: TcpListenerSource) -> None:
    """At whichever step of the closing it comes: also when all is closed and this task has not been told yet."""

    async def hold(source: TcpSource | TcpListenerSource, leave: asyncio.Event) -> None:
        async with open_link(source, LINE):
            opened.set()
            await leave.wait()
        await asyncio.Event().wait()

    async with echoing() as gateway:
        for step in range(12):
            opened, leave = asyncio.Event(), asyncio.Event()
            task = asyncio.create_task(hold(gateway if kind == "dials" else listening, leave))
            await opened.wait()
            leave.set()
            for _ in range(step):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=IN_TIME_S)
            was_lost = not task.done()
            task.cancel()
            assert not was_lost, f"cancelled {step} steps after the link was left"


async def dial(source: TcpListenerSource) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(source.host, source.port)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


async def test_a_meter_dials_in_and_is_asked(listening: TcpListenerSource) -> None:
    async with open_link(listening, LINE) as link:
        reader, writer = await dial(listening)
        writer.write(b"a telegram")
        assert await read_exactly(link, 10) == b"a telegram"
        await link.write(b"a request")
        async with asyncio.timeout(IN_TIME_S):
            assert await reader.readexactly(9) == b"a request"
        await hang_up(writer)


async def test_a_meter_that_hangs_up_may_dial_in_again(listening: TcpListenerSource) -> None:
    async with open_link(listening, LINE) as link:
        for telegram in (b"first", b"again"):
            _, writer = await dial(listening)
            writer.write(telegram)
            assert await read_exactly(link, 5) == telegram
            await hang_up(writer)


async def test_a_new_connection_ends_the_one_before_it(listening: TcpListenerSource) -> None:
    async with open_link(listening, LINE) as link:
        old_reader, old_writer = await dial(listening)
        old_writer.write(b"old")
        assert await read_exactly(link, 3) == b"old"
        _, new_writer = await dial(listening)
        async with asyncio.timeout(IN_TIME_S):
            assert await old_reader.read() == b""
        new_writer.write(b"new")
        assert await read_exactly(link, 3) == b"new"
        old_writer.close()
        await hang_up(new_writer)


async def test_nobody_dialled_in_so_nobody_can_be_asked(
    listening: TcpListenerSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meterway.adapter.links.listener.CONNECT_TIMEOUT_S", 0.1)
    async with open_link(listening, LINE) as link:
        with pytest.raises(TransientError, match="nobody has dialled in, so nobody can be asked"):
            await link.write(b"x")


async def test_a_port_that_is_in_use_is_named(listening: TcpListenerSource) -> None:
    async with open_link(listening, LINE):
        with pytest.raises(TransientError, match=f"tcp listener 127.0.0.1:{listening.port} cannot be opened: .*in use"):
            async with open_link(listening, LINE):
                pass


async def test_many_who_dial_in_at_once_cost_one_connection(listening: TcpListenerSource) -> None:
    async with open_link(listening, LINE) as link:
        dialled = [await dial(listening) for _ in range(50)]
        dialled[-1][1].write(b"the last")
        assert await read_exactly(link, 8) == b"the last"
        for _, writer in dialled:
            writer.transport.abort()


async def test_a_read_gives_others_their_turn_though_bytes_wait_already() -> None:
    """Else a meter that never pauses keeps all others from being read."""

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(4 * CHUNK_LIMIT_BYTES))
        await writer.drain()

    async with tcp_server(flood) as port, open_link(TcpSource(host="127.0.0.1", port=port), Line()) as link:
        await link.read()
        await asyncio.sleep(0.2)  # the rest has come; where it has not, reading waits for it anyway
        others: list[str] = []
        asyncio.get_running_loop().call_soon(others.append, "had a turn")
        await link.read()
        assert others
