"""Wireless M-Bus, the part that OMS uses: what a receiver hears becomes telegrams.

What receivers put around a frame is in ``wmbus_receivers``, the frames are in ``wmbus_frames``, what stands between
the frame and the data in ``wmbus_layers``, keys in ``wmbus_security``, compact frames in ``wmbus_compact``; the data
records are those of wired M-Bus (``mbus_records``).

Source: EN 13757-3:2018, EN 13757-4:2019, EN 13757-7:2018; OMS specification volume 2, issue 4.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import tzinfo
from typing import Final, NamedTuple

from meterway.core.errors import BadDataError, SetupError
from meterway.meter.codec import CodecError
from meterway.meter.keys import NO_KEYS, Keys
from meterway.meter.mbus import Identity, status_register
from meterway.meter.mbus_address import SecondaryAddress
from meterway.meter.mbus_codes import GROUP_A, OTHER_MEDIUM
from meterway.meter.mbus_records import read_records
from meterway.meter.telegram import Telegram
from meterway.meter.wmbus_compact import Formats
from meterway.meter.wmbus_diehl import address_of, plain_frame
from meterway.meter.wmbus_layers import (
    COMPACT,
    REFUSALS,
    Header,
    LayerError,
    Protection,
    identity_of,
    read_header,
    read_link,
    read_protection,
    read_session,
)
from meterway.meter.wmbus_makers import as_records
from meterway.meter.wmbus_receivers import LIMIT_BYTES, QUIRKS, Framer, Heard
from meterway.meter.wmbus_security import AUTHENTICATED, CLEAR, Guard

__all__ = ["LIMIT_BYTES", "QUIRKS", "WmbusDecoder"]

_HUSH_S: Final = 600.0
"""For so long an error that every frame of a meter gives is not said again."""
_HUSHED: Final = frozenset({"encrypted", "bad-key", "bad-syntax"})
_LIMIT_HUSHED: Final = 1024
_PERHAPS_NONE: Final = frozenset({"bad-syntax", "bad-key", "bad-checksum"})
"""Reasons for which it may be no frame at all, or one with bytes of the receiver behind it."""


class _Layers(NamedTuple):
    """What stands before the data."""

    level: int
    """How the session protects them."""
    checked: bool
    """The session's checksum held."""
    protection: Protection
    header: Header


class WmbusDecoder:
    """Turns what a receiver of wireless M-Bus hears into telegrams; a ``meter.codec.Decoder``.

    ``address`` is the meter's number (8 digits), the 16 of ``mbus_address.SecondaryAddress``, or ``Telegram.meter``:
    only this meter's frames are taken, others are counted in ``other_frames``. Without an address every meter's are.
    A meter behind a radio module goes by its own number, not by the module's.

    A telegram is ``verified`` if a MAC held, or if it was sent in the clear and no key says that it should not be; what
    was encrypted without a MAC (mode 5, sessions) is not. Mode 5 and sessions cannot be told from a recording of
    themselves; the same content is handed on as often as it is heard.

    An error that every frame of a meter gives (encrypted without a key, wrong key, no data of OMS) comes once in ten
    minutes. At most ``LIMIT_BYTES`` are buffered.

    Raises:
        SetupError: an address that is none; a quirk that does not exist, or more than one (``wmbus_receivers``).
    """

    def __init__(
        self,
        zone: tzinfo,
        *,
        keys: Keys = NO_KEYS,
        address: str = "",
        quirks: Collection[str] = (),
        accept_repeats: bool = False,
    ) -> None:
        """``zone`` is that of the meters' clocks; ``accept_repeats`` is for recordings (``wmbus_security.Guard``)."""
        self.skipped_bytes = 0
        self.other_frames = 0
        """Frames of other meters than ``address``."""
        self.repeated_frames = 0
        """Frames that a repeater sent once more."""
        self._wants = _wanted(address)
        self._zone = zone
        self._framer = Framer(quirks)
        self._keys = keys
        self._guard = Guard(keys.encryption, accept_repeats=accept_repeats)
        self._formats = Formats()
        self._said: OrderedDict[tuple[str, str], float] = OrderedDict()

    @property
    def buffered_bytes(self) -> int:
        """See ``Decoder``; at most ``LIMIT_BYTES``."""
        return self._framer.buffered_bytes

    def feed(self, data: bytes, now: float) -> list[Telegram | CodecError]:
        """Take the next bytes; return what they completed, in order."""
        return self._decode(self._framer.feed(data), now)

    def idle(self, now: float) -> list[Telegram | CodecError]:
        """Give up the frame that was begun; return what is in it nevertheless."""
        return self._decode(self._framer.flush(), now)

    def _decode(self, items: Iterable[Heard | CodecError], now: float) -> list[Telegram | CodecError]:
        found: list[Telegram | CodecError] = []
        for item in items:
            read = self._read(item, now) if isinstance(item, Heard) else item
            if read is not None:
                found.append(read)
        self.skipped_bytes = self._framer.skipped_bytes
        return found

    def _read(self, heard: Heard, now: float) -> Telegram | CodecError | None:
        try:
            return self._telegram(heard, heard.content)
        except BadDataError as error:
            problem = error
        for strays in range(1, heard.strays + 1 if problem.reason in _PERHAPS_NONE else 1):
            with suppress(BadDataError):
                return self._telegram(heard, heard.content[:-strays])
        if not heard.checked and problem.reason in _PERHAPS_NONE:
            self._framer.reject(heard)
        return self._error(heard, problem, now)

    def _error(self, heard: Heard, problem: BadDataError, now: float) -> CodecError | None:
        name = str(identity_of(address_of(heard.content)))
        if problem.reason in _HUSHED:
            last = self._said.get((name, problem.reason))
            if last is not None and now - last < _HUSH_S:
                return None
            self._said[name, problem.reason] = now
            self._said.move_to_end((name, problem.reason))
            if len(self._said) > _LIMIT_HUSHED:
                self._said.popitem(last=False)
        text = f"the radio meter {name} was heard, but {problem}"
        return CodecError(text, reason=problem.reason, data=heard.raw)

    def _telegram(self, heard: Heard, content: bytes) -> Telegram | None:
        link = read_link(content).address
        try:
            layers = self._layers(plain_frame(content))
        except BadDataError:
            if self._is_ours(link):
                raise
            layers = None
        if layers is None or not self._is_ours(layers.header.address):
            self.other_frames += 1
            return None
        header, protection = layers.header, layers.protection
        name = self._name(header.address)
        data, level = self._guard.open(header, protection, name)
        level = max(level, layers.level)
        body = self._body(header, data)
        records = read_records(body, device_type=header.identity.device_type, zone=self._zone)
        if not self._guard.accept(name, level, protection):
            self.repeated_frames += 1
            return None
        registers = records.registers
        if header.status is not None:
            registers += (status_register(GROUP_A.get(header.identity.device_type, OTHER_MEDIUM), header.status),)
        return Telegram(
            "wmbus",
            registers,
            heard.raw,
            str(header.identity),
            records.time,
            checked=heard.checked or layers.checked or level == AUTHENTICATED,
            verified=level == AUTHENTICATED or (level == CLEAR and self._keys.encryption is None),
        )

    def _layers(self, content: bytes) -> _Layers | None:
        """Return what stands before the data; None where it is encrypted, and not for us."""
        link = read_link(content)
        session = read_session(link.rest)
        rest, level = session.rest, CLEAR
        if session.number:
            if not self._is_ours(link.address):
                return None
            rest, level = self._guard.open_session(session, link.address, self._name(link.address))
        protection = read_protection(rest)
        return _Layers(level, bool(session.number), protection, read_header(protection.rest, link.address))

    def _body(self, header: Header, data: bytes) -> bytes:
        """Return the records."""
        if header.ci in REFUSALS:
            raise BadDataError(f"it says an error or alarm: {data.hex().upper()}", reason="refused")
        if header.ci not in COMPACT:
            self._formats.learn(data)
            return as_records(header.identity, data)
        body = self._formats.expand(data.removeprefix(b"\x2f\x2f"))
        if body is None:
            raise LayerError("its compact frame is of a form that no full frame has taught yet; wait for one")
        return body

    def _is_ours(self, address: bytes) -> bool:
        return self._wants is None or self._wants(identity_of(address))

    def _name(self, address: bytes) -> bytes:
        """Return under which name the guard knows a meter: with an address there is but one."""
        return address if self._wants is None else b""


def _wanted(address: str) -> Callable[[Identity], bool] | None:
    """Return what tells the meter at ``address`` from others; None where every one is wanted."""
    written = address.strip().upper()
    if not written:
        return None
    if _NAME.fullmatch(written):
        return lambda identity: str(identity) == written
    try:
        return SecondaryAddress.parse(written).matches
    except BadDataError as error:
        raise SetupError(f"{error}; a radio meter's address is the 8 digits of its number") from error


_NAME: Final = re.compile(r"[0-9A-F][A-Z]{3}[0-9A-F]{10}")
"""How a meter's telegrams name it."""
