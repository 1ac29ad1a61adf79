"""IEC 62056-21 readouts as they come on a line: pushed in mode D, or overheard in modes A, B and C.

Source: IEC 62056-21:2002 (EN 62056-21, before that IEC 61107), 6.3 and 6.5. A readout is

    readout        = [identification] [STX] lines "!" line-end [ETX BCC]
    identification = "/" 3LETTER BAUD *printable line-end [line-end]

with 7 data bits and even parity on the line; BCC is the XOR of all that follows STX up to ETX, itself included. Told
apart by what they do: mode D has an empty line after the identification and no checksum; modes A, B and C have STX
and BCC, unless a gateway took them off. Answers of programming mode have STX and BCC and no "!"; without their frame
they are known by beginning with ``F.F(`` or with a profile or log (``P.01(``). Where the line was opened with 8 bits
and no parity, the parity arrives as the eighth bit: it is checked and taken off.

A readout with a right BCC is ``checked``. The BCC is weak: two bits turned in the same place of two bytes cancel out.
Without BCC only plausibility protects the values, so one odd line refuses the whole readout; so does a missing BCC
from a meter that sent one before. In a checked readout odd lines are left out and a ``CodecError`` (``bad-syntax``)
with these lines follows it.

Each row of a load profile becomes a telegram of its own, with the row's time.
"""

import re
from collections.abc import Collection
from datetime import tzinfo
from typing import Final, NamedTuple

from meterway.core.errors import SetupError
from meterway.meter.codec import CodecError
from meterway.meter.iec62056_21_lines import CODE, Lines, read_lines
from meterway.meter.telegram import Telegram

PROTOCOL: Final = "iec62056_21"

LIMIT_BYTES: Final = 32 * 1024
"""The most that a decoder buffers. Real readouts have up to 10 KB; one that grows past this is ``too-long``."""

_EDGE_BYTES: Final = 128
"""No start or end is longer."""

_FRAME_LIMIT_BYTES: Final = LIMIT_BYTES - _EDGE_BYTES

STX, ETX = b"\x02", b"\x03"

_IDENTIFICATION = rb"[A-Za-z]{3}[ \"-'*-.0-~]{0,92}"
"""Neither brackets nor another slash: a readout cut within a line cannot hide the next one's start."""

_HEAD_PATTERN = rb"(?P<head>/" + _IDENTIFICATION + rb"\r?\n(?P<blank>\r?\n)?)"
_BODY_PATTERN = rb"(?P<body>\x02)(?=" + CODE.encode("latin-1") + rb"\()"
_BARE_PATTERN = rb"(?P<bare>(?:[0-9]-[0-9]{1,2}:)?(?:F\.F|P\.[0-9]{2})(?=\())"
_END_PATTERN = rb"(?P<end>[!\x03])"

_CLOSED = re.compile(_HEAD_PATTERN + rb"|" + _BODY_PATTERN + rb"|" + _BARE_PATTERN)
_FRAMED = re.compile(_HEAD_PATTERN + rb"|" + _BODY_PATTERN + rb"|" + _END_PATTERN)
_UNFRAMED = re.compile(_HEAD_PATTERN + rb"|" + _BODY_PATTERN + rb"|" + _BARE_PATTERN + rb"|" + _END_PATTERN)

SIGNATURE: Final = re.compile(
    rb"/" + _IDENTIFICATION + rb"\r?\n(?:\r?\n)?"
    rb"(?:\x02|[0-9CFLP]{1,3}\.[0-9F]{1,3}(?:\.[0-9F]{1,3})?(?:[*&][0-9]{1,3})?\(|[0-9]-[0-9]{1,2}:[0-9.CF]+[*&][0-9])"
    rb"|" + _BODY_PATTERN + rb"|(?<![0-9])" + _BARE_PATTERN
)
"""What no P1 telegram begins with: STX, a code without groups A and B, or one with group F."""

_START_OF_FRAME = rb"/[A-Za-z]{0,3}|/" + _IDENTIFICATION + rb"\r?(?:\n\r?)?|\x02[0-9A-Z.:*&-]{0,24}"
_UNDECIDED = re.compile(rb"(?:" + _START_OF_FRAME + rb")\Z")
_UNDECIDED_BARE = re.compile(rb"(?:" + _START_OF_FRAME + rb"|[0-9:.FP-]{1,12})\Z")
"""The beginning of a start at the end of what has arrived."""

_SEVEN_BITS: Final = bytes(byte & 0x7F if byte.bit_count() % 2 == 0 else byte for byte in range(256))
"""Takes the parity off bytes that have an even one; leaves all others."""
_EVEN: Final = bytes(byte for byte in range(256) if byte.bit_count() % 2 == 0)

_ASCII: Final = bytes(range(128))

_AFTER_MARK = re.compile(rb" {0,8}\r?(\n)?")
_ETX = 0x03
_FRAME_STARTS: Final = b"/\x02\x03"

Items = list[Telegram | CodecError]


def block_check(data: bytes) -> int:
    """Return the BCC of ``data``: the XOR of its bytes (IEC 62056-21:2002, 6.3.14, characters 8 and 9)."""
    value = int.from_bytes(data, "big")
    bits = 8 << max(len(data) - 1, 0).bit_length()
    while bits > 8:  # noqa: PLR2004 - one byte is left
        bits >>= 1
        value = (value >> bits) ^ (value & (1 << bits) - 1)
    return value


def strip_parity(data: bytes) -> bytes:
    """Return ``data`` with the even parity bit taken off where it is right; other bytes stay as they are."""
    return data if data.isascii() else data.translate(_SEVEN_BITS)


class _Kind(NamedTuple):
    """How a readout began: what may follow in it, and where it ends."""

    name: str
    events: re.Pattern[bytes]
    unfinished: re.Pattern[bytes]


_NONE: Final = _Kind("there is none", _CLOSED, _UNDECIDED_BARE)
_PUSH: Final = _Kind("an identification and an empty line: mode D, which ends with its end mark", _FRAMED, _UNDECIDED)
_HEAD: Final = _Kind("an identification alone: STX may follow, or was lost", _FRAMED, _UNDECIDED)
_BODY: Final = _Kind("STX", _FRAMED, _UNDECIDED)
_BARE: Final = _Kind("a data set that readouts begin with", _UNFRAMED, _UNDECIDED_BARE)


class _Ending(NamedTuple):
    """Where a readout ends; places of the buffer."""

    mark: int
    """The "!", or ETX where there is none."""
    end: int
    """Behind everything that belongs to the readout."""
    check: int | None
    """The BCC; None where none came."""
    is_clean: bool
    """Whether the end mark is followed by what may follow it."""


class ReadoutDecoder:
    """Bytes of an optical head in, readouts out; a ``meter.codec.Decoder`` that never asks.

    Does: find readouts in noise and after damage, check them, read every data set, take off parity. Does not: talk
    to the meter (``iec62056_21_master`` does), supply units that the meter leaves out, judge values. The caller must
    call ``idle`` when the line is quiet: only mode D says by itself where it ends.
    """

    def __init__(self, zone: tzinfo, *, quirks: Collection[str] = ()) -> None:
        """``zone`` is that of the meter's clock.

        Raises:
            SetupError: ``quirks`` is not empty: this codec has none.
        """
        if quirks:
            raise SetupError(f"the IEC 62056-21 codec knows no quirk `{min(quirks)}`; remove it from the family")
        self.skipped_bytes = 0
        self._zone = zone
        self._raw = bytearray()
        self._buffer = bytearray()
        """The same bytes without parity: starts and ends are looked for in these."""
        self._kind = _NONE
        """What the buffer begins with; NONE: at most the beginning of a start."""
        self._meter = ""
        self._head_end = 0
        """Where its identification ends; what comes before STX is noise of the change of baud rate."""
        self._body = 0
        """Where the data lines of the readout begin."""
        self._scanned = 0
        """No start or end begins before this place of the buffer."""
        self._owes_checksum: str | None = None
        """The identification of the meter that sent a right BCC last: it owes one with every readout but of mode D."""

    @property
    def buffered_bytes(self) -> int:
        """See ``Decoder``; never more than ``LIMIT_BYTES``."""
        return len(self._raw)

    def feed(self, data: bytes, now: float) -> Items:  # noqa: ARG002 - readouts have no time-outs
        """Take the next bytes; return what they completed, in order (see ``Decoder``)."""
        buffer = self._buffer
        all_scanned = self._kind.events is _FRAMED and self._scanned == len(buffer)
        self._raw += data
        data = strip_parity(data)
        buffer += data
        if all_scanned and not _may_begin_event(data) and len(buffer) < _FRAME_LIMIT_BYTES:
            self._scanned = len(buffer)
            return []
        return self._advance(final=False)

    def idle(self, now: float) -> Items:  # noqa: ARG002 - readouts have no time-outs
        """Tell that nothing more comes: end what can be ended, give up the rest (see ``Decoder``)."""
        items = self._advance(final=True)
        if self._kind is _NONE:
            self._skip(self._buffer)
        else:
            items += self._close_without_end(0, len(self._buffer))
        self._raw.clear()
        self._buffer.clear()
        self._kind = _NONE
        self._scanned = 0
        return items

    def _advance(self, *, final: bool) -> Items:
        """Handle every start and end in the buffer; ``final``: what could become one with more bytes is none."""
        items: Items = []
        begin, scan = 0, self._scanned
        while True:
            event, decided = self._next_event(scan, final=final)
            if self._kind is not _NONE and decided - begin >= _FRAME_LIMIT_BYTES:
                scan = begin + _FRAME_LIMIT_BYTES
                items.append(_too_long(bytes(self._raw[begin:scan])))
                begin, self._kind = scan, _NONE
                continue
            if event is None:
                break
            if event.lastgroup != "end":
                found, begin = self._start(event, begin)
                items += found
                scan = event.end()
                continue
            ending = self._ending(event.start(), final=final)
            if ending is None:
                decided = event.start()
                break
            found, begin = self._close(begin, ending)
            items += found
            scan = begin
            self._kind = _NONE
        if self._kind is _NONE:
            self._skip(self._buffer[begin:decided])
            begin = decided
        del self._buffer[:begin], self._raw[:begin]
        self._body -= begin
        self._head_end -= begin
        self._scanned = decided - begin
        return items

    def _next_event(self, scan: int, *, final: bool) -> tuple[re.Match[bytes] | None, int]:
        """Return the next start or end at or after ``scan``, and the place before which there is no other.

        None where there is none, or where the bytes at the end may become an earlier one: so the same bytes make the
        same events however they are cut into pieces.
        """
        buffer = self._buffer
        event = self._kind.events.search(buffer, scan)
        decided = event.start() if event else len(buffer)
        if not final:
            undecided = self._kind.unfinished.search(buffer, max(scan, len(buffer) - _EDGE_BYTES))
            if undecided and undecided.start() <= decided:
                return None, undecided.start()
        return event, decided

    def _start(self, event: re.Match[bytes], begin: int) -> tuple[Items, int]:
        """Open a readout; return what becomes of the bytes from ``begin`` on, and where the readout begins."""
        at, is_body = event.start(), event["body"] is not None
        if is_body and self._kind in (_HEAD, _PUSH) and b"(" not in self._buffer[self._body : at]:
            self._kind, self._body = _BODY, event.end()
            return [], begin
        items: Items = []
        if self._kind is _NONE:
            self._skip(self._buffer[begin:at])
        else:
            items = self._close_without_end(begin, at)
        head = event["head"]
        self._meter = head.decode("latin-1")[1:].strip() if head else ""
        self._head_end = event.end() if head else at
        self._body = event.end() if is_body or head else at
        if head:
            self._kind = _HEAD if event["blank"] is None else _PUSH
        else:
            self._kind = _BODY if is_body else _BARE
        return items, at

    def _ending(self, mark: int, *, final: bool) -> _Ending | None:
        """Return where the readout ends whose end mark, or ETX, is at ``mark``; None if more bytes must say."""
        buffer, length = self._buffer, len(self._buffer)
        end, is_clean = mark, True
        if buffer[mark] != _ETX:
            rest = _AFTER_MARK.match(buffer, mark + 1)
            end = rest.end() if rest else mark + 1
            if end == length and not final and (rest is None or not rest[1]):
                return None
            is_clean = bool(rest and rest[1]) or end == length or buffer[end] in _FRAME_STARTS
            if self._kind is _PUSH or (end < length and buffer[end] != _ETX) or (end == length and final):
                return _Ending(mark, end, None, is_clean)
        if end + 1 < length:
            return _Ending(mark, end + 2, end + 1, is_clean)
        return _Ending(mark, length, None, is_clean) if final else None

    def _close(self, begin: int, ending: _Ending) -> tuple[Items, int]:
        """Return what a readout with its end is, and where the bytes behind it begin."""
        raw_end = (ending.mark if ending.check is None else ending.check) + 1
        raw = bytes(self._raw[begin:raw_end])
        text = self._text(begin, ending.mark, raw_end)
        if ending.check is None:
            return self._unchecked(text, raw) if ending.is_clean else [_unclean(raw)], ending.end
        guarded, said = bytes(self._raw[self._body : ending.check]), self._raw[ending.check]
        if (found := block_check(guarded)) != said:
            message = f"a readout of {len(raw) - 1} bytes says BCC {said:02X}, its bytes give {found:02X}"
            # Where the BCC was lost, this byte is the next readout's first.
            return [CodecError(message, reason="bad-checksum", data=raw[:-1])], ending.check
        if text is None and _has_parity(raw):
            return [_bad_parity(raw)], ending.end
        if text is None:
            text = guarded[: ending.mark - self._body].decode("latin-1")
        return self._checked(text, raw), ending.end

    def _close_without_end(self, begin: int, end: int) -> Items:
        """Return what a readout is that the next one, or silence, cuts off."""
        raw = bytes(self._raw[begin:end])
        text = self._text(begin, end, end)
        lines = read_lines(text or "", self._zone, strict=True)
        is_whole = self._kind is _BARE or (self._kind is not _BODY and lines.ends_in_profile)
        if not is_whole or lines.odd or not (text or "").endswith(("\n", ")")):
            return [CodecError(f"a readout broke off after {len(raw)} bytes", reason="truncated", data=raw)]
        return self._unchecked(text, raw.rstrip())

    def _checked(self, text: str, raw: bytes) -> Items:
        """Return a readout whose BCC holds."""
        lines = read_lines(text, self._zone, strict=False)
        if not "".join(lines.odd).isprintable():
            return [_odd(lines, raw)]
        items = self._items(lines, raw, checked=True)
        if isinstance(items[0], Telegram):
            self._owes_checksum = self._meter
        return items

    def _unchecked(self, text: str | None, raw: bytes) -> Items:
        """Return a readout without checksum, if all speaks for it that can (see the module)."""
        owes = self._kind is not _PUSH and self._owes_checksum is not None
        if owes and self._meter in (self._owes_checksum, ""):
            message = f"a readout of {len(raw)} bytes has no checksum, though its meter sends one"
            return [CodecError(message, reason="bad-checksum", data=raw)]
        if text is None:
            return [_bad_parity(raw)]
        lines = read_lines(text, self._zone, strict=True)
        if lines.odd:
            return [_odd(lines, raw)]
        return self._items(lines, raw, checked=False)

    def _items(self, lines: Lines, raw: bytes, *, checked: bool) -> Items:
        meter, items = self._meter, Items()
        if lines.registers:
            items.append(Telegram(PROTOCOL, tuple(lines.registers), raw, meter, lines.time, checked))
        items += [Telegram(PROTOCOL, row.registers, raw, meter, row.time, checked) for row in lines.rows]
        if lines.odd:
            items.append(_odd(lines, "\n".join(lines.odd).encode("latin-1")))
        elif not items:
            items.append(_odd(lines, raw))
        return items

    def _text(self, begin: int, end: int, checked_end: int) -> str | None:
        """Return the data lines; None if bytes with the eighth bit set are there that are no even parity."""
        raw = self._raw[begin : self._head_end] + self._raw[self._body : checked_end]
        if raw.isascii() or not raw.translate(None, _EVEN):
            return self._buffer[self._body : end].decode("latin-1")
        return None

    def _skip(self, noise: bytes | bytearray) -> None:
        """Count noise; the line ends between readouts are none."""
        self.skipped_bytes += len(noise.translate(None, b"\r\n"))


def _may_begin_event(data: bytes) -> bool:
    return b"!" in data or b"/" in data or STX in data or ETX in data


def _has_parity(data: bytes) -> bool:
    """Return whether the eighth bits are parity, not letters of an 8-bit alphabet: there are too many for these."""
    return 4 * len(data.translate(None, _ASCII)) > len(data)


def _odd(lines: Lines, data: bytes) -> CodecError:
    if not lines.odd:
        return CodecError("a readout has no data set", reason="bad-syntax", data=data)
    code = lines.odd[0].partition("(")[0][:24]
    text = f"a readout has {len(lines.odd)} part(s) of no known form, the first begins {code!r}"
    return CodecError(text, reason="bad-syntax", data=data)


def _unclean(data: bytes) -> CodecError:
    text = "the end mark of a readout is followed by other characters; is it a P1 telegram?"
    return CodecError(text, reason="bad-syntax", data=data)


def _bad_parity(data: bytes) -> CodecError:
    text = f"a readout of {len(data)} bytes has bytes of wrong parity; the line must be set to 7E1, or 8N1"
    return CodecError(text, reason="bad-syntax", data=data)


def _too_long(data: bytes) -> CodecError:
    text = f"a readout did not end within {_FRAME_LIMIT_BYTES} bytes"
    return CodecError(text, reason="too-long", data=data)
