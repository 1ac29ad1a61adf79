"""JSON of meters and readers: bytes become documents, and documents telegrams by a family's mapping profile.

For MQTT-native and HTTP devices, and for the output of any program (``json_map``, ``json_registers``).

    stream      = *( document line-end / noise line-end )    ; a program, a TCP server: one document a line
    message     = document                                   ; MQTT, HTTP: over any number of lines, ended by idle()
    document    = object / array of objects                  ; RFC 8259

A line that does not begin a document is noise: programs print other things too. Where a line cannot be read, one that
was cut or that noise stands before, the document is looked for with which it ends; only one that the profile accepts
counts. A document over several lines is also recognised on a stream, when it ends with a bracket at the beginning of a
line, but a whole accepted document on one line comes first: what stood before was cut.

No telegram is unchecked: JSON itself carries no checksum, but every link that brings it (TCP, TLS, a pipe) protects
its bytes, and a document that was cut is none. On a bare serial line that would not hold.
"""

import re
from dataclasses import replace
from datetime import tzinfo
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from meterway.core.errors import BadDataError, SetupError
from meterway.meter.codec import CodecError
from meterway.meter.json_map import JsonMap
from meterway.meter.json_number import parse_number
from meterway.meter.json_read import JsonReader
from meterway.meter.telegram import Telegram

LIMIT_BYTES: Final = 1 << 20
"""The longest document, and the most that is buffered; what goes on longer is dropped and reported, ``too-long``."""
LIMIT_DEPTH: Final = 32
"""Arrays and objects inside each other; deeper is ``too-deep``."""
LIMIT_COMMAS: Final = 50_000
"""More elements in a document are ``too-long``: they would cost a hundred times their bytes."""
GATHERED_BYTES: Final = 1 << 16
"""Messages of one reading (``JsonMap.gather_s``) are held so long as they are shorter, all together."""

_BEGIN: Final = re.compile(rb"\s*(?:\{|\[\s*(?:\{|$))")
_OBJECT: Final = re.compile(rb'\{\s*"')
_OPENING: Final = (b"{", b"[")
_CLOSING: Final = (b"}", b"]")
_MOST_TRIES: Final = 64
"""So often it is tried whether a bracket ends a document over several lines; then only ``idle`` ends it."""
_MOST_BEGINNINGS: Final = 32
"""Of the places in a line where its last document may begin, so many are tried from the front, and from the back."""
_RESCUE_BYTES: Final = 1 << 22
"""So many bytes are parsed at most to find it."""
_CUT: Final = "Input data was truncated"


class _Parsed(NamedTuple):
    """A document, out of its envelope."""

    document: object
    topic: str | None


class _Broken(NamedTuple):
    """Why there is none."""

    reason: str
    why: str


class JsonDecoder:
    """Turns the bytes of a JSON source into telegrams; a ``meter.codec.Decoder``.

    ``zone`` is that of clocks that name none. ``address`` tells one of several meters that share the source: what it
    calls itself (``JsonMap.meter``), or a level of its topics; documents of others are passed over in silence. At most
    ``limit_bytes`` are buffered, and ``GATHERED_BYTES`` more where the profile gathers messages.

    Raises:
        SetupError: the profile is of a source of several meters, and no address is given.
    """

    def __init__(self, profile: JsonMap, zone: tzinfo, address: str = "", *, limit_bytes: int = LIMIT_BYTES) -> None:
        if profile.several and not address:
            raise SetupError("this source carries several meters; set `address` to what the meter's documents name it")
        self.skipped_bytes = 0
        self._reader = JsonReader(profile, zone, address)
        self._gathered = _Gathered(profile.gather_s)
        self._limit_bytes = limit_bytes
        self._line = bytearray()
        """The line that has not ended."""
        self._searched_bytes = 0
        """So much of it has no line end."""
        self._held = bytearray()
        """Lines of a document that has not ended."""
        self._tries = 0
        self._now = 0.0

    @property
    def buffered_bytes(self) -> int:
        """See ``Decoder``."""
        return len(self._line) + len(self._held) + self._gathered.size_bytes

    def feed(self, data: bytes, now: float) -> list[Telegram | CodecError]:
        """Take the next bytes; return what they completed, in order."""
        self._now = now
        items = self._gathered.due(now)
        start = 0
        while start < len(data):
            room = self._limit_bytes - len(self._line) - len(self._held)
            self._line += data[start : start + room]
            start += room
            while (end := self._line.find(b"\n", self._searched_bytes)) >= 0:
                line = bytes(self._line[: end + 1])
                del self._line[: end + 1]
                self._searched_bytes = 0
                items += self._on_line(line)
            self._searched_bytes = len(self._line)
            if len(self._line) + len(self._held) >= self._limit_bytes:
                items += self._overflow()
        return items

    def idle(self, now: float) -> list[Telegram | CodecError]:
        """Take what is buffered for a whole message."""
        self._now = now
        text = self._drop()
        items = self._gathered.due(now)
        return items + self._on_message(text) if text.strip() else items

    def _drop(self) -> bytes:
        text = bytes(self._held + self._line)
        self._held.clear()
        self._line.clear()
        self._searched_bytes = self._tries = 0
        return text

    def _overflow(self) -> list[Telegram | CodecError]:
        text = self._drop()
        if not _BEGIN.match(text):
            self.skipped_bytes += len(text)
            return []
        return [CodecError(f"a document has no end within {len(text)} bytes", reason="too-long", data=text)]

    def _on_line(self, line: bytes) -> list[Telegram | CodecError]:
        if self._held:
            return self._on_next_line(line)
        text = line.strip()
        parsed = _parse(text) if _BEGIN.match(text) else None
        if isinstance(parsed, _Broken) and parsed.reason == "truncated":
            rescued = self._rescue(text, parsed)
            if not rescued:
                self._held += line
            return rescued
        return self._on_message(line) if text else []

    def _on_next_line(self, line: bytes) -> list[Telegram | CodecError]:
        """Take a line that may belong to the document whose first lines are held."""
        if line[:1] in _OPENING:
            parsed = _parse(line.strip())
            if isinstance(parsed, _Parsed) and self._reader.accepts(*parsed):
                cut = self._drop_held()
                return [_error(_Broken("truncated", "a line begins another document"), cut), *self._on_line(line)]
        self._held += line
        if line[:1] not in _CLOSING or self._tries >= _MOST_TRIES:
            return []
        self._tries += 1
        whole = _parse(bytes(self._held))
        if isinstance(whole, _Broken) and whole.reason == "truncated":
            return []
        return self._on_message(self._drop_held())

    def _drop_held(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        self._tries = 0
        return held

    def _on_message(self, message: bytes) -> list[Telegram | CodecError]:
        """Take bytes that end where a document ends, if there is one in them."""
        text = message.strip()
        if not _BEGIN.match(text):
            rescued = self._rescue(text, None)
            if not rescued:
                self.skipped_bytes += len(message)
            return rescued
        parsed = _parse(text)
        if isinstance(parsed, _Parsed):
            return self._on_document(parsed, text)
        return self._rescue(text, parsed) or [_error(parsed, text)]

    def _rescue(self, text: bytes, broken: _Broken | None) -> list[Telegram | CodecError]:
        """Return the accepted document that ``text`` ends with, after why what stands before it is none."""
        left_bytes = _RESCUE_BYTES
        places = [opening.start() for opening in _OBJECT.finditer(text, 1)]
        if len(places) > 2 * _MOST_BEGINNINGS:
            places = places[:_MOST_BEGINNINGS] + places[-_MOST_BEGINNINGS:]
        for place in places:
            rest = text[place:]
            left_bytes -= len(rest)
            if left_bytes < 0:
                break
            parsed = _parse(rest)
            if isinstance(parsed, _Parsed) and self._reader.accepts(*parsed):
                front = text[:place]
                if broken is None:
                    self.skipped_bytes += len(front)
                    return self._on_document(parsed, rest)
                return [_error(broken, front), *self._on_document(parsed, rest)]
        return []

    def _on_document(self, parsed: _Parsed, text: bytes) -> list[Telegram | CodecError]:
        if not self._reader.accepts(*parsed):
            self.skipped_bytes += len(text)
            return []
        try:
            contents = self._reader.read(*parsed)
        except BadDataError as error:
            return [CodecError(f"a document of {len(text)} bytes: {error}", reason=error.reason, data=text)]
        if not contents.registers:
            return []
        telegram = Telegram("json", contents.registers, text, contents.meter, contents.time)
        return self._gathered.add(telegram, self._now) if contents.is_part else [telegram]


class _Gathered:
    """Messages of single values that will be one telegram.

    It ends when its time is over, when a value comes for the second time or from another device, or when it is long.
    """

    def __init__(self, gather_s: float) -> None:
        self._gather_s = gather_s
        self._parts: list[Telegram] = []
        self._began = 0.0
        self.size_bytes = 0

    def add(self, telegram: Telegram, now: float) -> list[Telegram | CodecError]:
        """Take one message; return what it ended."""
        size_bytes = len(telegram.raw)
        if not self._gather_s or size_bytes > GATHERED_BYTES:
            return [telegram]
        codes = {register.obis for part in self._parts for register in part.registers}
        again = any(register.obis in codes for register in telegram.registers)
        other = any(part.meter != telegram.meter for part in self._parts)
        ended = self._end() if again or other or self.size_bytes + size_bytes > GATHERED_BYTES else []
        if not self._parts:
            self._began = now
        self._parts.append(telegram)
        self.size_bytes += size_bytes
        return ended

    def due(self, now: float) -> list[Telegram | CodecError]:
        """Return what is complete because its time is over."""
        return self._end() if self._parts and now - self._began >= self._gather_s else []

    def _end(self) -> list[Telegram | CodecError]:
        registers = tuple(register for part in self._parts for register in part.registers)
        raw = b"\n".join(part.raw for part in self._parts)
        whole = replace(self._parts[0], registers=registers, raw=raw)
        self._parts.clear()
        self.size_bytes = 0
        return [whole]


def _number(text: str) -> Decimal | str:
    """Return the number; its text where it is too large or too fine, so that it is seen to be there and no number."""
    value = parse_number(text)
    return text if value is None else value


_DECODE: Final = msgspec.json.Decoder(float_hook=_number).decode


def _parse(text: bytes) -> _Parsed | _Broken:
    """Return the document in ``text``, or why there is none."""
    if text.count(b",") > LIMIT_COMMAS:
        return _Broken("too-long", f"it has more than {LIMIT_COMMAS} elements")
    try:
        document: object = _DECODE(text)
        parsed = _opened(document) if isinstance(document, dict) else _Parsed(document, None)
    except RecursionError:
        return _Broken("too-deep", "it has too many objects and arrays inside each other")
    except ValueError as error:
        reason = "truncated" if str(error) == _CUT else "bad-syntax"
        return _Broken(reason, str(error))
    if _is_deep(parsed.document):
        return _Broken("too-deep", f"it has more than {LIMIT_DEPTH} objects and arrays inside each other")
    return parsed


def _opened(document: dict[str, object]) -> _Parsed:
    """Return what an envelope holds; the document itself if it is none."""
    topic, payload = document.get("topic"), document.get("payload", document)
    if not isinstance(topic, str) or payload is document:
        return _Parsed(document, None)
    if isinstance(payload, str) and payload.lstrip()[:1] in ("{", "["):
        payload = _DECODE(payload)
    return _Parsed(payload, topic)


def _is_deep(document: object) -> bool:
    level = [document]
    for _ in range(LIMIT_DEPTH + 1):
        inner: list[object] = []
        for node in level:
            if isinstance(node, dict):
                inner += node.values()
            elif isinstance(node, list):
                inner += node
        if not inner:
            return False
        level = inner
    return True


def _error(broken: _Broken, data: bytes) -> CodecError:
    return CodecError(f"a JSON document of {len(data)} bytes: {broken.why}", reason=broken.reason, data=data)
