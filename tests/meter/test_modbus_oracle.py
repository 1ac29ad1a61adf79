"""The Modbus master against pymodbus's own server: over TCP in both framings, and over a real pty."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from pymodbus.framer import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from meterway.core.errors import SetupError, TransientError
from meterway.meter.family import load_family
from meterway.meter.modbus_map import Framing, ModbusMap
from meterway.meter.modbus_master import ModbusMaster
from support.modbus import Heard, drive, pty_pair

LIMIT_S = 60.0


def floats(base: int, *values: float) -> SimData:
    return SimData(base, values=list(values), datatype=DataType.FLOAT32)


def sdm120(unit_id: int, volts: float) -> SimDevice:
    """A meter whose registers are laid out and encoded by pymodbus."""
    inputs = [
        *(floats(at, value) for at, value in ((0, volts), (6, 4.5), (12, -1035.75), (24, 12.5), (30, 0.968))),
        *(floats(at, value) for at, value in ((70, 50.02), (72, 12345.6), (74, 7.25), (76, 0.5), (78, float("nan")))),
        floats(342, 12352.85),
    ]
    holding = [
        SimData(0xFC00, values=20070145, datatype=DataType.UINT32),
        SimData(0xFC02, values=32, datatype=DataType.UINT16),
    ]
    none = [SimData(0, values=False, datatype=DataType.BITS)]
    return SimDevice(unit_id, simdata=(none, none, holding, inputs))


SDM120_VALUES = {
    "32.7.0": "231.4",
    "31.7.0": "4.5",
    "16.7.0": "-1035.75",
    "131.7.0": "12.5",
    "13.7.0": "0.968",
    "14.7.0": "50.02",
    "1.8.0": "12345.6",
    "2.8.0": "7.25",
    "3.8.0": "0.5",
    "15.8.0": "12352.85",
    "96.1.0": "20070145",
}


@asynccontextmanager
async def tcp_server(*devices: SimDevice, framing: Framing) -> AsyncIterator[socket.socket]:
    """Yield a connection to pymodbus's server."""
    framer = FramerType.SOCKET if framing == "tcp" else FramerType.RTU
    server = ModbusTcpServer(list(devices), framer=framer, address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    try:
        assert server.transport is not None
        [listening] = server.transport.sockets  # type: ignore[attr-defined]
        connection = await asyncio.to_thread(socket.create_connection, listening.getsockname())
        with connection:
            yield connection
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]


async def visit(connection: socket.socket, master: ModbusMaster) -> Heard:
    async with asyncio.timeout(LIMIT_S):
        return await asyncio.to_thread(drive, master, connection.fileno())


def map_of(name: str) -> ModbusMap:
    found = load_family(name).modbus
    assert found is not None
    return found


@pytest.mark.parametrize("framing", ["tcp", "rtu"])
async def test_meter_of_pymodbus_is_read_over_tcp(framing: Framing) -> None:
    async with tcp_server(sdm120(1, 231.4), sdm120(2, 229.5), framing=framing) as connection:
        heard = await visit(connection, ModbusMaster(map_of("modbus-eastron-sdm120"), framing=framing))
        assert (heard.error, heard.reasons) == (None, [])
        assert heard.values == SDM120_VALUES
        assert heard.telegrams[0].meter == "32 20070145"
        second = await visit(connection, ModbusMaster(map_of("modbus-eastron-sdm120"), framing=framing, unit_id=2))
        assert second.values == {**SDM120_VALUES, "32.7.0": "229.5"}


async def test_meter_of_pymodbus_is_read_over_a_pty() -> None:
    with pty_pair() as (near, _, path):
        server = ModbusSerialServer([sdm120(1, 231.4)], framer=FramerType.RTU, port=path, baudrate=9600)
        await server.serve_forever(background=True)
        try:
            async with asyncio.timeout(LIMIT_S):
                heard = await asyncio.to_thread(drive, ModbusMaster(map_of("modbus-eastron-sdm120")), near)
        finally:
            await server.shutdown()  # type: ignore[no-untyped-call]
    assert (heard.error, heard.reasons) == (None, [])
    assert heard.values == SDM120_VALUES


async def test_word_swapped_integers_of_pymodbus_are_read() -> None:
    """Of each int32, the server is told the two registers, the lower one first."""

    def swapped(at: int, value: int) -> SimData:
        content = value & 0xFFFF_FFFF
        return SimData(at, values=[content & 0xFFFF, content >> 16], datatype=DataType.REGISTERS)

    contents: dict[int, int] = {0: 2314, 2: -1, 0x28: -123456, 0x34: 7_654_321, 0x4E: 0x7FFFFFFF}
    device = SimDevice(1, simdata=[swapped(at, value) for at, value in contents.items()])
    table = map_of("modbus-carlo-gavazzi-em340")
    async with tcp_server(device, framing="tcp") as connection:
        heard = await visit(connection, ModbusMaster(table, framing="tcp"))
    assert heard.values == {"32.7.0": "231.4", "52.7.0": "-0.1", "16.7.0": "-12345.6", "1.8.0": "765432.1"}
    assert heard.error is None
    assert "Modbus unit 1 has no input register 4 (1-0:72.7.0): illegal data address" in heard.messages
    assert set(heard.reasons) == {"refused"}


def sunspec(base: int) -> SimDevice:
    """An inverter with a meter model of its own behind it, as SunSpec lays it out; 203 with -1 and -2 as scales."""

    def text(at: int, words: int, what: str) -> SimData:
        return SimData(at, values=what.ljust(2 * words, "\0"), datatype=DataType.STRING)

    first, inverter, second = base + 2, base + 70, base + 122
    meter = second + 68

    def number(at: int, value: int, kind: DataType = DataType.INT16) -> SimData:
        return SimData(meter + at, values=value, datatype=kind)

    def common(at: int, maker: str, serial: str) -> list[SimData]:
        header = SimData(at, values=[1, 66], datatype=DataType.REGISTERS)
        rest = [text(at + 2, 16, maker), text(at + 18, 32, "Type 3"), text(at + 50, 16, serial)]
        return [header, *rest, SimData(at + 66, values=[1, 0x8000], datatype=DataType.REGISTERS)]

    known: dict[int, int] = {3: 450, 4: 225, 5: -32768, 6: -2, 8: 2314, 9: 2298, 10: 2306, 15: -1, 16: 5001, 17: -2}
    known |= {18: -718, 19: 100, 20: 200, 21: -32768, 22: 1, 28: -32768, 32: 0, 33: 968, 37: -1, 54: 0}
    values = [number(at, known.get(at, 0)) for at in [*range(2, 38), *range(54, 107)]]
    energies = (0, 0, 0, 0, 12_345_678, 4_294_967_295, 0, 5)
    values += [number(38 + 2 * at, value, DataType.UINT32) for at, value in enumerate(energies)]
    return SimDevice(
        1,
        simdata=[
            SimData(base, values="SunS", datatype=DataType.STRING),
            *common(first, "Inverter", "I-1"),
            SimData(inverter, values=[103, 50, *([0xFFFF] * 50)], datatype=DataType.REGISTERS),
            *common(second, "Meterway", "M-2"),
            SimData(meter, values=[203, 105], datatype=DataType.REGISTERS),
            *values,
            SimData(meter + 107, values=[0xFFFF, 0], datatype=DataType.REGISTERS),
        ],
    )


@pytest.mark.parametrize("base", [40000, 50000, 0])
async def test_sunspec_meter_is_found_behind_an_inverter(base: int) -> None:
    async with tcp_server(sunspec(base), framing="tcp") as connection:
        heard = await visit(connection, ModbusMaster(map_of("modbus-sunspec")))
    assert (heard.error, heard.reasons) == (None, [])
    assert heard.telegrams[0].meter == "Meterway Type 3 M-2"
    assert heard.values == {
        "31.7.0": "4.50",
        "51.7.0": "2.25",
        "32.7.0": "231.4",
        "52.7.0": "229.8",
        "72.7.0": "230.6",
        "14.7.0": "50.01",
        "16.7.0": "-7180",
        "36.7.0": "1000",
        "56.7.0": "2000",
        "13.7.0": "0.968",
        "1.8.0": "12345678",
        "61.8.0": "5",
        "96.1.0": "M-2",
    }


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (lambda: sdm120(1, 230.0), "no SunSpec map at 40000, 50000, 0"),
        (
            lambda: SimDevice(
                1, simdata=[SimData(40000, values=[0x5375, 0x6E53, 103, 0, 0xFFFF, 0], datatype=DataType.REGISTERS)]
            ),
            "it has the models 103, a meter has one of 201, 202, 203, 204, 211, 212, 213, 214",
        ),
    ],
)
async def test_device_without_a_sunspec_meter_says_so(device: Callable[[], SimDevice], message: str) -> None:
    async with tcp_server(device(), framing="tcp") as connection:
        heard = await visit(connection, ModbusMaster(map_of("modbus-sunspec")))
    assert isinstance(heard.error, SetupError)
    assert message in str(heard.error)


async def test_unit_that_pymodbus_does_not_have_is_told_in_words() -> None:
    async with tcp_server(sdm120(1, 230.0), framing="tcp") as connection:
        heard = await visit(connection, ModbusMaster(map_of("modbus-eastron-sdm120"), framing="tcp", unit_id=9))
    assert isinstance(heard.error, TransientError)
    assert str(heard.error) == "Modbus unit 9, asked for input register 0, says its own failure"
