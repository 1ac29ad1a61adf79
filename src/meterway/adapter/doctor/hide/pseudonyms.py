"""Other names for what identifies a meter, of the same length and kind, the same for the same each time. Pure.

They are keyed with a secret that nobody keeps, so that trying all numbers does not lead back.
"""

import re
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

_HEX: Final = re.compile(rb"[0-9A-F]+|[0-9a-f]+")
_HEX_TEXT: Final = re.compile(rb"(?:3[0-9]|4[1-9A-Fa-f]|5[0-9Aa]|6[1-9A-Fa-f]|7[0-9Aa]){4,}")
"""Letters and digits, in hex digits."""
_PRINTABLE: Final = re.compile(rb"[ -~]+\x00*")
_LETTERS: Final = 26
_HEX_LETTERS: Final = 6
_NIBBLE: Final = 0x0F
_TENS: Final = 10
_HARMLESS: Final = bytes(value for value in range(0x80, 0xD0) if value not in {0x81, 0x82, 0xA5, 0xDB})
"""Bytes that no protocol here begins or ends a frame with, or a list, or a length."""


class Pseudonyms:
    """Makes pseudonyms; those of one object agree with each other."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def text(self, run: bytes) -> bytes:
        """Return a digit for a digit, a letter for a letter, of hex digits hex digits; the rest stays.

        A text that is written as hex digits, as on a P1 port, is one again.
        """
        if _HEX_TEXT.fullmatch(run):
            written = self.text(bytes.fromhex(run.decode())).hex().encode()
            return written if run.lower() == run else written.upper()
        letters = _HEX_LETTERS if _HEX.fullmatch(run) else _LETTERS
        return self._changed(run, lambda old, noise: _character(old, noise, letters))

    def bcd(self, data: bytes) -> bytes:
        """Return other decimal digits, two a byte; what is none stays."""
        return self._changed(
            data, lambda old, noise: _nibble(old >> 4, noise >> 4) << 4 | _nibble(old & _NIBBLE, noise)
        )

    def octets(self, data: bytes) -> bytes:
        """Return a printable text as ``text`` does, other bytes as harmless ones."""
        if _PRINTABLE.fullmatch(data):
            return self.text(data)
        return self._changed(data, lambda _, noise: _HARMLESS[noise % len(_HARMLESS)])

    def shuffled(self, data: bytes) -> bytes:
        """Return the same bytes in another order: their statistics stay, what they say goes."""
        noise = self._noise(data, 4 * len(data))
        order = sorted(range(len(data)), key=lambda at: noise[4 * at : 4 * at + 4])
        return bytes(data[at] for at in order)

    def _changed(self, data: bytes, change: Callable[[int, int], int]) -> bytes:
        noise = self._noise(data, len(data))
        return bytes(change(old, new) for old, new in zip(data, noise, strict=True))

    def _noise(self, data: bytes, size: int) -> bytes:
        seed = blake2b(data, key=self._secret, digest_size=32).digest()
        blocks = (blake2b(number.to_bytes(8, "big"), key=seed).digest() for number in range(-(-size // 64)))
        return b"".join(blocks)[:size]


def _character(old: int, noise: int, letters: int) -> int:
    for first, count in ((ord("0"), _TENS), (ord("A"), letters), (ord("a"), letters)):
        if first <= old < first + count:
            return first + noise % count
    return old


def _nibble(old: int, noise: int) -> int:
    return (noise & _NIBBLE) % _TENS if old < _TENS else old
