"""Data records of M-Bus, wired and wireless: DIF, DIFE, VIF, VIFE and value become registers.

    records ::= *( record / filler ) [ rest ]
    record  ::= DIF *10DIFE VIF [length text] *10VIFE data
    filler  ::= 2F
    rest    ::= ( 0F / 1F ) *byte                        ; the maker's own; 1F: more telegrams follow

The header of a record (all before the data) says everything about it; what it says is worked out once and kept, so a
record costs a look-up and the reading of its value.

Source: EN 13757-3:2018, 6.3 (DIF), 6.4 (VIF), annex A (values).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, tzinfo
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

from meterway.core.errors import BadDataError
from meterway.core.obis import Obis
from meterway.meter import mbus_values as values
from meterway.meter.mbus_codes import (
    GROUP_A,
    OTHER_MEDIUM,
    TABLE_FB,
    TABLE_FD,
    TABLE_OTHER,
    TABLE_PRIMARY,
    Place,
    Variant,
    private_code,
    standard_code,
)
from meterway.meter.mbus_units import FB, FD, ORTHOGONAL, ORTHOGONAL_FC, PRIMARY, Coding, Effect, Quantity, is_secret
from meterway.meter.telegram import Register


class RecordError(BadDataError):
    """The records of a telegram break off or break the grammar (reason ``bad-syntax``)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="bad-syntax")


class Records(NamedTuple):
    """What the records of one telegram say."""

    registers: tuple[Register, ...]
    time: datetime | None
    """Aware; the meter's clock, if it sends it."""
    more: bool
    """Whether the meter has further telegrams to the same readout."""


_HEADER = re.compile(rb"[\x80-\xff]{0,10}[\x00-\x7f][\x80-\xff]{0,10}[\x00-\x7f]", re.DOTALL)
_CHAIN = re.compile(rb"[\x80-\xff]{0,10}[\x00-\x7f]", re.DOTALL)
_EXTENSION: Final = 0x80
_PLAIN_TEXT: Final = (0x7C, 0xFC)
_FILLER: Final = 0x2F
_REST: Final = 0x0F
_REST_AND_MORE: Final = 0x1F
_SPECIAL: Final = 0x0F
"""The data field of a DIF that is no record's."""
_VARIABLE: Final = 0x0D
_WIDTHS: Final = (0, 1, 2, 3, 4, 4, 6, 8, 0, 1, 2, 3, 4, 0, 6, 0)
_REAL: Final = 5
_FIRST_BCD: Final = 9
_CLOCK: Final = Obis(0, 0, 1, 0, 0)
_CACHED: Final = 8192
"""Headers kept; a meter has some dozens."""

_Reader = Callable[[bytes, int], Decimal | str]


class _Kind(Enum):
    VALUE = 1
    DATE = 2
    PROBLEM = 3
    """The record has no value, and a VIFE says why."""
    SILENT = 4
    """No register comes of it: it has no data, or is a secret."""


class _Plan(NamedTuple):
    """What the header of a record says."""

    obis: Obis
    name: str
    unit: str | None
    exponent: int
    width_bytes: int
    """-1: the data says it (LVAR)."""
    read: _Reader
    kind: _Kind
    problem: str
    """Why the record has no value, as the meter says; else empty."""


def read_records(body: bytes, *, device_type: int, zone: tzinfo, big_endian: bool = False) -> Records:
    """Return the registers of the records in ``body``, which is what follows the data header.

    ``device_type`` is the medium (EN 13757-7), ``zone`` that of the meter's clock. Fillers, records without data and
    access codes give no register; the maker's own data at the end is one, as hex digits.

    Raises:
        RecordError: the records break off, or a header is too long.
    """
    a = GROUP_A.get(device_type, OTHER_MEDIUM)
    registers: list[Register] = []
    position, end = 0, len(body)
    while position < end:
        first = body[position]
        if first & 0x0F == _SPECIAL:
            if first == _FILLER:
                position += 1
                continue
            registers += _rest(a, body, position)
            return Records(tuple(registers), _clock(registers), first == _REST_AND_MORE)
        plan, start = _header(a, body, position)
        obis, name, unit, exponent, width, read, kind, _ = plan
        turned = big_endian and width >= 0
        if width < 0:
            start, width, read = _variable(body, start)
        position = start + width
        if position > end:
            raise RecordError(f"the record {name!r} breaks off: {position - end} of {width} bytes are missing")
        data = body[start:position][::-1] if turned else body[start:position]
        if kind is _Kind.VALUE:
            registers.append(Register(obis, read(data, exponent), unit, None, name))
        elif kind is not _Kind.SILENT:
            registers.append(_without_number(plan, data, zone))
    return Records(tuple(registers), _clock(registers), more=False)


def record_bounds(body: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield of each record where its header begins, where its data begin, and where they end.

    Fillers are left out; it ends at the maker's own data.

    Raises:
        RecordError: as ``read_records``.
    """
    position = 0
    while position < len(body):
        if body[position] == _FILLER:
            position += 1
            continue
        if body[position] & 0x0F == _SPECIAL:
            return
        plan, data = _header(OTHER_MEDIUM, body, position)
        start, width = (data, plan.width_bytes) if plan.width_bytes >= 0 else _variable(body, data)[:2]
        if start + width > len(body):
            raise RecordError(f"the record {plan.name!r} breaks off")
        yield position, data, start + width
        position = start + width


def _clock(registers: list[Register]) -> datetime | None:
    return next((register.time for register in registers if register.obis == _CLOCK), None)


def _rest(a: int, body: bytes, position: int) -> list[Register]:
    """Return what the maker put behind the records."""
    if body[position] not in (_REST, _REST_AND_MORE):
        raise RecordError(f"DIF {body[position]:02X} at byte {position} of the records has no meaning here")
    data = body[position + 1 :]
    obis = private_code(Place(a, 0, 0, 0, 0), TABLE_OTHER, _REST)
    return [Register(obis, data.hex().upper(), None, None, "manufacturer specific")] if data else []


def _without_number(plan: _Plan, data: bytes, zone: tzinfo) -> Register:
    if plan.kind is _Kind.PROBLEM:
        return Register(plan.obis, values.INVALID + plan.problem, plan.unit, None, plan.name)
    written, instant = values.date(data, zone)
    return Register(plan.obis, written, None, instant, plan.name)


def _header(a: int, body: bytes, position: int) -> tuple[_Plan, int]:
    """Return what the header at ``position`` says, and where the data begin."""
    match = _HEADER.match(body, position)
    if match is None:
        raise RecordError(f"the header of the record at byte {position} breaks off or is too long")
    plan = _plan(a, match[0])
    return (plan, match.end()) if plan else _plain_text_header(a, body, position)


@lru_cache(maxsize=_CACHED)
def _plan(a: int, header: bytes) -> _Plan | None:
    """Return what a header says; None if its VIF is a plain text, of which the header is only the beginning."""
    match = _CHAIN.match(header)
    difs = match[0] if match else header
    vifs = header[len(difs) :]
    if vifs[0] in _PLAIN_TEXT:
        return None
    return _make_plan(a, difs, vifs, "")


def _plain_text_header(a: int, body: bytes, position: int) -> tuple[_Plan, int]:
    """Return the plan of a record whose VIF is a text, and where its data begin."""
    match = _CHAIN.match(body, position)
    difs = match[0] if match else b""
    position += len(difs) + 1
    vif = body[position - 1]
    length = body[position] if position < len(body) else 0
    name = values.text(body[position + 1 : position + 1 + length])
    position += 1 + length
    chain = b""
    if vif & _EXTENSION:
        match = _CHAIN.match(body, position)
        if match is None:
            raise RecordError(f"the header of the record with the VIF {name!r} breaks off")
        chain = match[0]
        position += len(chain)
    if position > len(body):
        raise RecordError(f"the text of a VIF breaks off at byte {position} of the records")
    return _make_plan(a, difs, bytes((vif,)) + chain, name), position


def _make_plan(a: int, difs: bytes, vifs: bytes, text: str) -> _Plan:
    field = difs[0] & 0x0F
    place = _place(a, difs)
    quantity, table, chain = _quantity(vifs, text)
    exponent, unit, names, problem, variant = _effects(chain, quantity)
    code = standard_code(quantity.name, place, variant) if table != TABLE_OTHER else None
    return _Plan(
        obis=code or private_code(place, table, quantity.first, variant),
        name=", ".join([quantity.name, *names, *_where(place)]),
        unit=unit,
        exponent=exponent,
        width_bytes=-1 if field == _VARIABLE else _WIDTHS[field],
        read=_reader(field, quantity.coding),
        kind=_kind(field, quantity, table, problem),
        problem=problem,
    )


def _kind(field: int, quantity: Quantity, table: int, problem: str) -> _Kind:
    if table == TABLE_FD and is_secret(quantity):
        return _Kind.SILENT
    if problem:
        return _Kind.PROBLEM
    if field == _VARIABLE:
        return _Kind.VALUE
    if not _WIDTHS[field]:
        return _Kind.SILENT
    return _Kind.DATE if quantity.coding is Coding.DATE and field != _REAL else _Kind.VALUE


def _place(a: int, difs: bytes) -> Place:
    storage = difs[0] >> 6 & 1
    tariff = subunit = 0
    for index, dife in enumerate(difs[1:]):
        storage |= (dife & 0x0F) << 1 + 4 * index
        tariff |= (dife >> 4 & 3) << 2 * index
        subunit |= (dife >> 6 & 1) << index
    return Place(a, difs[0] >> 4 & 3, storage, tariff, subunit)


def _where(place: Place) -> list[str]:
    functions = ("", "maximum", "minimum", "during an error")
    found = [functions[place.function]] if place.function else []
    found += [f"{name} {number}" for name, number in place._asdict().items() if name in _NUMBERED and number]
    return found


_NUMBERED: Final = ("storage", "tariff", "subunit")


def _quantity(vifs: bytes, text: str) -> tuple[Quantity, int, bytes]:
    """Return the quantity, the number of its table, and the VIFEs that follow."""
    code = vifs[0] & 0x7F
    if vifs[0] in _PLAIN_TEXT:
        first = sum(text.encode()) & 0x7F
        return Quantity(text or "plain text", text or None, 0, Coding.NUMBER, first), TABLE_OTHER, vifs[1:]
    tables: Mapping[int, tuple[Mapping[int, Quantity], int, str]] = {
        0xFB: (FB, TABLE_FB, "FB"),
        0xFD: (FD, TABLE_FD, "FD"),
    }
    if vifs[0] in tables:
        rows, table, name = tables[vifs[0]]
        code = vifs[1] & 0x7F
        found = rows.get(code) or Quantity(f"{name} {code:02X}", None, 0, Coding.NUMBER, code)
        return found, table, vifs[2:]
    unknown = Quantity(f"VIF {code:02X}", None, 0, Coding.NUMBER, code)
    return PRIMARY.get(code, unknown), TABLE_PRIMARY, vifs[1:]


def _effects(chain: bytes, quantity: Quantity) -> tuple[int, str | None, list[str], str, Variant]:
    """Return power of ten, unit, words, the meter's excuse, and what the VIFEs make of the quantity."""
    exponent, per, names, problem = quantity.exponent, "", [], ""
    variant = Variant()
    marks = bytearray()
    for code, effect in _chain(chain, quantity):
        exponent += effect.exponent
        per += effect.per
        problem = problem or effect.problem
        if effect.name:
            names.append(effect.name)
            marks += code
            variant = variant._replace(
                phase=variant.phase or effect.phase,
                direction=variant.direction or effect.direction,
                gas_state=_GAS_STATES.get(code, variant.gas_state),
                other=variant.other or not (effect.phase or effect.direction or code in _GAS_STATES),
            )
    unit = (quantity.unit or ("1" if per else None)) and f"{quantity.unit or '1'}{per}"
    return exponent, unit, names, problem, variant._replace(marks=bytes(marks))


def _chain(chain: bytes, quantity: Quantity) -> Iterator[tuple[bytes, Effect]]:
    """Yield each VIFE, as ``Variant.marks`` has it, with what it does; all of the maker's own as one."""
    codes = bytes(byte & 0x7F for byte in chain)
    if quantity is PRIMARY[_MAKER]:
        codes = bytes((_MAKER,)) + codes
    position = 0
    while position < len(codes):
        code = codes[position]
        if code == _MAKER:
            written = " ".join(f"{byte:02X}" for byte in codes[position + 1 :])
            yield codes[position:], Effect(f"maker's {written}")
            return
        position += 1
        if code == _FURTHER and position < len(codes):
            code = codes[position]
            position += 1
            yield bytes((code | _EXTENSION,)), ORTHOGONAL_FC.get(code) or Effect(f"VIFE FC {code:02X}")
        else:
            yield bytes((code,)), ORTHOGONAL.get(code) or Effect(f"VIFE {code:02X}")


_MAKER: Final = 0x7F
_FURTHER: Final = 0x7C
_GAS_STATES: Final = {b"\x3a": 0, b"\x3e": 2}


def _reader(field: int, coding: Coding) -> _Reader:
    if field == _REAL:
        return values.real
    if coding is Coding.MANUFACTURER:
        return lambda data, _exponent: values.manufacturer(data)
    if field >= _FIRST_BCD:
        return (lambda data, _exponent: values.digits(data)) if coding is Coding.NAME else values.bcd
    if coding is Coding.NAME:
        return lambda data, _exponent: str(int.from_bytes(data, "little"))
    return values.unsigned if coding is Coding.FLAGS else values.integer


def _variable(body: bytes, position: int) -> tuple[int, int, _Reader]:
    """Return where the data of an LVAR begin, how many they are, and how they are read (6.3.4)."""
    if position >= len(body):
        raise RecordError("a record of variable length has no length")
    kind = body[position]
    start = position + 1
    if kind < 0xC0:  # noqa: PLR2004
        return start, kind, _read_text
    if kind & 0x0F == 0 and kind < 0xF0:  # noqa: PLR2004
        return start, 0, _read_text
    if kind < 0xD0:  # noqa: PLR2004
        return start, kind - 0xC0, values.bcd
    if kind < 0xE0:  # noqa: PLR2004
        return start, kind - 0xD0, _read_negative
    width = _binary_width(kind)
    if width < 0:
        raise RecordError(f"the length {kind:02X} of a record is reserved")
    return start, width, values.integer if width <= _LONGEST_NUMBER else _read_hex


def _binary_width(kind: int) -> int:
    if kind < 0xF0:  # noqa: PLR2004
        return kind - 0xE0
    if kind < 0xF5:  # noqa: PLR2004
        return 4 * (kind - 0xEC)
    return {0xF5: 48, 0xF6: 64}.get(kind, -1)


_LONGEST_NUMBER: Final = 8


def _read_text(data: bytes, _exponent: int) -> str:
    return values.text(data)


def _read_hex(data: bytes, _exponent: int) -> str:
    return data[::-1].hex().upper()


def _read_negative(data: bytes, exponent: int) -> Decimal | str:
    found = values.bcd(data, exponent)
    return -found if isinstance(found, Decimal) else found
