"""Keys of radio meters: security modes 5 and 7, the session of the extended link layer, what must not be believed.

    mode 5    AES-CBC with the meter's key; vector: its address, then the access number eight times
    mode 7    AES-CBC with a key made from the meter's and the message counter; vector: zeros
    session   AES-CTR with the meter's key; vector: its address, control field, session number, zeros

The clear data of modes 5 and 7 begin with 2F 2F, those of a session with a checksum: so a wrong key is noticed, one of
65,536 by chance passes. Only a MAC (AES-CMAC, of the layer AFL) proves that the meter wrote them.

Mode 5 and sessions have no counter that must rise, so what was recorded can be sent again unnoticed; and mode 5 lets
clear records stand behind the encrypted ones. A counter that
comes with a MAC must rise. A frame that is less protected than the best one so far of its meter is not believed.

Source: EN 13757-7:2018, 7.6, 7.7; EN 13757-4:2019, 13.2; OMS specification volume 2, 9 and annex N; NIST SP 800-38B.
"""

from collections import OrderedDict
from dataclasses import dataclass
from hmac import compare_digest
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, CTR
from cryptography.hazmat.primitives.cmac import CMAC

from meterway.core.errors import BadDataError
from meterway.meter.wmbus_frames import crc16_en13757
from meterway.meter.wmbus_layers import Header, LayerError, Protection, Session

CLEAR, ENCRYPTED, AUTHENTICATED = range(3)
"""How a frame is protected, rising."""

MODE_5: Final = 5
MODE_7: Final = 7
_FIRST_UNUSED_MODE: Final = 14
"""Modes from it on mean nothing: old meters send anything in these bits, and do not encrypt."""
_BLOCK_BYTES: Final = 16
_CHECK: Final = b"\x2f\x2f"
_FOR_ENCRYPTION: Final = b"\x00"
_FOR_MAC: Final = b"\x01"
_PADDING: Final = b"\x07" * 7
_STRONG_MAC_BYTES: Final = 8
_CRC_BYTES: Final = 2
_REPEATED: Final = 0x10
_LIMIT_METERS: Final = 1024


class Cleared(NamedTuple):
    """What was encrypted, in the clear."""

    data: bytes
    level: int
    """``CLEAR``, ``ENCRYPTED`` or ``AUTHENTICATED``."""


@dataclass(slots=True)
class _Memory:
    """What is remembered of a meter."""

    level: int = CLEAR
    counter: int = -1
    mac: bytes = b""


class Guard:
    """Opens frames with one key, and remembers of at most 1024 meters what it must so as to refuse forgeries.

    ``open_session`` and ``open`` decrypt; what makes sense is then given to ``accept``. Kept in memory: a restart
    begins anew. The meter not heard for longest is forgotten.
    """

    def __init__(self, key: bytes | None, *, accept_repeats: bool = False) -> None:
        """``accept_repeats`` turns the test of counters off, for recordings that are fed again and again."""
        self._key = key
        self._accept_repeats = accept_repeats
        self._meters: OrderedDict[bytes, _Memory] = OrderedDict()

    def open_session(self, session: Session, address: bytes, meter: bytes) -> Cleared:
        """Return what a session of the extended link layer carries; ``meter`` is the name in the memory.

        Raises:
            BadDataError: no key, or it does not fit (``encrypted``, ``bad-key``, ``bad-checksum``).
        """
        data = session.rest
        if session.is_encrypted and self._key is not None:
            vector = session_vector(address, session.control, session.number)
            data = Cipher(AES(self._key), CTR(vector)).decryptor().update(data)
        if len(data) > _CRC_BYTES and crc16_en13757(data[_CRC_BYTES:]) == int.from_bytes(data[:_CRC_BYTES], "little"):
            is_opened = session.is_encrypted and self._key is not None
            return Cleared(data[_CRC_BYTES:], ENCRYPTED if is_opened else CLEAR)
        if not session.is_encrypted:
            raise BadDataError("the checksum of its session does not hold", reason="bad-checksum")
        if self._key is None:
            raise _no_key("its session is encrypted")
        raise self._wrong(meter)

    def open(self, header: Header, protection: Protection, meter: bytes) -> Cleared:
        """Return the data behind a header; a MAC is tested where there is a key for it.

        Raises:
            BadDataError: as ``open_session``; ``bad-syntax`` where less is there than is said to be encrypted.
        """
        level, keys = CLEAR, None
        if self._key is not None and protection.counter:
            keys = ephemeral_keys(self._key, protection.counter, header.address[2:6])
        if keys and protection.mac:
            if not compare_digest(message_mac(keys.mac, protection), protection.mac):
                raise self._wrong(meter)
            level = AUTHENTICATED if len(protection.mac) >= _STRONG_MAC_BYTES else CLEAR
        size = _BLOCK_BYTES * header.blocks
        if not size or header.mode >= _FIRST_UNUSED_MODE or not header.mode:
            return Cleared(header.data, level)
        if header.mode not in {MODE_5, MODE_7}:
            raise BadDataError(f"its data are encrypted in mode {header.mode}, which is not known", reason="encrypted")
        if size > len(header.data):
            raise LayerError(f"of {size} bytes of encrypted data only {len(header.data)} are there")
        data = self._decrypt(header, keys, size)
        if data.startswith(_CHECK):
            return Cleared(data, level if self._key is None else max(level, ENCRYPTED))
        if self._key is None:
            raise _no_key(f"its data are encrypted (mode {header.mode})")
        raise self._wrong(meter)

    def _decrypt(self, header: Header, keys: "Ephemeral | None", size: int) -> bytes:
        """Return the data; as they are without a key, for some receivers decrypt."""
        if self._key is None:
            return header.data
        key, vector = self._key, header.address + bytes((header.access,)) * 8
        if header.mode == MODE_7:
            if keys is None:
                raise LayerError("it is encrypted in mode 7, but has no message counter")
            key, vector = keys.encryption, bytes(_BLOCK_BYTES)
        decryptor = Cipher(AES(key), CBC(vector)).decryptor()
        return decryptor.update(header.data[:size]) + decryptor.finalize() + header.data[size:]

    def _wrong(self, meter: bytes) -> BadDataError:
        """Return the error of a key that does not fit; where it has fitted before, the frame is damaged."""
        memory = self._meters.get(meter)
        if memory is not None and memory.level > CLEAR:
            text = "it is damaged or forged: the key fitted before, now it does not"
            return BadDataError(text, reason="bad-checksum")
        return BadDataError("the key does not fit: what it decrypts to is no data", reason="bad-key")

    def accept(self, meter: bytes, level: int, protection: Protection) -> bool:
        """Take a frame for the meter's next one; False where a repeater sent the last one once more.

        Raises:
            BadDataError: less protected than those before it (``downgraded``), or a counter of the past
                (``replayed``).
        """
        memory = self._meters.setdefault(meter, _Memory())
        self._meters.move_to_end(meter)
        if len(self._meters) > _LIMIT_METERS:
            self._meters.popitem(last=False)
        if level < memory.level:
            names = ("in the clear", "encrypted, but not authenticated")
            text = f"it is {names[level]}, though those before it were better protected"
            raise BadDataError(text, reason="downgraded")
        if level == AUTHENTICATED and not self._accept_repeats:
            counter = int.from_bytes(protection.counter, "little")
            if counter == memory.counter and protection.mac == memory.mac:
                return False
            if counter <= memory.counter:
                text = f"its counter is {counter}, though {memory.counter} was used: a replay, or a meter set back"
                raise BadDataError(text, reason="replayed")
            memory.counter, memory.mac = counter, protection.mac
        memory.level = level
        return True


class Ephemeral(NamedTuple):
    """The keys of one message."""

    encryption: bytes
    mac: bytes


def session_vector(address: bytes, control: int, number: bytes) -> bytes:
    """Return the initialisation vector of a session; without the bit that a repeater sets in the control field."""
    return address + bytes((control & ~_REPEATED,)) + number + b"\x00\x00\x00"


def ephemeral_keys(key: bytes, counter: bytes, number: bytes) -> Ephemeral:
    """Return the keys of a message of a meter: ``counter`` and ``number`` are four bytes each, as sent."""
    return Ephemeral(*(_cmac(key, constant + counter + number + _PADDING) for constant in (_FOR_ENCRYPTION, _FOR_MAC)))


def message_mac(key: bytes, protection: Protection) -> bytes:
    """Return the MAC that a message must have, as long as the one it has."""
    rest, control, number, counter, mac, length = protection
    return _cmac(key, control + number + counter + length + rest)[: len(mac)]


def _cmac(key: bytes, data: bytes) -> bytes:
    made = CMAC(AES(key))
    made.update(data)
    return made.finalize()


def _no_key(what: str) -> BadDataError:
    return BadDataError(f"{what}; ask who installed the meter for its key", reason="encrypted")
