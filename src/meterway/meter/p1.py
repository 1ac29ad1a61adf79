"""DSMR P1 telegrams: what a meter's customer port sends by itself, every 1 to 10 seconds.

Source: DSMR P1 companion standard 2.2 to 5.0.2, and its descendants in Belgium (e-MUCS), Luxembourg, Sweden,
Hungary, Switzerland, Austria, Lithuania, Slovenia. A telegram is

    telegram       = identification *line "!" [checksum] line-end
    identification = "/" 3LETTER *printable line-end
    checksum       = 1*4HEXDIG          ; CRC-16/ARC from "/" to "!"

Told apart by what they do, not by country: line ends CR LF or LF alone (the checksum may count the lost CR);
checksum in either case, without leading zeros, or none (DSMR 2 and 3); Slovenian Iskra meters send no "!" at all.

A missing checksum is accepted only from meters that never sent one, and only if they name no P1 version; a missing
"!" only if moreover the telegram ends as one of DSMR 2 or 3 does. Such telegrams are not ``checked``: only
plausibility protects their values, so one odd line refuses the whole telegram. In a checked telegram odd lines are
left out and a ``CodecError`` (``bad-syntax``) with these lines follows the telegram.
"""

import re
from datetime import tzinfo
from typing import Final

from meterway.meter.codec import CodecError
from meterway.meter.crc import crc16_arc
from meterway.meter.p1_lines import CLOCK, VERSIONS, Lines, read_lines
from meterway.meter.telegram import Telegram

LIMIT_BYTES: Final = 16 * 1024
"""The most that a decoder buffers. Real telegrams have up to 2.5 KB; one that grows past this is ``too-long``."""

_EDGE_BYTES: Final = 128
"""No start, end or header is longer."""

_FRAME_LIMIT_BYTES: Final = LIMIT_BYTES - _EDGE_BYTES

_IDENTIFICATION = rb"[A-Za-z]{3}[ \"-'*-.0-~]{0,92}"
"""Neither brackets nor another slash: a telegram cut within a line cannot hide the next one's start."""

_EVENT = re.compile(
    rb"(?P<start>/" + _IDENTIFICATION + rb"\r?\n)"
    rb"|(?P<end>\n!(?P<checksum>[0-9A-Fa-f]{4}|[^\n/]{0,16}(?=[\n/])|[^\n/]{17}))"
    rb"|(?P<cipher>\xdb\x08[A-Za-z]{3}.{5}(?:\x81.|\x82..)[\x20\x21\x30\x31])",
    re.DOTALL,
)
"""Start of a telegram; its end; header of a ciphered one (general-glo-ciphering with the meter's system title)."""

_BEGINS: Final = (b"/", b"\n!", b"\xdb\x08")
"""How events begin; they are found in a tenth of the time."""

_UNDECIDED = re.compile(
    rb"(?:/[A-Za-z]{0,3}|/" + _IDENTIFICATION + rb"\r?|\n(?:![^\n/]{0,16})?|\xdb(?:\x08.{0,12})?)\Z",
    re.DOTALL,
)
"""The beginning of an event at the end of what has arrived."""

_SHORT_END = re.compile(rb"\n!([^\n/]{0,16})\Z")
"""An end without line end, which only silence tells from the beginning of a longer one."""

_CHECKSUM = re.compile(rb"[0-9A-Fa-f]{1,4}")
_LAST_LINES: Final = frozenset({(24, 4, 0), (96, 13, 0)})
"""Groups C, D, E of the line that ends a telegram of DSMR 2 and 3: valve of an M-Bus meter, or text message."""

Items = list[Telegram | CodecError]


class P1Decoder:
    """Bytes of a P1 port in, telegrams out; every dialect, without being told which.

    Does: find telegrams in noise and after damage, check them, read every line. Does not: decrypt (a ciphered
    telegram is one ``CodecError``, ``encrypted``), judge values, or know what time it is. The caller must feed what
    arrives, and call ``idle`` when the line is quiet or at the end of a file: some telegrams have no other end.
    """

    def __init__(self, zone: tzinfo) -> None:
        """``zone`` is the one in which the meter's clock is read; its S and W letters choose the offset."""
        self.skipped_bytes = 0
        self._zone = zone
        self._buffer = bytearray()
        self._open = False
        """Whether the buffer begins with a telegram; else with what may become one."""
        self._scanned = 0
        """No event begins before this place of the buffer."""
        self._owes_end = ""
        """The identification of the meter that sent an end last: it owes one with every telegram."""
        self._owes_checksum = ""
        """The same for a checksum that held."""

    @property
    def buffered_bytes(self) -> int:
        """See ``Decoder``; never more than ``LIMIT_BYTES``."""
        return len(self._buffer)

    def feed(self, data: bytes, now: float) -> Items:  # noqa: ARG002 - P1 has no time-outs
        """Take the next bytes; return what they completed, in order (see ``Decoder``)."""
        buffer = self._buffer
        all_scanned = self._open and self._scanned == len(buffer)
        buffer += data
        if all_scanned and not _may_begin_event(data) and len(buffer) < _FRAME_LIMIT_BYTES:
            self._scanned = len(buffer)
            return []
        return self._advance(final=False)

    def idle(self, now: float) -> Items:  # noqa: ARG002 - P1 has no time-outs
        """Tell that nothing more comes: end what can be ended, give up the rest (see ``Decoder``)."""
        items = self._advance(final=True)
        rest = bytes(self._buffer)
        if not self._open:
            self._skip(rest)
        elif ending := _SHORT_END.search(rest):
            items += self._close(rest, ending[1])
        else:
            items += self._close_without_end(rest)
        self._buffer.clear()
        self._open = False
        self._scanned = 0
        return items

    def _advance(self, *, final: bool) -> Items:
        """Handle every event in the buffer; ``final``: what could become an event with more bytes is none."""
        items: Items = []
        buffer = self._buffer
        begin, scan = 0, self._scanned
        while True:
            event, decided = _next_event(buffer, scan, final=final)
            if self._open and decided - begin >= _FRAME_LIMIT_BYTES:
                scan = begin + _FRAME_LIMIT_BYTES
                items.append(_too_long(bytes(buffer[begin:scan])))
                begin, self._open = scan, False
                continue
            if event is None:
                break
            items += self._handle(event, begin)
            begin, scan = (event.start(), event.end() - 1) if self._open else (event.end(), event.end())
        if not self._open:
            self._skip(buffer[begin:decided])
            begin = decided
        del buffer[:begin]
        self._scanned = decided - begin
        return items

    def _handle(self, event: re.Match[bytes], begin: int) -> Items:
        """Return what the event makes of the bytes from ``begin`` on; open or end the telegram."""
        was_open, self._open = self._open, event["start"] is not None
        if event["end"] is not None:
            frame = bytes(event.string[begin : event.end()])
            if was_open:
                return self._close(frame, event["checksum"])
            self._skip(frame)
            return []
        before = bytes(event.string[begin : event.start()])
        items: Items = []
        if not was_open:
            self._skip(before)
        elif self._open or b"(" in before:
            items += self._close_without_end(before)
        if event["cipher"] is not None:
            items.append(_encrypted(event["cipher"]))
        return items

    def _close(self, frame: bytes, ending: bytes) -> Items:
        """Return what a telegram with its end is; ``ending`` is what follows the exclamation mark."""
        raw, digits = frame.rstrip(), ending.strip()
        guarded = frame[: len(frame) - len(ending)]
        if not digits:
            return [self._unchecked(raw, guarded[:-1], has_end=True)]
        if not _CHECKSUM.fullmatch(digits) or not _holds(guarded, int(digits, 16)):
            said = digits[:4].decode("latin-1")
            text = f"a telegram of {len(raw)} bytes says checksum {said!r}, its bytes give {crc16_arc(guarded):04X}"
            return [CodecError(text, reason="bad-checksum", data=raw)]
        meter, lines = self._read(guarded[:-1], strict=False)
        if not lines.registers:
            return [_odd(lines, raw)]
        self._owes_end = self._owes_checksum = meter
        telegram = Telegram("p1", lines.registers, raw, meter, lines.time)
        if lines.odd:
            return [telegram, _odd(lines, "\n".join(lines.odd).encode("latin-1"))]
        return [telegram]

    def _close_without_end(self, frame: bytes) -> Items:
        return [self._unchecked(frame.rstrip(), frame, has_end=False)]

    def _unchecked(self, raw: bytes, content: bytes, *, has_end: bool) -> Telegram | CodecError:
        """Return a telegram without checksum, if all speaks for it that can (see the module)."""
        meter, lines = self._read(content, strict=True)
        codes = {register.obis for register in lines.registers}
        if not has_end and not self._may_lack_end(meter, lines, content):
            return CodecError(f"a telegram broke off after {len(raw)} bytes", reason="truncated", data=raw)
        if meter == self._owes_checksum or codes & VERSIONS:
            text = f"a telegram of {len(raw)} bytes has no checksum, though its meter sends one"
            return CodecError(text, reason="bad-checksum", data=raw)
        if lines.odd or not lines.registers:
            return _odd(lines, raw)
        if has_end:
            self._owes_end = meter
        return Telegram("p1", lines.registers, raw, meter, lines.time, checked=False)

    def _may_lack_end(self, meter: str, lines: Lines, content: bytes) -> bool:
        if meter == self._owes_end or not lines.registers or not content.endswith(b"\n"):
            return False
        has_clock = any(register.obis == CLOCK for register in lines.registers)
        return not has_clock and lines.registers[-1].obis[2:5] in _LAST_LINES

    def _read(self, content: bytes, *, strict: bool) -> tuple[str, Lines]:
        """Return the identification, without slash, and what the lines below it say."""
        identification, _, text = content.decode("latin-1").partition("\n")
        return identification[1:].strip(), read_lines(text, self._zone, strict=strict)

    def _skip(self, noise: bytes | bytearray) -> None:
        """Count noise; the line ends between telegrams are none."""
        self.skipped_bytes += len(noise.translate(None, b"\r\n"))


def _may_begin_event(data: bytes) -> bool:
    return b"!" in data or b"/" in data or b"\xdb" in data or data[-1:] == b"\n"


def _next_event(buffer: bytearray, scan: int, *, final: bool) -> tuple[re.Match[bytes] | None, int]:
    """Return the next event at or after ``scan``, and the place before which no other event begins.

    None where there is none, or where the bytes at the end may become an earlier one: so the same bytes make the
    same events however they are cut into pieces.
    """
    begins = [place for each in _BEGINS if (place := buffer.find(each, scan)) >= 0]
    event = _EVENT.search(buffer, min(begins)) if begins else None
    decided = event.start() if event else len(buffer)
    if not final:
        undecided = _UNDECIDED.search(buffer, max(scan, len(buffer) - _EDGE_BYTES))
        if undecided and undecided.start() < decided:
            return None, undecided.start()
    return event, decided


def _holds(guarded: bytes, checksum: int) -> bool:
    if crc16_arc(guarded) == checksum:
        return True
    return b"\r" not in guarded and crc16_arc(guarded.replace(b"\n", b"\r\n")) == checksum


def _odd(lines: Lines, data: bytes) -> CodecError:
    if not lines.odd:
        return CodecError("a telegram has no line with a value", reason="bad-syntax", data=data)
    code = lines.odd[0].partition("(")[0][:24]
    text = f"a telegram has {len(lines.odd)} line(s) of no known form, the first begins {code!r}"
    return CodecError(text, reason="bad-syntax", data=data)


def _too_long(data: bytes) -> CodecError:
    return CodecError(f"a telegram has no end within {len(data)} bytes", reason="too-long", data=data)


def _encrypted(header: bytes) -> CodecError:
    text = "the telegram is encrypted; ask the grid operator for the key of this meter's P1 port"
    return CodecError(text, reason="encrypted", data=header)
