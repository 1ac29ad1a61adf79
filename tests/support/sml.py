"""SML messages of our own making, byte by byte, also wrong ones; and short forms of decoding them."""

from collections.abc import Iterable

from meterway.meter.codec import CodecError
from meterway.meter.crc import crc16_kermit, crc16_x25
from meterway.meter.sml import SmlDecoder
from meterway.meter.telegram import Register, Telegram

START = bytes.fromhex("1b1b1b1b01010101")
ESCAPE = START[:4]
ABSENT = b"\x01"
SERVER = bytes.fromhex("0a014d575900") + (4711).to_bytes(4, "big")
IMPORT = bytes((1, 0, 1, 8, 0, 255))
POWER = bytes((1, 0, 16, 7, 0, 255))
POWER_OF_PHASE_1 = bytes((1, 0, 36, 7, 0, 255))
POWER_WITHOUT_SIGN = bytes((1, 0, 15, 7, 0, 255))
MAKER = bytes((1, 0, 96, 50, 1, 1))
W, WH = 27, 30


def octets(data: bytes) -> bytes:
    if len(data) < 15:
        return bytes((len(data) + 1,)) + data
    length = len(data) + 3
    return bytes((0x80 | length >> 8, 0x80 | length >> 4 & 15, length & 15)) + data


def integer(value: int, size: int, *, signed: bool = True) -> bytes:
    return bytes(((0x50 if signed else 0x60) + size + 1,)) + value.to_bytes(size, "big", signed=signed)


def sequence(*elements: bytes) -> bytes:
    return bytes((0x70 | len(elements),)) + b"".join(elements)


def entry(
    code: bytes,
    value: bytes,
    *,
    unit: int | None = None,
    scaler: int | None = None,
    status: int | None = None,
    time: bytes = ABSENT,
    signature: bytes = ABSENT,
) -> bytes:
    return sequence(
        octets(code),
        ABSENT if status is None else integer(status, 4, signed=False),
        time,
        ABSENT if unit is None else integer(unit, 1, signed=False),
        ABSENT if scaler is None else integer(scaler, 1),
        value,
        signature,
    )


def message(tag: int, content: bytes, *, transaction: bytes = b"\x2a\x01", kermit: bool = False) -> bytes:
    body = sequence(integer(tag, 2, signed=False), content)
    data = b"\x76" + octets(transaction) + b"\x62\x00\x62\x00" + body
    crc = crc16_kermit(data).to_bytes(2, "big") if kermit else crc16_x25(data).to_bytes(2, "little")
    return data + b"\x63" + crc + b"\x00"


def get_list(
    *entries: bytes,
    server: bytes = SERVER,
    time: bytes = ABSENT,
    transaction: bytes = b"\x2a\x01",
    kermit: bool = False,
) -> bytes:
    listed = bytes((0xF0 | len(entries) >> 4, len(entries) & 15)) + b"".join(entries)
    content = sequence(ABSENT, octets(server), ABSENT, time, listed, ABSENT, ABSENT)
    return message(0x0701, content, transaction=transaction, kermit=kermit)


def frame(*messages: bytes, padding: int | None = None, kermit: bool = False) -> bytes:
    content = b"".join(messages).replace(ESCAPE, ESCAPE + ESCAPE)
    zeros = -len(content) % 4 if padding is None else padding
    data = START + content + bytes(zeros) + ESCAPE + bytes((0x1A, zeros))
    return data + (crc16_kermit(data).to_bytes(2, "big") if kermit else crc16_x25(data).to_bytes(2, "little"))


ENERGY = entry(IMPORT, integer(12345678, 8), unit=WH, scaler=-1)
LIST = get_list(ENERGY)
FRAME = frame(message(0x0101, sequence(ABSENT, ABSENT, octets(b"\x07"), octets(SERVER), ABSENT, ABSENT)), LIST)
OTHER = frame(get_list(entry(IMPORT, integer(12345680, 8), unit=WH, scaler=-1)))


def decode(data: bytes, *, quirks: Iterable[str] = ()) -> list[Telegram | CodecError]:
    decoder = SmlDecoder(quirks=tuple(quirks))
    return decoder.feed(data, 0.0) + decoder.idle(1.0)


def one(data: bytes, *, quirks: Iterable[str] = ()) -> Telegram:
    [telegram] = decode(data, quirks=quirks)
    assert isinstance(telegram, Telegram), telegram
    return telegram


def register(data: bytes, *, quirks: Iterable[str] = ()) -> Register:
    """Return what a telegram with one entry, ``data``, says."""
    [found] = one(frame(get_list(data)), quirks=quirks).registers
    return found


def kinds(items: Iterable[Telegram | CodecError]) -> list[str]:
    return [item.reason if isinstance(item, CodecError) else str(item.registers[0].value) for item in items]
