"""What receivers of wireless M-Bus put around a frame on their serial line, and how they are told to listen.

    im871a    ::= A5 control 03 length content [ 4*4time ] [ rssi ] [ crc crc ]     ; IMST iM871A: control says which
    amber     ::= FF 03 length content [ rssi ] sum                                 ; Amber AMB8465, Wuerth Metis
    cul       ::= "b" [ "Y" ] hex EOL                                               ; culfw: frame with checksums
    rtl_wmbus ::= mode ";" crc-ok ";" *( field ";" ) "0x" hex EOL
    hex       ::= [ "0x" ] hex EOL
    bare      ::= frame                                                             ; RC1180, Amber without commands

Content is a frame from the C field on, without checksums. A bare frame has nothing that it could be found by, so it is
only looked for where a message begins: at the start, after a pause of the line, after another one.

Sources: IMST, "WM-Bus HCI specification"; Wuerth Elektronik, "Metis-II manual", 6 (commands); culfw, commands ``b``
and ``X``; rtl-wmbus, README.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import xor
from types import MappingProxyType
from typing import Final

from meterway.core.errors import SetupError
from meterway.meter import mbus_values as values
from meterway.meter.codec import CodecError
from meterway.meter.crc import crc16_x25
from meterway.meter.wmbus_frames import (
    FRAME_BYTES,
    SHORTEST,
    begins_as_a,
    may_be_damaged,
    open_checked,
    open_stripped,
    size_a,
)

LIMIT_BYTES: Final = 1024
"""The longest line, and the most that waits for its end."""

_CONTROLS: Final = rb"[\x08\x18\x28\x38\x44\x46]"
"""C fields of frames with data: RSP-UD, SND-NR, SND-IR."""
_CIS: Final = rb"[\x6e-\x7b\x8c-\x90\xa0-\xb7]"
_HEX: Final = rb"[0-9A-Fa-f]{22,}+"
_EOL: Final = rb"(?=[\r\n])"
_EOL_OR_END: Final = rb"(?=[\r\n]|\Z)"

_DIGITS: Final = b"[%s]" % b"".join(b"\\x%x%x" % (high, low) for high in range(10) for low in range(10))
_TYPES: Final = rb"[\x00-\x4f]"
_ADDRESSES: Final = rb"(?:..%s{4}.%s|(?:\x24\x23|\xa5\x11).%s%s{4})" % (_DIGITS, _TYPES, _TYPES, _DIGITS)
"""The second form is that of ``wmbus_diehl``."""
_CI_AT: Final = rb"(?:%s|..%s)" % (_CIS, _CIS)
"""Behind the address, or behind the checksum of the first block."""

_PATTERNS: Final[Mapping[str, bytes]] = {
    "im871a": rb"\xa5[\x02\x12\x22\x32\x42\x52\x62\x72\x82\x92\xa2\xb2\xc2\xd2\xe2\xf2]\x03[\x0a-\xff]" + _CONTROLS,
    "amber": rb"\xff\x03[\x0a-\xff]" + _CONTROLS,
    "cul": rb"bY?[0-9A-F]{22,}+<EOL>",
    "rtl_wmbus": rb"[CRST][0-9][A-Za-z]?;[0-9];[ -~]{0,120}?;0x" + _HEX + rb";?<EOL>",
    "hex": rb"(?<![0-9A-Fa-f])" + _HEX + rb"<EOL>",
    "bare": rb"[\x0a-\xff]" + _CONTROLS + _ADDRESSES + _CI_AT,
}
_LINES: Final = frozenset({"cul", "rtl_wmbus", "hex"})
_LINE_CHARACTERS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz;:., _+-"

QUIRKS: Final = frozenset(_PATTERNS)
"""A quirk names the only framing that is looked for; without one all are, and ``bare`` where a message begins."""

_BARE: Final = re.compile(rb"[\x0a-\xff]" + _CONTROLS + rb".{8}" + _CI_AT, re.DOTALL)
"""Where a message begins, hexadecimal numbers are believed too."""
_MAY_BEGIN_BARE: Final = re.compile(rb"[\x0a-\xff](?:\Z|" + _CONTROLS + rb".{0,10}\Z)", re.DOTALL)
_HEAD_BYTES: Final = 13
"""The first block of a bare frame with checksums, and its CI field; no other head is longer."""
_CI_OFFSET: Final = 10
_START_BYTES: Final = 10

SIGNATURES: Final = (
    (
        re.compile(_PATTERNS["im871a"] + rb"..[\x00-\x99]{4}", re.DOTALL),
        "a frame of wireless M-Bus from an iM871A (a5 .2 03)",
    ),
    (
        re.compile(_PATTERNS["amber"] + rb"..[\x00-\x99]{4}", re.DOTALL),
        "a frame of wireless M-Bus from an Amber (ff 03)",
    ),
    (re.compile(rb"bY?[0-9A-F]{2}4[46][0-9A-F]{24}"), "a line of a CUL with a frame of wireless M-Bus (b..44)"),
    (re.compile(rb"\b[CRST][0-9][A-Za-z]?;[01];[ -~]{0,120}?;0x[0-9A-Fa-f]{2}4[46]"), "a line of rtl_wmbus"),
    (re.compile(rb"\A[0-9A-Fa-f]{2}4[46][0-9A-Fa-f]{24,}[\r\n]"), "a frame of wireless M-Bus in hexadecimal digits"),
    (
        re.compile(rb"\A" + _PATTERNS["bare"].replace(_CONTROLS, rb"[\x44\x46]"), re.DOTALL),
        "a frame of wireless M-Bus without a receiver's own around it",
    ),
)
"""What tells receivers of wireless M-Bus from what else comes on a serial line, and in words."""

_TIME, _RSSI, _CRC = 0x20, 0x40, 0x80
_IM871A_HEAD_BYTES: Final = 4
_AMBER_HEAD_BYTES: Final = 3


@dataclass(frozen=True, slots=True)
class Heard:
    """A frame that a receiver heard."""

    raw: bytes
    """As on the serial line, without the end of a line."""
    content: bytes
    """From the C field on, without checksums."""
    checked: bool
    """A checksum held on the way to here: the radio's (or the receiver says so), or the serial line's."""
    strays: int = 0
    """How many bytes at the end may be the receiver's own: some count the signal's quality as part of the frame."""


class Framer:
    """Cuts what a receiver sends into frames and errors, in order; what lies outside is dropped and counted.

    A frame that is cut or damaged gives an error and is then searched, from behind its start, for another one. So is
    a frame that the caller gives back at once with ``reject``.

    Raises:
        SetupError: a quirk that does not exist, or more than one.
    """

    def __init__(self, quirks: Collection[str] = ()) -> None:
        for quirk in quirks:
            if quirk not in QUIRKS:
                raise SetupError(f"the wmbus codec knows no quirk `{quirk}`; known are {', '.join(sorted(QUIRKS))}")
        if len(quirks) > 1:
            raise SetupError("a receiver of wireless M-Bus has one framing; name one quirk, or none")
        self.skipped_bytes = 0
        self._names = tuple(quirks) or tuple(name for name in _PATTERNS if name != "bare")
        self._bare_first = not quirks or "bare" in quirks
        self._begins = True
        """Whether a message begins at the position."""
        self._buffer = b""
        self._position = 0
        self._needed_bytes = 1

    @property
    def buffered_bytes(self) -> int:
        """How many bytes wait: at most ``LIMIT_BYTES``."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Heard | CodecError]:
        """Take the next bytes; yield what they completed."""
        self._buffer += data
        if len(self._buffer) >= self._needed_bytes:
            while item := self._next(final=False):
                yield item

    def flush(self) -> Iterator[Heard | CodecError]:
        """Give up what waits; yield what is in it nevertheless."""
        while item := self._next(final=True):
            yield item
        self._begins = True

    def reject(self, heard: Heard) -> None:
        """Take the frame that was yielded last for none, though it looked like one: search it for others."""
        self._position -= len(heard.raw) - 1
        self._begins = False
        self.skipped_bytes += 1

    def _next(self, *, final: bool) -> Heard | CodecError | None:
        while match := self._search(final=final):
            kind, at = match.lastgroup or "bare", match.start()
            self._skip_to(at)
            item = _READERS[kind](match[0], self._buffer, at)
            if isinstance(item, int):
                if not final:
                    self._wait(item)
                    return None
                item = _truncated(self._buffer[at:], item)
            self._begins = kind == "bare"
            if isinstance(item, Heard):
                self._position = match.end() if kind in _LINES else at + len(item.raw)
                return item
            self._skip_to(match.end() if kind in _LINES else at + 1)
            if item is not None:
                return item
        if not final:
            self._skip_to(self._unfinished())
        else:
            self._skip_to(len(self._buffer))
        self._wait(1)
        return None

    def _search(self, *, final: bool) -> re.Match[bytes] | None:
        if self._bare_first and self._begins:
            if bare := _BARE.match(self._buffer, self._position):
                return bare
            if not final and _MAY_BEGIN_BARE.match(self._buffer, self._position):
                return None
        return _compiled(self._names, final).search(self._buffer, self._position)

    def _skip_to(self, position: int) -> None:
        skipped = self._buffer[self._position : position]
        if skipped:
            self._begins = False
            self.skipped_bytes += len(skipped.translate(None, b"\r\n"))
            self._position = position

    def _unfinished(self) -> int:
        """Return where a head or a line may have begun that has no end yet."""
        rest = self._buffer[self._position :]
        line_bytes = len(rest) - len(rest.rstrip(_LINE_CHARACTERS))
        return len(self._buffer) - min(max(line_bytes, _HEAD_BYTES - 1), len(rest), LIMIT_BYTES)

    def _wait(self, needed_bytes: int) -> None:
        self._buffer = self._buffer[self._position :]
        self._position = 0
        self._needed_bytes = needed_bytes


@lru_cache(maxsize=32)
def _compiled(names: tuple[str, ...], final: bool) -> re.Pattern[bytes]:  # noqa: FBT001 - a key
    end = _EOL_OR_END if final else _EOL
    parts = (b"(?P<%s>%s)" % (name.encode(), _PATTERNS[name].replace(b"<EOL>", end)) for name in names)
    return re.compile(b"|".join(parts), re.DOTALL)


_Item = Heard | CodecError | int | None
"""A number is how many bytes are needed to say more; None is no frame at all."""


def _im871a(_head: bytes, buffer: bytes, at: int) -> _Item:
    control, length = buffer[at + 1], buffer[at + 3]
    has_crc = bool(control & _CRC)
    end_of_content = _IM871A_HEAD_BYTES + length
    size = end_of_content + 4 * bool(control & _TIME) + bool(control & _RSSI) + 2 * has_crc
    raw = buffer[at : at + size]
    if len(raw) < size:
        return size
    if has_crc and crc16_x25(raw[1:-2]) != int.from_bytes(raw[-2:], "little"):
        return CodecError(f"the iM871A's message of {size} bytes fails its checksum", reason="bad-checksum", data=raw)
    content = raw[_IM871A_HEAD_BYTES:end_of_content]
    return Heard(raw, content, has_crc) if has_crc or _has_maker(content) else None


def _amber(_head: bytes, buffer: bytes, at: int) -> _Item:
    end_of_content = _AMBER_HEAD_BYTES + buffer[at + 2]
    for rssi_bytes in (0, 1):
        size = end_of_content + rssi_bytes + 1
        raw = buffer[at : at + size]
        if len(raw) < size:
            return size
        if reduce(xor, raw) == 0 and not _is_cut(raw):
            return Heard(raw, raw[_AMBER_HEAD_BYTES:end_of_content], checked=True, strays=1 - rssi_bytes)
    raw = buffer[at : at + end_of_content + 1]
    return CodecError(f"the Amber's message of {len(raw)} bytes fails its checksum", reason="bad-checksum", data=raw)


def _cul(line: bytes, _buffer: bytes, _at: int) -> _Item:
    digits = line.lstrip(b"bY")
    if len(digits) % 2:
        return _hex(line, b"", 0)
    data = bytes.fromhex(digits.decode())
    content = open_checked(data)
    if content is not None:
        return Heard(line, content, checked=True)
    if may_be_damaged(data):
        return CodecError(f"the CUL's frame of {len(data)} bytes fails a checksum", reason="bad-checksum", data=line)
    return CodecError(f"the CUL's line has {len(data)} bytes, which is no frame", reason="truncated", data=line)


def _rtl_wmbus(line: bytes, _buffer: bytes, _at: int) -> _Item:
    if line.split(b";", 2)[1] != b"1":
        return CodecError("rtl_wmbus heard a frame that fails its checksum", reason="bad-checksum", data=line)
    digits = line.rstrip(b";").rpartition(b"0x")[2]
    data = b"" if len(digits) % 2 else bytes.fromhex(digits.decode())
    content = open_stripped(data) or open_checked(data)
    if content is None:
        text = f"rtl_wmbus wrote {len(digits)} hexadecimal digits, which is no frame"
        return CodecError(text, reason="truncated", data=line)
    return Heard(line, content, checked=True)


def _hex(line: bytes, _buffer: bytes, _at: int) -> _Item:
    """Look for the frame at the end of the line: damage may have put other digits before it."""
    for begin in range(max(0, len(line) - 2 * FRAME_BYTES), len(line) - 2 * SHORTEST):
        if (len(line) - begin) % 2 or not _HEX_BEGIN.match(line, begin):
            continue
        data = bytes.fromhex(line[begin:].decode())
        content = open_checked(data)
        if content is not None:
            return Heard(line[begin:], content, checked=True)
        content = open_stripped(data)
        if content is not None and _has_maker(content):
            return Heard(line[begin:], content, checked=False)
    return None


_HEX_BEGIN: Final = re.compile(rb"[0-9A-Fa-f]{2}(?:[0123]8|4[46])")


def _bare(_head: bytes, buffer: bytes, at: int) -> _Item:
    if len(buffer) - at < _HEAD_BYTES:
        return _HEAD_BYTES
    is_a = begins_as_a(buffer[at : at + _HEAD_BYTES])
    if not is_a and not _CI.match(buffer, at + _CI_OFFSET):
        return None
    size = size_a(buffer[at]) if is_a else buffer[at] + 1
    raw = buffer[at : at + size]
    if len(raw) < size:
        return size
    content = open_checked(raw)
    if content is not None:
        return Heard(raw, content, checked=True)
    if is_a or not _has_maker(raw[1:]) or _is_cut(raw):
        return None
    return Heard(raw, raw[1:], checked=False, strays=2)


_CI: Final = re.compile(_CIS)


def _is_cut(raw: bytes) -> bool:
    """Return whether a message holds its own start once more: what follows it after a loss is its like."""
    start = raw[:_START_BYTES]
    return start in raw[_START_BYTES:] or any(raw.endswith(start[:size]) for size in range(2, _START_BYTES))


def _has_maker(content: bytes) -> bool:
    return values.manufacturer(content[1:3]).isalpha()


def _truncated(raw: bytes, size: int) -> CodecError:
    text = f"a receiver's message of {size} bytes broke off after {len(raw)}"
    return CodecError(text, reason="truncated", data=raw)


_READERS: Final[Mapping[str, Callable[[bytes, bytes, int], _Item]]] = {
    "im871a": _im871a,
    "amber": _amber,
    "cul": _cul,
    "rtl_wmbus": _rtl_wmbus,
    "hex": _hex,
    "bare": _bare,
}


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver that can be bought, and how it is told to listen."""

    title: str
    baud: int
    """As the maker delivers it; 8N1."""
    start: Mapping[str, bytes]
    """What to send once when the line was opened, by radio mode: T, C, S, or CT for both; empty: it listens always."""


def start_bytes(receiver: str, mode: str = "T") -> bytes:
    """Return what to send to a receiver (a name in ``RECEIVERS``) so that it listens in ``mode``; perhaps nothing.

    Raises:
        SetupError: no such receiver, or it has no such mode.
    """
    known = RECEIVERS.get(receiver)
    if known is None:
        raise SetupError(f"no receiver `{receiver[:40]}` is known; there are {', '.join(RECEIVERS)}")
    if known.start and mode not in known.start:
        raise SetupError(f"{known.title} has no mode `{mode[:40]}`; it has {', '.join(known.start)}")
    return known.start.get(mode, b"")


def _im871a_mode(number: int) -> bytes:
    """DEVMGMT_MSG_SET_CONFIG_REQ, not kept over a restart: radio mode; signal strength attached, time not."""
    message = bytes((0x81, 0x03, 0x06, 0x00, 0x02, number, 0x30, 0x01, 0x00))
    return b"\xa5" + message + crc16_x25(message).to_bytes(2, "little")


def _amber_mode(number: int) -> bytes:
    """CMD_SET_MODE_REQ: until the next restart."""
    message = bytes((0xFF, 0x04, 0x01, number))
    return message + bytes((reduce(xor, message),))


RECEIVERS: Final[Mapping[str, Receiver]] = MappingProxyType(
    {
        "cul": Receiver(
            "CUL, nanoCUL and others with culfw",
            38_400,
            {mode: b"X21\r\nbr%s\r\n" % mode.lower().encode() for mode in "TCS"},
        ),
        "im871a": Receiver(
            "IMST iM871A-USB", 57_600, {mode: _im871a_mode(number) for mode, number in (("T", 3), ("C", 6), ("S", 0))}
        ),
        "amber": Receiver(
            "Amber AMB8465-M, Wuerth Metis",
            9_600,
            {mode: _amber_mode(number) for mode, number in (("CT", 9), ("T", 8), ("C", 14), ("S", 3))},
        ),
        "rc1180": Receiver("Radiocrafts RC1180-MBUS", 19_200, {}),
        "rtl_wmbus": Receiver("rtl_wmbus behind an SDR stick", 115_200, {}),
    }
)
"""By name."""
