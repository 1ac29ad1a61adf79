"""Hides who speaks in telegrams of text lines: P1 and IEC 62056-21; mends their checksums. Pure.

Kept are codes, registers, units, times and what an identification says of the make. Hidden are serial numbers, codes
of installations, and messages for the household, by their OBIS codes and by their looks.
"""

import re
from datetime import datetime
from typing import Final

from meterway.adapter.doctor.hide.pseudonyms import Pseudonyms
from meterway.meter.crc import crc16_arc
from meterway.meter.iec62056_21 import block_check, strip_parity

_MAKE: Final = re.compile(rb"(/[A-Za-z]{3}.)(.*)", re.DOTALL)
_RUN: Final = re.compile(rb"[0-9A-Za-z]{6,}")
_WORD: Final = re.compile(rb"[0-9A-Za-z]+")
_DATA_SET: Final = re.compile(rb"([^()]*)\(([^()]*)\)?")
_CODE: Final = re.compile(rb"(?:\d+-\d+:)?([0-9A-Z]{1,3})\.(?:([0-9A-Z]{1,3})(?:\.[0-9A-Z]{1,3})?)?(?:[*&]\d+)?")
_WHO: Final = frozenset(
    {(b"0", b"0"), (b"96", b"1"), (b"96", b"13"), (b"42", b"0"), (b"96", b"50"), (b"96", b"90"), (b"9", b"20")}
    | {(b"9", b"21"), (b"9", b"22")}
)
"""Groups C and D of who a meter or its owner is; 9.20 to 9.22 are those of heat meters."""
_MAKERS_OWN: Final = b"C"
"""Group C of data of the maker: C.1 is the meter's number."""
_NUMBER: Final = re.compile(rb"[-+]?[0-9]+(?:\.[0-9]*)?")
_DATE: Final = re.compile(rb"[0-9]?([0-9]{10})([0-9]{2})?[SW]?")
_LAST_QUANTITY: Final = 89
"""Group C of electricity; above are a meter's own affairs."""
_PARITY: Final = 0x80

_P1_END: Final = re.compile(rb"/[^/!]*!([0-9A-Fa-f]{1,4})?")
_IEC_BODY: Final = re.compile(rb"\x02([^\x02\x03\x04]*[\x03\x04])(.)", re.DOTALL)


def mend_p1(before: bytes, after: bytes) -> bytes:
    """Return ``after`` with the checksums right that were right in ``before``."""
    mended = bytearray(after)
    for found in _P1_END.finditer(before):
        start, end = found.start(), found.start(1)
        for line_end in (b"\n", b"\r\n"):
            if found[1] and crc16_arc(before[start:end].replace(b"\n", line_end)) == int(found[1], 16):
                crc = b"%04X" % crc16_arc(after[start:end].replace(b"\n", line_end))
                mended[end : found.end()] = _as_written(crc, found[1])
                break
    return bytes(mended)


def _as_written(crc: bytes, before: bytes) -> bytes:
    """Return the checksum in the letters of the one before; where zeros were left out, it may not fit any more."""
    crc = crc[-len(before) :]
    return crc.lower() if before.lower() == before else crc


def hide_readout(data: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Return the lines of a readout without who speaks, with parity bits where they were."""
    plain = strip_parity(data)
    return _as_sent(data, plain, hide_lines(plain, pseudonyms), has_parity=_has_parity(data))


def mend_readout(before: bytes, after: bytes) -> bytes:
    """Return ``after`` with the BCC right that were right in ``before``, and no others: one in 128 is by chance."""
    lines = bytearray(strip_parity(after))
    for found in _IEC_BODY.finditer(strip_parity(before)):
        was_right = block_check(found[1]) == found[2][0]
        right = block_check(bytes(lines[found.start(1) : found.end(1)]))
        if was_right:
            lines[found.start(2)] = right
        elif lines[found.start(2)] == right:
            lines[found.start(2)] ^= 1
    return _as_sent(after, strip_parity(after), bytes(lines), has_parity=_has_parity(before))


def _has_parity(data: bytes) -> bool:
    """Return whether bytes with an odd number of ones were made even, and not just noise between right ones."""
    odd = sum(byte < _PARITY and byte.bit_count() % 2 for byte in data)
    made_even = sum(byte >= _PARITY and byte.bit_count() % 2 == 0 for byte in data)
    return made_even > odd


def _as_sent(data: bytes, plain: bytes, changed: bytes, *, has_parity: bool) -> bytes:
    """Return ``data``, which without its parity bits is ``plain``, with what is different in ``changed``."""
    return bytes(
        old if new == was else _with_parity(new) if has_parity else new
        for old, was, new in zip(data, plain, changed, strict=True)
    )


def _with_parity(byte: int) -> int:
    return byte | _PARITY if byte.bit_count() % 2 else byte


def hide_lines(data: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Return the lines without who speaks."""
    code = (b"", b"")
    hidden = []
    for line in data.splitlines(keepends=True):
        head = line.find(b"/")
        if head >= 0 and b"(" not in line:
            hidden.append(line[:head] + _identification(line[head:], pseudonyms))
            continue
        if b"(" not in line:
            hidden.append(_RUN.sub(lambda run: _unless_plain(run[0], pseudonyms), line))
            continue
        parts, end = [], 0
        for found in _DATA_SET.finditer(line):
            if known := _CODE.search(found[1]):
                code = (known[1], known[2] or b"")
            elif found[1].strip():
                code = (b"?", b"")
            value = _value(found[2], code, pseudonyms)
            parts += [line[end : found.start(2)], value]
            end = found.end(2)
        hidden.append(b"".join(parts) + line[end:])
    return b"".join(hidden)


def _identification(line: bytes, pseudonyms: Pseudonyms) -> bytes:
    make = _MAKE.match(line)
    if make is None:
        return line
    return make[1] + _RUN.sub(lambda run: _unless_plain(run[0], pseudonyms), make[2])


def _unless_plain(run: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Hide what may be a number of its own; a word stays."""
    return run if run.isalpha() else pseudonyms.text(run)


def _value(value: bytes, code: tuple[bytes, bytes], pseudonyms: Pseudonyms) -> bytes:
    if code in _WHO or code[0] == _MAKERS_OWN:
        return _WORD.sub(lambda word: pseudonyms.text(word[0]), value)
    number, *unit = value.split(b"*", 1)
    if _NUMBER.fullmatch(number) and (unit or b"." in number or _is_quantity(code)):
        return value
    return _RUN.sub(lambda run: _unless_time(run[0], pseudonyms), value)


def _is_quantity(code: tuple[bytes, bytes]) -> bool:
    """Return whether digits under this code are a value, or the date and time of group 0.9."""
    return code == (b"0", b"9") or (code[0].isdigit() and 0 < int(code[0]) <= _LAST_QUANTITY) or code[0] in (b"P", b"F")


def _unless_time(run: bytes, pseudonyms: Pseudonyms) -> bytes:
    found = _DATE.fullmatch(run)
    if found and _is_time(found[1]):
        return run
    return run if set(run) == {ord("0")} else pseudonyms.text(run)


def _is_time(digits: bytes) -> bool:
    try:
        datetime.strptime(digits.decode(), "%y%m%d%H%M")  # noqa: DTZ007 - whether it is one is all that is asked
    except ValueError:
        return False
    return True
