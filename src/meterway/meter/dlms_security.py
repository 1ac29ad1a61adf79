"""Ciphered APDUs of DLMS: AES-GCM with the meter's keys, wrong keys told from damage, replays refused.

    sealed  ::= db title body / dc title body       ; general-glo, general-ded: length and 8 bytes of system title
              / ca body / d2 body                   ; the title is the one that the meter named before
    body    ::= length control counter *byte [tag]
    control ::= bits 0 to 3 suite, 4 authenticated (a tag of 12 bytes), 5 encrypted, 6 broadcast key, 7 compressed

The initialisation vector is title and counter; what is authenticated besides is control and authentication key
(IEC 62056-5-3, 9.2.3). Encrypted P1 telegrams have the same form.

Without the authentication key a tag cannot be tested, so the result is not ``verified``; nor is it where the meter
sends no tag. Then what was decrypted must at least begin as the caller says that it does: a wrong key passes that
test once in some million telegrams.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, GCM

from meterway.meter.axdr import GrammarError, read_length
from meterway.meter.keys import Keys

TITLE_BYTES: Final = 8
TAG_BYTES: Final = 12
COUNTER_BYTES: Final = 4

GENERAL: Final = (0xDB, 0xDC)
SERVICE: Final = (0xCA, 0xD2)

_AUTHENTICATED: Final = 0x10
_ENCRYPTED: Final = 0x20
_COMPRESSED: Final = 0x80
_SUITE: Final = 0x0F
_LAST_SUITE: Final = 1
_OPEN, _CIPHERED, _VERIFIED = range(3)
"""How an APDU is protected, rising: anybody could have written it; who has the encryption key; who has both."""
_LIMIT_METERS: Final = 64
"""Meters of which the counter is remembered; all on one line, with one key."""

_FIRST_BLOCK: Final = (2).to_bytes(4, "big")
"""GCM encrypts with AES in counter mode from this block on (NIST SP 800-38D, 7.1)."""


class SealedError(Exception):
    """Why a ciphered APDU was not opened; ``reason`` as in ``CodecError``."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Sealed(NamedTuple):
    """A ciphered APDU."""

    title: bytes
    """System title of the sender."""
    control: int
    counter: int
    content: bytes
    """Ciphertext, and the tag if there is one."""
    end: int
    """Where it ends in what was read."""


class Opened(NamedTuple):
    """What was in it."""

    plaintext: bytes
    verified: bool
    """A tag held: it comes from who has the keys, and is unchanged."""


def read_sealed(data: bytes, at: int = 0, *, title: bytes = b"") -> Sealed:
    """Return the ciphered APDU at ``at``; ``title`` stands in where it names no system title.

    Raises:
        GrammarError: there is none, or not all of it.
    """
    if data[at] in GENERAL:
        size, start = read_length(data, at + 1)
        if size != TITLE_BYTES:
            raise GrammarError(f"a system title has {TITLE_BYTES} bytes, not {size}")
        title = data[start : start + TITLE_BYTES]
        at = start + TITLE_BYTES - 1
    length, start = read_length(data, at + 1)
    end = start + length
    if end > len(data) or length < 1 + COUNTER_BYTES:
        raise GrammarError(f"a ciphered APDU of {length} bytes is not all there")
    counter = int.from_bytes(data[start + 1 : start + 1 + COUNTER_BYTES], "big")
    return Sealed(title, data[start], counter, data[start + 1 + COUNTER_BYTES : end], end)


class Opener:
    """Opens what the meters on one line seal, and remembers what it must to refuse replays.

    ``open`` decrypts; what makes sense is then given to ``accept``, which refuses a counter that did not rise and what
    is less protected than the best so far: anybody can write what is not encrypted and has a tag that nobody can test,
    whoever has the encryption key what has none that holds. Counters of the less protected are forgotten, so that a
    forged one locks nobody out. ``accepted`` tells that plain telegrams are no longer to be trusted. Kept in memory: a
    restart begins anew.
    """

    def __init__(self, keys: Keys, *, fixed: Sequence[bytes] = (), accept_repeats: bool = False) -> None:
        """``fixed``: authentication keys that stand in for a missing one, as a country's meters have all the same.

        ``accept_repeats`` turns the test of counters off, for recordings that are fed again and again.
        """
        self.accepted = False
        """Whether the keys have fitted so far."""
        self.expects_seal = keys.encryption is not None
        """Whether the meter is known to encrypt: then a plain telegram proves nothing, not even before the first
        encrypted one after a restart."""
        self._keys = keys
        self._accept_repeats = accept_repeats
        self._authentication = (keys.authentication,) if keys.authentication else (*fixed, None)
        """Keys to try a tag with; None: meters that authenticate nothing besides the ciphertext."""
        self._protection = _OPEN
        """The best so far."""
        self._counters: dict[bytes, int] = {}

    def open(self, sealed: Sealed, is_plausible: Callable[[bytes], bool]) -> Opened:
        """Return what is in it.

        Raises:
            SealedError: no key, or one that does not fit; damaged; a kind of ciphering that is not known.
        """
        key = self._keys.encryption
        if sealed.control & _SUITE > _LAST_SUITE or sealed.control & _COMPRESSED or not sealed.control & 0x30:
            raise SealedError(f"security control byte {sealed.control:02x} names no known ciphering", "encrypted")
        if key is None:
            raise SealedError("the telegram is encrypted; ask the grid operator for the key of this meter", "encrypted")
        if not sealed.title:
            raise SealedError("the telegram is encrypted, and its meter has not named its system title", "encrypted")
        vector = sealed.title + sealed.counter.to_bytes(COUNTER_BYTES, "big")
        has_tag = bool(sealed.control & _AUTHENTICATED)
        if has_tag:
            for authentication in self._authentication:
                plaintext = _verified(sealed, key, vector, authentication)
                if plaintext is not None:
                    return Opened(plaintext, verified=True)
        plaintext = _plaintext(sealed, key, vector)
        if not is_plausible(plaintext):
            raise self._wrong("the key does not fit: what it decrypts to is no telegram")
        if has_tag and self._keys.authentication:
            raise self._wrong("the encryption key fits, but not the authentication key: the tag does not hold")
        return Opened(plaintext, verified=False)

    def _wrong(self, text: str) -> SealedError:
        """Return the error of a key that does not fit; where it has fitted before, the telegram is damaged."""
        if self.accepted:
            return SealedError(
                "the telegram is damaged or forged: the keys fitted before, now they do not", "bad-checksum"
            )
        return SealedError(text, "bad-key")

    def accept(self, sealed: Sealed, *, is_verified: bool) -> None:
        """Take it for the meter's next telegram.

        Raises:
            SealedError: a replay (``replayed``), or less protected than those before it (``downgraded``).
        """
        protection = _VERIFIED if is_verified else _CIPHERED if sealed.control & _ENCRYPTED else _OPEN
        if protection < self._protection:
            lacks = "authentication tag, though those before it had one"
            if protection == _OPEN and self._protection == _CIPHERED:
                lacks = "encryption, though those before it had it"
            raise SealedError(f"the telegram has no {lacks}", "downgraded")
        if protection > self._protection:
            self._protection = protection
            self._counters.clear()
        last = self._counters.get(sealed.title)
        if last is not None and sealed.counter <= last and not self._accept_repeats:
            text = f"the invocation counter is {sealed.counter}, though {last} was used: a replay, or a meter set back"
            raise SealedError(text, "replayed")
        if last is None and len(self._counters) >= _LIMIT_METERS:
            raise SealedError(f"more than {_LIMIT_METERS} meters speak on this line", "replayed")
        self._counters[sealed.title] = sealed.counter
        self.accepted = True


def seal(
    plaintext: bytes, *, title: bytes, counter: int, keys: Keys, control: int = 0x30, general: int = GENERAL[0]
) -> bytes:
    """Return the ciphered APDU, as a virtual meter sends it.

    Raises:
        ValueError: no encryption key.
    """
    if keys.encryption is None:
        raise ValueError("a meter seals with an encryption key")
    vector = title + counter.to_bytes(COUNTER_BYTES, "big")
    encryptor = Cipher(AES(keys.encryption), GCM(vector)).encryptor()
    is_encrypted, has_tag = bool(control & _ENCRYPTED), bool(control & _AUTHENTICATED)
    encryptor.authenticate_additional_data(_besides(control, keys.authentication, b"" if is_encrypted else plaintext))
    content = encryptor.update(plaintext) if is_encrypted else plaintext
    encryptor.finalize()
    tag = encryptor.tag[:TAG_BYTES] if has_tag else b""
    body = bytes((control,)) + counter.to_bytes(COUNTER_BYTES, "big") + content + tag
    return bytes((general, len(title))) + title + write_length(len(body)) + body


def write_length(length: int) -> bytes:
    """Return a length as ``axdr.read_length`` reads it.

    Raises:
        OverflowError: more than two bytes hold.
    """
    if length < 0x80:  # noqa: PLR2004 - a length of one byte
        return bytes((length,))
    size = 1 if length < 0x100 else 2  # noqa: PLR2004 - what one byte holds
    return bytes((0x80 | size,)) + length.to_bytes(size, "big")


def _besides(control: int, authentication: bytes | None, plaintext: bytes) -> bytes:
    """Return what is authenticated besides the ciphertext."""
    if authentication is None:
        return plaintext
    return bytes((control,)) + authentication + plaintext


def _verified(sealed: Sealed, key: bytes, vector: bytes, authentication: bytes | None) -> bytes | None:
    """Return the plaintext if the tag holds, else None."""
    content, tag = sealed.content[:-TAG_BYTES], sealed.content[-TAG_BYTES:]
    is_encrypted = bool(sealed.control & _ENCRYPTED)
    if len(tag) < TAG_BYTES:
        return None
    decryptor = Cipher(AES(key), GCM(vector, tag, min_tag_length=TAG_BYTES)).decryptor()
    decryptor.authenticate_additional_data(_besides(sealed.control, authentication, b"" if is_encrypted else content))
    try:
        plaintext = decryptor.update(content) if is_encrypted else content
        decryptor.finalize()
    except InvalidTag:
        return None
    return plaintext


def _plaintext(sealed: Sealed, key: bytes, vector: bytes) -> bytes:
    """Return the plaintext, whatever the tag."""
    content = sealed.content[:-TAG_BYTES] if sealed.control & _AUTHENTICATED else sealed.content
    if not sealed.control & _ENCRYPTED:
        return content
    return Cipher(AES(key), CTR(vector + _FIRST_BLOCK)).decryptor().update(content)
