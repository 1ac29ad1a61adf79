"""The grammar of SML: messages, and the telegram's worth of data in an SML_GetList.Res.

    file      ::= 1*message *00
    message   ::= 76 transaction-id group-no abort-on-error body crc16 00
    body      ::= 72 tag content                  ; tag 0701: SML_GetList.Res; all others are passed over
    get-list  ::= 77 client-id server-id list-name sensor-time entries signature gateway-time
    entries   ::= 7n n*entry
    entry     ::= 77 obis status time unit scaler value signature
    time      ::= 01 / 72 62 01 seconds-index / 72 62 02 unix-time / 72 62 03 local-time / seconds-index

Source: SML specification 1.04, 6 (also BSI TR-03109-1, LMN interface, part b). The last form of time, without a
choice, is what Holley meters send.
"""

import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Context, Decimal
from typing import Final, NamedTuple

from msgspec.structs import replace

from meterway.core.obis import Obis
from meterway.core.units import DLMS_UNITS
from meterway.meter.crc import crc16_kermit, crc16_x25
from meterway.meter.telegram import Register

QUIRKS: Final = frozenset({"unsigned-power", "power-sign-in-status"})
"""Departures from the standard that a family can name.

``unsigned-power``: a power of 1 to 3 bytes is unsigned, though it is marked as signed. Old DZG DVS74 meters write
328.05 W so (``53 8025`` at a scaler of -2); true negative values have 4 bytes there. Meters that are known for it
are recognised without being told (see ``_has_unsigned_power``).

``power-sign-in-status``: the power of 15.7.0 has no sign; it is made negative when bit 5 in the status of 1.8.0 says
that energy is exported (EMH ED300L; FNN Lastenheft EDL, status word).
"""

Element = int | bytes | list["Element"] | None
"""A number or boolean, an octet string, a list; None is the end of a message."""

_END_OF_MESSAGE: Final = 0x00
_LAST_SHORT_OCTETS: Final = 0x0F
_BOOLEAN: Final = 0x42
_SIGNED: Final = range(0x52, 0x5A)
_UNSIGNED: Final = range(0x62, 0x6A)
"""TL fields of one byte; in the low half is the length, its own byte included, so that integers have 1 to 8."""

_OCTETS: Final = 0x00
_LIST: Final = 0x70
"""Kinds of element that may be long, in bits 4 to 6; bit 7 says that another byte follows, with 4 bits of length."""

_MESSAGE: Final = 0x76
_BODY: Final = 0x72
_GET_LIST: Final = 0x77
_ENTRY: Final = 0x77
_GET_LIST_RESPONSE: Final = 0x0701

_LIMIT_DEPTH: Final = 8
"""Lists within lists; what meters push has 5."""
_LIMIT_HEAD_BYTES: Final = 4

_EXACT: Final = Context(prec=40)
"""More digits than 8 bytes hold, so that moving the point never rounds."""

_NO_UNIT: Final = (0, 255)
_SHORT_SIGNED: Final = {0x52: 1 << 8, 0x53: 1 << 16, 0x54: 1 << 24}
"""Heads of signed integers of 1 to 3 bytes, and what an unsigned one of that size is more than a negative one."""

_UNSIGNED_POWER_NUMBERS: Final = (range(42_000_000, 49_000_000), range(55_000_000, 59_000_000))
_DZG_STATUS_MASK: Final = 0xFFE0_09FF
_DZG_IMPORTS: Final = 0x0000_0104

_OBIS_BYTES: Final = 6
_TEXTS: Final = {(199, 130, 3), (96, 50, 1), (0, 0, 0), (96, 1, 255), (0, 2, 0), (96, 90, 2)}
"""Groups C, D, E of the octet strings that are texts: manufacturer (old and new code), the number on the meter's
plate (EasyMeter, EMH), firmware, its checksum."""

_UNIX_TIME_END_S: Final = 1 << 32
_DAY_MIN: Final = 24 * 60

_EDL_EXPORTS: Final = 1 << 5
_ABSOLUTE_POWER: Final = Obis(1, 0, 15, 7, 0)

_IMPORT_TOTAL: Final = Obis(1, 0, 1, 8, 0)
_SIGNED_POWERS: Final = (Obis(1, 0, 16, 7, 0), Obis(1, 0, 36, 7, 0))
"""The power of all phases, and of the first, which a single-phase meter sends instead."""

RESPONSE_HEAD: Final = re.compile(
    rb"\x76(?:" + b"|".join(rb"\x%02x.{%d}" % (size, size - 1) for size in range(1, 16)) + rb")"
    rb"\x62.\x62.\x72(?:\x63|\x65\x00\x00)\x07\x01\x77",
    re.DOTALL,
)
"""How a message begins whose body is an SML_GetList.Res."""


class GrammarError(Exception):
    """The bytes do not follow the grammar; says in which way."""

    reason = "bad-syntax"


class _DepthError(GrammarError):
    reason = "too-deep"


class GetList(NamedTuple):
    """An SML_GetList.Res."""

    server_id: str
    time: datetime | None
    registers: tuple[Register, ...]


class Message(NamedTuple):
    """A message, and where it lies."""

    response: GetList | None
    start: int
    crc_at: int
    """The checksum covers what is before this offset."""
    crc: int
    """The checksum's bytes as one number, the first one high."""
    end: int


def x25_holds(data: bytes, message: Message) -> bool:
    """Return whether the message's own checksum, low byte first, is right."""
    return crc16_x25(data[message.start : message.crc_at]).to_bytes(2, "little") == message.crc.to_bytes(2, "big")


def checksum_holds(data: bytes, message: Message) -> bool:
    """Return whether the message's own checksum is right, as X.25 or as Kermit with the high byte first."""
    return x25_holds(data, message) or crc16_kermit(data[message.start : message.crc_at]) == message.crc


def read_messages(data: bytes, quirks: Collection[str]) -> Iterator[Message]:
    """Yield the messages of an SML file, which ends with any number of 00.

    Raises:
        GrammarError: what follows is no message, or ends within one.
    """
    at = 0
    while at < len(data):
        if data[at] == 0:
            at += 1
            continue
        message = read_message(data, at, quirks)
        at = message.end
        yield message


def read_message(data: bytes, start: int, quirks: Collection[str]) -> Message:
    """Return the message that begins at ``start``; ``quirks`` are names of ``QUIRKS``.

    Raises:
        GrammarError: it is none, or not all of it is there.
    """
    try:
        if data[start] != _MESSAGE:
            raise GrammarError(f"no message begins at its byte {start}")
        _, at = _elements(data, start + 1, 3)
        if data[at] != _BODY:
            raise GrammarError(f"there is no message body at its byte {at}")
        (tag,), at = _elements(data, at + 1, 1)
        response = None
        if tag == _GET_LIST_RESPONSE:
            response, at = _get_list(data, at, quirks)
        else:
            _, at = _elements(data, at, 1, _LIMIT_DEPTH)
        (crc, end), after = _elements(data, at, 2)
    except IndexError:
        raise GrammarError("its last message has no end") from None
    if not isinstance(crc, int) or not 0 <= crc <= 0xFFFF or end is not None:  # noqa: PLR2004
        raise GrammarError(f"a message does not end at its byte {at}")
    return Message(response, start, at, crc, after)


def _get_list(data: bytes, at: int, quirks: Collection[str]) -> tuple[GetList, int]:
    if data[at] != _GET_LIST:
        raise GrammarError(f"an SML_GetList.Res is not a list of 7 at its byte {at}")
    (_, server_id, _, sensor_time), at = _elements(data, at + 1, 4, _LIMIT_DEPTH)
    if not isinstance(server_id, bytes):
        raise GrammarError("the server id is no octet string")
    registers, at = _entries(data, at, server_id, quirks)
    _, at = _elements(data, at, 2, _LIMIT_DEPTH)
    return GetList(server_id.hex().upper(), _time(sensor_time), tuple(registers)), at


def _entries(data: bytes, at: int, server_id: bytes, quirks: Collection[str]) -> tuple[list[Register], int]:
    kind, count, at = _head(data, at)
    if kind != _LIST:
        raise GrammarError(f"there is no list of entries before its byte {at}")
    registers: list[Register] = []
    starts: list[int] = []
    for _ in range(count):
        if data[at] != _ENTRY:
            raise GrammarError(f"there is no list entry at its byte {at}")
        (name, _, time, unit, scaler, value, _), end = _elements(data, at + 1, 7, _LIMIT_DEPTH)
        if not isinstance(name, bytes) or len(name) != _OBIS_BYTES:
            raise GrammarError(f"the list entry at its byte {at} has no OBIS code")
        obis = Obis.from_bytes(name)
        content: Decimal | str
        if isinstance(value, int):
            content = _scaled(value, scaler)
        else:
            content = _text(obis, value if isinstance(value, bytes) else data[slice(*_value_span(data, at))])
        registers.append(Register(obis, content, _unit(unit), _time(time) if time else None))
        starts.append(at)
        at = end
    if quirks or server_id[2:5] == b"DZG":
        _correct(data, starts, registers, server_id, quirks)
    return registers, at


def _value_span(data: bytes, entry_at: int) -> tuple[int, int]:
    """Return where the value of the entry at ``entry_at`` begins and ends."""
    _, start = _elements(data, entry_at + 1, 5, _LIMIT_DEPTH)
    return start, _elements(data, start, 1, _LIMIT_DEPTH)[1]


def _correct(
    data: bytes, starts: list[int], registers: list[Register], server_id: bytes, quirks: Collection[str]
) -> None:
    """Apply the quirks to ``registers``, whose entries begin at ``starts``."""
    places = {register.obis: index for index, register in enumerate(registers)}
    status: Element = None
    if _IMPORT_TOTAL in places:
        _, status = _elements(data, starts[places[_IMPORT_TOTAL]] + 1, 2, _LIMIT_DEPTH)[0]
    if "unsigned-power" in quirks or _has_unsigned_power(server_id, status, registers):
        for index in (places[obis] for obis in _SIGNED_POWERS if obis in places):
            registers[index] = _unsigned(registers[index], data, starts[index])
    exports = isinstance(status, int) and status & _EDL_EXPORTS
    if exports and "power-sign-in-status" in quirks and _ABSOLUTE_POWER in places:
        index = places[_ABSOLUTE_POWER]
        registers[index] = _negative(registers[index])


def _has_unsigned_power(server_id: bytes, status: Element, registers: list[Register]) -> bool:
    """Return whether the meter is one of DZG's that mark short unsigned powers as signed (see ``QUIRKS``).

    By its number: DZG names 42000000 to 48999999 and 55000000 to 58999999 as those of DVS74 meters, and 60000000 as
    the first that is corrected. Else by contradiction, where there is only one power, as in single-phase DWS74
    meters: the status of 1.8.0 says that energy is imported (bit 8: there is load; bit 11: it is exported), so that
    the power cannot be negative. DZG, DVS74 manual, "status word".
    """
    if server_id[2:5] != b"DZG":
        return False
    number = int.from_bytes(server_id[6:], "big")
    if any(number in numbers for numbers in _UNSIGNED_POWER_NUMBERS):
        return True
    powers = sum(register.unit == "W" for register in registers)
    return powers == 1 and isinstance(status, int) and status & _DZG_STATUS_MASK == _DZG_IMPORTS


def _unsigned(register: Register, data: bytes, entry_at: int) -> Register:
    excess = _SHORT_SIGNED.get(data[_value_span(data, entry_at)[0]], 0)
    if not isinstance(register.value, Decimal) or register.value >= 0 or not excess:
        return register
    scaler = _elements(data, entry_at + 1, 5, _LIMIT_DEPTH)[0][-1]
    return replace(register, value=_EXACT.add(register.value, _scaled(excess, scaler)))


def _negative(register: Register) -> Register:
    return replace(register, value=-register.value) if isinstance(register.value, Decimal) else register


def _elements(data: bytes, at: int, count: int, depth: int = 0) -> tuple[list[Element], int]:
    """Return ``count`` elements, with at most ``depth`` levels of lists, and where they end.

    Raises:
        GrammarError: they are none, or too deep, or too long.
        IndexError: they begin behind the end of ``data``.
    """
    found: list[Element] = []
    append = found.append
    for _ in range(count):
        first = data[at]
        if _END_OF_MESSAGE < first <= _LAST_SHORT_OCTETS:
            end = at + first
            append(data[at + 1 : end])
            at = end
        elif first in _UNSIGNED:
            end = at + (first & 0x0F)
            append(int.from_bytes(data[at + 1 : end], "big"))
            at = end
        elif first in _SIGNED:
            end = at + (first & 0x0F)
            append(int.from_bytes(data[at + 1 : end], "big", signed=True))
            at = end
        elif first == _END_OF_MESSAGE:
            append(None)
            at += 1
        elif first == _BOOLEAN:
            append(int(data[at + 1] != 0))
            at += 2
        else:
            element, at = _long_element(data, at, depth)
            append(element)
    if at > len(data):
        raise GrammarError("its last element is cut")
    return found, at


def _long_element(data: bytes, at: int, depth: int) -> tuple[Element, int]:
    """Return the octet string or list at ``at``, and where it ends."""
    kind, length, start = _head(data, at)
    if kind == _LIST and depth == 0:
        raise _DepthError(f"lists are nested too deep at its byte {at}")
    if kind == _LIST:
        return _elements(data, start, length, depth - 1)
    if kind == _OCTETS and length >= start - at:
        return data[start : at + length], at + length
    raise GrammarError(f"no element begins at its byte {at}")


def _head(data: bytes, at: int) -> tuple[int, int, int]:
    """Return kind and length in the TL field at ``at``, and where it ends.

    The length of an octet string includes the TL field; that of a list is its number of elements.
    """
    first = data[at]
    length = first & 0x0F
    end = at + 1
    more = first
    while more & 0x80:
        more = data[end]
        length = length << 4 | more & 0x0F
        end += 1
        if more & 0x70 or end - at > _LIMIT_HEAD_BYTES:
            raise GrammarError(f"no element begins at its byte {at}")
    if first & 0x70 == _LIST and length > len(data) - end:
        raise GrammarError(f"the list at its byte {at} has more elements than there are bytes")
    return first & 0x70, length, end


def _scaled(value: int, scaler: Element) -> Decimal:
    """Return value x 10^scaler, exactly, with the digits that are in ``value`` (more only where scaler is above 0)."""
    if not scaler:
        return Decimal(value)
    if not isinstance(scaler, int) or not -128 <= scaler <= 127:  # noqa: PLR2004
        raise GrammarError("a scaler is no Integer8")
    return Decimal(value).scaleb(scaler, _EXACT) if scaler < 0 else Decimal(value * 10**scaler)


def _unit(code: Element) -> str | None:
    if not isinstance(code, int) or code in _NO_UNIT:
        return None
    return DLMS_UNITS.get(code) or f"dlms-{code}"


def _text(obis: Obis, octets: bytes) -> str:
    if obis[2:5] in _TEXTS and octets.isascii() and (text := octets.decode()).isprintable():
        return text
    return octets.hex().upper()


def _time(time: Element) -> datetime | None:
    """Return the instant in an SML_Time; None where it is no clock, or nonsense."""
    match time:
        case [2, int(unix_s)] if 0 <= unix_s < _UNIX_TIME_END_S:
            return datetime.fromtimestamp(unix_s, UTC)
        case [3, [int(unix_s), int(offset_min), int(summer_min)]] if 0 <= unix_s < _UNIX_TIME_END_S:
            east_min = offset_min + summer_min
            if abs(east_min) < _DAY_MIN:
                return datetime.fromtimestamp(unix_s, timezone(timedelta(minutes=east_min)))
    return None
