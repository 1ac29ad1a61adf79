"""DLMS/COSEM push: what a meter sends by itself on its customer port, plain or encrypted; bytes become telegrams.

    APDU         ::= notification / event / ciphered (see ``dlms_security``) / block (see ``dlms_segments``)
    notification ::= 0f invoke-id(4) time data            ; data-notification, IEC 62056-5-3, 9.3.10
    time         ::= 00 / 0c date-time(12) / 09 0c date-time(12) / 19 date-time(12)
    event        ::= c2 (00 / 01 time) class(2) code(6) attribute(1) data
    data         ::= A-XDR, see ``axdr`` and ``dlms_layout``
                   / 02 02 16 kind 01 n n*(02 02 class(2) code(6) attribute(1) A-XDR)    ; Sagemcom, ZPA in Czechia

Transports are HDLC and M-Bus frames (``dlms_transport``), or none at all: some gateways hand out bare APDUs, with or
without the LLC header e6 e7 00. Those have no end mark and no checksum. They are read only where no frame was ever
seen, when the line is quiet or another one follows, and only if nothing is left over.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from typing import Final, NamedTuple

from meterway.core.errors import BadDataError
from meterway.meter import axdr
from meterway.meter.axdr import CutError, Element, GrammarError
from meterway.meter.codec import CodecError
from meterway.meter.dlms_bare import BareReader
from meterway.meter.dlms_layout import Data, PushList, clock, read_attributes, read_layout
from meterway.meter.dlms_security import GENERAL, SERVICE, Opener, Sealed, SealedError, read_sealed
from meterway.meter.dlms_segments import LIMIT_MESSAGE_BYTES, Joiner, Message
from meterway.meter.dlms_transport import LIMIT_FRAME_BYTES, Framer, Piece
from meterway.meter.keys import NO_KEYS, Keys
from meterway.meter.telegram import Register, Telegram

LIMIT_BYTES: Final = LIMIT_FRAME_BYTES + 2 * LIMIT_MESSAGE_BYTES
"""The most that a decoder buffers: a frame, and a message with the frames it came in."""

_NOTIFICATION: Final = 0x0F
_EVENT: Final = 0xC2
_INVOKE_END: Final = 5
_TIME_BYTES: Final = 12
_DESCRIPTOR_BYTES: Final = 9

_PLAIN_START = re.compile(rb"\x0f.{4}(?:\x00|\x0c.{12}|\x09\x0c.{12}|\x19.{12})[\x01\x02]|\xc2[\x00\x01]", re.DOTALL)
"""How a push begins; what a wrong key makes of one does not."""

_ATTRIBUTES = re.compile(rb"\x02\x02\x16.\x01([\x00-\x7f])(?=\x02\x02\x00)", re.DOTALL)
_EQUIPMENT: Final = ((42, 0, 0), (96, 1, 0), (0, 0, 5), (96, 1, 1))
"""Groups C, D, E of the names by which a meter calls itself, the best first; those of meters behind it have A = 0 and
a channel B."""

Items = list[Telegram | CodecError]


class _Push(NamedTuple):
    """What an APDU says."""

    data: Data
    time: datetime | None
    problem: GrammarError | None
    """Why the last elements are missing."""
    end: int


class DlmsDecoder:
    """Bytes of a customer port in, telegrams out; a ``meter.codec.Decoder``.

    Does: find frames in noise and after damage, join them, decrypt, test tags and counters, and read every layout that
    says what its values are, others with the help of ``lists`` (those of the meter's family). Does not: guess units, or
    know what time it is.

    A telegram is ``checked`` if it came in HDLC frames, or if its authentication tag held. It is ``verified`` unless it
    was encrypted and no tag could be tested. Once one encrypted telegram was opened, plain ones are refused
    (``downgraded``). Where the data of a checked telegram are cut, what is there is kept and an error follows.
    """

    def __init__(
        self,
        zone: tzinfo,
        *,
        keys: Keys = NO_KEYS,
        lists: Sequence[PushList] = (),
        accept_repeats: bool = False,
    ) -> None:
        """``zone`` is that of the meter's clock; ``accept_repeats`` is for recordings, see ``dlms_security.Opener``."""
        self.skipped_bytes = 0
        self._zone = zone
        self._lists = lists
        self._framer = Framer()
        self._joiner = Joiner()
        self._opener = Opener(keys, accept_repeats=accept_repeats)
        self._title = b""
        """The system title that was named last."""
        self._bare: BareReader | None = BareReader(self._end_of_bare)
        """None since a frame was seen."""

    @property
    def buffered_bytes(self) -> int:
        """See ``Decoder``; never more than ``LIMIT_BYTES``."""
        bare_bytes = self._bare.buffered_bytes if self._bare else 0
        return self._framer.buffered_bytes + self._joiner.buffered_bytes + bare_bytes

    def feed(self, data: bytes, now: float) -> Items:
        """Take the next bytes; return what they completed, in order (see ``Decoder``)."""
        return self._decode(self._framer.feed(data), now)

    def idle(self, now: float) -> Items:
        """Give up what waits, and read bare APDUs (see ``Decoder``)."""
        items = self._decode(self._framer.flush(), now)
        items += [item for item in self._joiner.flush() if isinstance(item, CodecError)]
        if self._bare is not None:
            items += [item for message in self._bare.flush() for item in self._open(message)]
            self.skipped_bytes = self._bare.skipped_bytes
        return items

    def _decode(self, pieces: Iterable[Piece], now: float) -> Items:
        items: Items = []
        for piece in pieces:
            if isinstance(piece, bytes):
                items += self._outside(piece)
            elif isinstance(piece, CodecError):
                items.append(piece)
            else:
                self._leave_bare()
                for joined in self._joiner.feed(piece, now):
                    items += self._open(joined) if isinstance(joined, Message) else [joined]
        return items

    def _outside(self, data: bytes) -> Items:
        if self._bare is None:
            self._joiner.skip(data)
            self.skipped_bytes += len(data) - data.count(b"\x7e")
            return []
        messages = self._bare.feed(data)
        self.skipped_bytes = self._bare.skipped_bytes
        return [item for message in messages for item in self._open(message)]

    def _leave_bare(self) -> None:
        """Take what came before the first frame for noise."""
        if self._bare is not None:
            self.skipped_bytes += self._bare.buffered_bytes
            self._bare = None

    def _end_of_bare(self, data: bytes, at: int) -> int:
        return read_sealed(data, at).end if data[at] in GENERAL else self._uncut(data, at)

    def _uncut(self, data: bytes, at: int) -> int:
        """Return where the plain APDU at ``at`` ends.

        Raises:
            GrammarError, BadDataError: as ``_push``; or it is cut.
        """
        push = self._push(data, at)
        if push.problem:
            raise push.problem
        return push.end

    def _open(self, message: Message) -> Items:
        """Return the telegram in an APDU, ciphered or plain, and what is wrong with it."""
        try:
            sealed = self._sealed(message.apdu)
            plain = (message.apdu, not self._opener.expects_seal)
            apdu, is_verified = self._opener.open(sealed, _is_plausible) if sealed else plain
            is_checked = message.is_hdlc or (is_verified and sealed is not None)
            push = self._whole_push(apdu, may_be_cut=is_checked)
            if sealed:
                self._opener.accept(sealed, is_verified=is_verified)
        except SealedError as error:
            return [CodecError(str(error), reason=error.reason, data=message.raw)]
        except GrammarError as error:
            return [_bad(f"no push is in it: {error}", error.reason, message.raw)]
        except BadDataError as error:
            return [_bad(f"no push is in it: {error}", "bad-syntax", message.raw)]
        registers = push.data.registers
        telegram = Telegram(
            "dlms",
            registers,
            message.raw,
            _name(registers) or self._title.hex().upper(),
            push.data.time or push.time,
            checked=is_checked,
            verified=is_verified,
        )
        if push.problem:
            return [telegram, _bad(f"the last values are missing: {push.problem}", push.problem.reason, message.raw)]
        return [telegram]

    def _sealed(self, apdu: bytes) -> Sealed | None:
        """Return the ciphered APDU; None if it is plain.

        Raises:
            SealedError: it is plain, and those before it were not.
            GrammarError: it is cut.
        """
        if apdu[0] in GENERAL or apdu[0] in SERVICE:
            sealed = read_sealed(apdu, title=self._title)
            self._title = sealed.title
            return sealed
        if self._opener.accepted:
            raise SealedError("a plain telegram came, though those before it were encrypted", "downgraded")
        return None

    def _whole_push(self, apdu: bytes, *, may_be_cut: bool) -> _Push:
        """Return what the plain APDU says; where ``may_be_cut``, its last elements may be missing.

        Raises:
            GrammarError, BadDataError: as ``_push``; or there is more behind it; or nothing that is understood in it.
        """
        push = self._push(apdu, 0)
        if push.problem and not may_be_cut:
            raise push.problem
        if push.end != len(apdu) and not push.problem:
            raise GrammarError(f"its data end at byte {push.end} of {len(apdu)}")
        if not push.data.registers:
            raise GrammarError("none of its values has a meaning that is known")
        return push

    def _push(self, data: bytes, at: int) -> _Push:
        """Return what the plain APDU at ``at`` says.

        Raises:
            GrammarError: it is none, or not all there but for the last elements.
            BadDataError: an OBIS code is impossible.
        """
        try:
            if data[at] == _NOTIFICATION:
                time, at = _time(data, at + _INVOKE_END)
                return self._body(data, at, clock(time, self._zone))
            if data[at] == _EVENT:
                time, at = _time(data, at + 2) if data[at + 1] else (b"", at + 2)
                descriptor = data[at : at + _DESCRIPTOR_BYTES]
                [value], end = axdr.read_elements(data, at + _DESCRIPTOR_BYTES, 1)
                found = read_attributes([(descriptor, value)], self._lists, self._zone)
                return _Push(found, clock(time, self._zone), None, end)
        except IndexError:
            raise CutError("it ends within its head") from None
        raise GrammarError(f"an APDU of kind {data[at]:02x} is no push")

    def _body(self, data: bytes, at: int, time: datetime | None) -> _Push:
        if attributes := _ATTRIBUTES.match(data, at):
            pairs, at = _attributes(data, attributes.end(), attributes[1][0])
            return _Push(read_attributes(pairs, self._lists, self._zone), time, None, at)
        count, at = axdr.read_list_head(data, at)
        body: list[Element] = []
        problem = None
        try:
            body, at = axdr.read_elements(data, at, count)
        except CutError as error:
            problem = error
            body, at = _whole_elements(data, at, count)
        return _Push(read_layout(body, count, self._lists, self._zone), time, problem, at)


def _time(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the date-time at ``at``, which is empty or 12 octets, and where it ends."""
    if data[at] == axdr.OCTETS:
        at += 1
    size = _TIME_BYTES if data[at] in (_TIME_BYTES, 0x19) else data[at]
    if size not in (0, _TIME_BYTES):
        raise GrammarError(f"there is no date-time at byte {at}")
    end = at + 1 + size
    return data[at + 1 : end], end


def _attributes(data: bytes, at: int, count: int) -> tuple[list[tuple[bytes, Element]], int]:
    pairs: list[tuple[bytes, Element]] = []
    for _ in range(count):
        if data[at : at + 2] != b"\x02\x02":
            raise GrammarError(f"there is no pair at byte {at}")
        value_at = at + 2 + _DESCRIPTOR_BYTES
        [value], end = axdr.read_elements(data, value_at, 1)
        pairs.append((data[at + 2 : value_at], value))
        at = end
    return pairs, at


def _whole_elements(data: bytes, at: int, count: int) -> tuple[list[Element], int]:
    """Return the elements before the one that is cut."""
    body: list[Element] = []
    try:
        for _ in range(count):
            [element], at = axdr.read_elements(data, at, 1)
            body.append(element)
    except CutError:
        pass
    return body, at


def _is_plausible(plaintext: bytes) -> bool:
    return _PLAIN_START.match(plaintext) is not None


def _name(registers: Sequence[Register]) -> str:
    """Return how the meter calls itself; empty if it does not."""
    names = {
        register.obis[2:5]: register.value
        for register in registers
        if isinstance(register.value, str) and register.obis.b <= register.obis.a
    }
    return next((names[code] for code in _EQUIPMENT if names.get(code)), "")


def _bad(text: str, reason: str, raw: bytes) -> CodecError:
    return CodecError(f"a message of {len(raw)} bytes is whole, but {text}", reason=reason, data=raw)
