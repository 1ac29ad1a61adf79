"""Sealing the requests and answers of an association with the global keys, and proving to hold them.

    sealed ::= tag length control counter(4) *byte tag(12)     ; glo-get-request and its like
             | db length title length control ...              ; general-glo-ciphering, any service
    proof  ::= control counter(4) tag(12)                      ; GMAC of the other side's challenge

Both sides use it: a client, and a virtual meter. Source: IEC 62056-5-3, 9.2.3 and 9.2.7.
"""

from collections.abc import Callable
from hmac import compare_digest
from typing import Final

from meterway.core.errors import SetupError
from meterway.meter.axdr import GrammarError
from meterway.meter.dlms_security import (
    COUNTER_BYTES,
    GENERAL,
    TAG_BYTES,
    TITLE_BYTES,
    Opener,
    SealedError,
    read_sealed,
    seal,
)
from meterway.meter.keys import Keys

_SERVICES: Final = {0x01: 0x21, 0x08: 0x28, 0xC0: 0xC8, 0xC3: 0xCB, 0xC4: 0xCC, 0xC7: 0xCF}
"""First byte of an APDU when it is sealed, by that of the plain one."""

_AUTHENTICATED, _ENCRYPTED = 0x10, 0x20
_PROOF_BYTES: Final = 1 + COUNTER_BYTES + TAG_BYTES
_LAST_COUNTER: Final = 2**32 - 1


class Protection:
    """What one side seals and opens in one association; ``counter`` is the next to be used, and only rises.

    Everything is encrypted and authenticated. What comes sealed must carry a tag that holds and a counter that rose;
    ``dlms_security.Opener`` sees to it.
    """

    def __init__(self, keys: Keys, title: bytes, counter: int, *, suite: int = 0) -> None:
        """``title`` is our system title; ``peer`` must be set once the other side has named its own.

        Raises:
            SetupError: a key is missing.
        """
        if keys.encryption is None or keys.authentication is None:
            raise SetupError(
                "this meter asks for an encryption key and an authentication key; ask the grid operator for both, and "
                "put them into the key file, one a line"
            )
        self.peer = b""
        self.counter = counter
        self._keys = keys
        self._title = title
        self._suite = suite
        self._opener = Opener(keys)

    def seal(self, apdu: bytes, *, is_general: bool = False) -> bytes:
        """Return the ciphered APDU.

        Raises:
            SetupError: the counter is used up.
        """
        control = _AUTHENTICATED | _ENCRYPTED | self._suite
        sealed = seal(apdu, title=self._title, counter=self._next(), keys=self._keys, control=control)
        return sealed if is_general else bytes((_SERVICES[apdu[0]],)) + sealed[2 + TITLE_BYTES :]

    def open(self, apdu: bytes, is_plausible: Callable[[bytes], bool]) -> bytes:
        """Return the plain APDU in a ciphered one; ``is_plausible`` as for ``Opener.open``.

        Raises:
            SealedError: plain, sealed with another key, damaged or replayed.
            GrammarError: cut, or empty.
        """
        if apdu[:1] not in _SEALED:
            raise SealedError("a plain answer came in a ciphered association", "downgraded")
        sealed = read_sealed(apdu, title=self.peer)
        opened = self._opener.open(sealed, is_plausible)
        if not opened.verified:
            raise SealedError("an answer has no authentication tag", "downgraded")
        self._opener.accept(sealed, is_verified=True)
        if not opened.plaintext:
            raise GrammarError("a ciphered APDU is empty")
        return opened.plaintext

    def prove(self, challenge: bytes) -> bytes:
        """Return the proof of the other side's challenge."""
        return self._proof(challenge, self._title, self._next())

    def is_proof(self, proof: bytes, challenge: bytes) -> bool:
        """Return whether the other side proved our challenge."""
        if len(proof) != _PROOF_BYTES or not self.peer:
            return False
        counter = int.from_bytes(proof[1 : 1 + COUNTER_BYTES], "big")
        return compare_digest(self._proof(challenge, self.peer, counter), proof)

    def _proof(self, challenge: bytes, title: bytes, counter: int) -> bytes:
        control = _AUTHENTICATED | self._suite
        sealed = seal(challenge, title=title, counter=counter, keys=self._keys, control=control)
        tag = sealed[-TAG_BYTES:]
        return bytes((control,)) + counter.to_bytes(COUNTER_BYTES, "big") + tag

    def _next(self) -> int:
        counter = self.counter
        if counter > _LAST_COUNTER:
            raise SetupError("the invocation counter is used up; the meter needs new keys")
        self.counter += 1
        return counter


_SEALED: Final = frozenset(bytes((tag,)) for tag in (*GENERAL, *_SERVICES.values()))
