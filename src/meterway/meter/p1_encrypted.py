"""Encrypted P1 telegrams: a P1 telegram within one general-glo-ciphering APDU, without any frame around it.

    telegram = [identification] db 08 title(8) length control counter(4) *byte tag(12)

Source: Luxembourg, "Specifications for the Smarty P1 port" (E-Meter P1 specification 1.1.3); the same in Lithuania,
Poland, Austria. Luxembourg's meters all authenticate with one public key, so their owners get the encryption key alone.
Meters in Lithuania and Poland send the identification line of the telegram in the clear, before the ciphertext.
"""

import re
from dataclasses import replace
from datetime import tzinfo
from typing import Final

from meterway.meter import p1
from meterway.meter.axdr import GrammarError, read_length
from meterway.meter.codec import CodecError
from meterway.meter.crc import crc16_arc
from meterway.meter.dlms_security import Opener, Sealed, SealedError, read_sealed
from meterway.meter.keys import NO_KEYS, Keys
from meterway.meter.p1 import P1Decoder
from meterway.meter.telegram import Telegram

SMARTY_AUTHENTICATION_KEY: Final = bytes.fromhex("00112233445566778899AABBCCDDEEFF")
"""The same in all meters of Luxembourg, and public; a tag made with it proves that the encryption key is right."""

LIMIT_FRAME_BYTES: Final = 8 * 1024
"""The longest encrypted telegram; real ones have up to 3 KB. What claims to be longer is noise."""

_CLEAR_BYTES: Final = 128
_LIMIT_CHUNK_BYTES: Final = 4 * 1024
LIMIT_BYTES: Final = LIMIT_FRAME_BYTES + _LIMIT_CHUNK_BYTES + _CLEAR_BYTES + p1.LIMIT_BYTES
"""The most that a decoder buffers."""

_TITLE_END: Final = 10
_HEADER = re.compile(rb"\xdb\x08[A-Za-z]{3}.{5}(?:\x81.|\x82..)[\x10\x11\x20\x21\x30\x31]", re.DOTALL)
_UNDECIDED = re.compile(rb"\xdb(?:\x08.{0,11})?\Z", re.DOTALL)
_IDENTIFICATION = re.compile(rb"(/[A-Za-z]{3}[ -.0-~]{0,92})[\r\n]+\Z")
_PLAIN_START = re.compile(rb"(?:/[A-Za-z]{3}|\d{1,3}-\d{1,3}:\d)[ -~]*[\r\n]+[\r\n -~]{16}")
"""How a telegram begins; what a wrong key makes of one does not."""

Items = list[Telegram | CodecError]


class EncryptedP1Decoder:
    """Bytes of an encrypted P1 port in, telegrams out; a ``meter.codec.Decoder``.

    A telegram is ``checked`` if its own CRC or the authentication tag held, ``verified`` if the tag did; then its CRC
    is not asked for, a tag proves more. Plain telegrams are read until the first encrypted one was opened, then refused
    (``downgraded``). Other errors of plain text are not reported: most of it is ciphertext that was damaged.
    """

    def __init__(self, zone: tzinfo, *, keys: Keys = NO_KEYS, accept_repeats: bool = False) -> None:
        """``zone`` is that of the meter's clock; ``accept_repeats`` is for recordings, see ``dlms_security.Opener``."""
        self.skipped_bytes = 0
        self._zone = zone
        self._opener = Opener(keys, fixed=(SMARTY_AUTHENTICATION_KEY,), accept_repeats=accept_repeats)
        self._plain = P1Decoder(zone)
        self._buffer = b""
        self._clear = b""
        """The last bytes before an encrypted telegram: perhaps its identification."""
        self._needed_bytes = 0

    @property
    def buffered_bytes(self) -> int:
        """See ``Decoder``; never more than ``LIMIT_BYTES``."""
        return len(self._buffer) + len(self._clear) + self._plain.buffered_bytes

    def feed(self, data: bytes, now: float) -> Items:
        """Take the next bytes; return what they completed, in order (see ``Decoder``)."""
        items: Items = []
        for offset in range(0, len(data), _LIMIT_CHUNK_BYTES):
            self._buffer += data[offset : offset + _LIMIT_CHUNK_BYTES]
            if len(self._buffer) >= self._needed_bytes:
                items += self._advance(now, final=False)
        return items

    def idle(self, now: float) -> Items:
        """Give up what waits (see ``Decoder``)."""
        items = self._advance(now, final=True)
        items += self._text(self._plain.idle(now))
        self._clear = b""
        self.skipped_bytes = self._plain.skipped_bytes
        return items

    def _advance(self, now: float, *, final: bool) -> Items:
        items: Items = []
        data = self._buffer
        begin = scan = self._needed_bytes = 0
        while header := _HEADER.search(data, scan):
            at = header.start()
            length, start = read_length(data, at + _TITLE_END)
            end = start + length
            if length > LIMIT_FRAME_BYTES - (start - at):
                scan = at + 1
                continue
            if end > len(data) and not final:
                break
            items += self._outside(data[begin:at], now)
            begin, scan = at, at + 1
            if end > len(data):
                text = f"an encrypted telegram of {end - at} bytes broke off after {len(data) - at}"
                items.append(CodecError(text, reason="truncated", data=data[at:]))
                continue
            found, is_whole = self._open(data[at:end], now)
            items += found
            if is_whole:
                begin = scan = end
        rest = self._rest(data, header, final=final)
        items += self._outside(data[begin:rest], now)
        self._buffer = data[rest:]
        self.skipped_bytes = self._plain.skipped_bytes
        return items

    def _rest(self, data: bytes, header: re.Match[bytes] | None, *, final: bool) -> int:
        """Return where the bytes begin that must wait for more."""
        if header:
            length, start = read_length(data, header.start() + _TITLE_END)
            self._needed_bytes = start + length - header.start()
            return header.start()
        undecided = None if final else _UNDECIDED.search(data, max(0, len(data) - _TITLE_END - 3))
        return undecided.start() if undecided else len(data)

    def _outside(self, data: bytes, now: float) -> Items:
        if not data:
            return []
        self._clear = (self._clear + data)[-_CLEAR_BYTES:]
        return self._text(self._plain.feed(data, now))

    def _text(self, items: Items) -> Items:
        """Return what is to be made of plain telegrams."""
        telegrams = [item for item in items if isinstance(item, Telegram)]
        if not self._opener.accepted:
            return [replace(telegram, verified=not self._opener.expects_seal) for telegram in telegrams]
        text = "a plain telegram came, though those before it were encrypted"
        return [CodecError(text, reason="downgraded", data=telegram.raw) for telegram in telegrams]

    def _open(self, frame: bytes, now: float) -> tuple[Items, bool]:
        """Return what is in an encrypted telegram, and whether it was one, so that the next begins behind it."""
        try:
            sealed = read_sealed(frame)
            plaintext, is_verified = self._opener.open(sealed, _is_plausible)
        except SealedError as error:
            return [CodecError(str(error), reason=error.reason, data=frame)], False
        except GrammarError as error:
            return [CodecError(f"an encrypted telegram has {error}", reason="bad-syntax", data=frame)], False
        items = self._telegrams(sealed, plaintext, frame, now, is_verified=is_verified)
        if not any(isinstance(item, Telegram) for item in items):
            return items, False
        try:
            self._opener.accept(sealed, is_verified=is_verified)
        except SealedError as error:
            return [CodecError(str(error), reason=error.reason, data=frame)], True
        return items, True

    def _telegrams(self, sealed: Sealed, plaintext: bytes, frame: bytes, now: float, *, is_verified: bool) -> Items:
        clear = _IDENTIFICATION.search(self._clear)
        if not plaintext.startswith(b"/"):
            identification = clear[1] if clear else b"/" + sealed.title[:3] + b"5" + sealed.title.hex().encode()
            plaintext = identification + b"\r\n\r\n" + plaintext
        if is_verified:
            plaintext = _with_checksum(plaintext)
        self._plain.idle(now)
        inner = P1Decoder(self._zone)
        items: Items = []
        for item in [*inner.feed(plaintext, now), *inner.idle(now)]:
            if isinstance(item, CodecError):
                items.append(CodecError(f"decrypted, {item}", reason=item.reason, data=frame))
            else:
                checked = item.checked or is_verified
                items.append(replace(item, protocol="p1-encrypted", raw=frame, checked=checked, verified=is_verified))
        return items


def _with_checksum(plaintext: bytes) -> bytes:
    """Return the telegram with the CRC that it should have; unchanged where it has no end."""
    text, end, _ = plaintext.rpartition(b"!")
    return text + end + b"%04X\r\n" % crc16_arc(text + end) if end else plaintext


def _is_plausible(plaintext: bytes) -> bool:
    return _PLAIN_START.match(plaintext) is not None
