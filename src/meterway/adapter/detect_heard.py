"""What was heard at a place, without asking: whose is it, and what does each family make of it? No wait, no clock."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from meterway.adapter.choose import Candidate, candidate_of, candidates, ranked
from meterway.adapter.detect_questions import Answered, Known, Verdict
from meterway.adapter.detect_radio import PROTOCOL as RADIO
from meterway.adapter.detect_radio import radio_meters
from meterway.core.errors import SetupError
from meterway.core.zones import find_zone
from meterway.meter.codec import CodecError, Decoder
from meterway.meter.diagnose import Finding, diagnose, hear
from meterway.meter.driver import MeterSetup
from meterway.meter.family import Family, Line
from meterway.meter.keys import NO_KEYS, Keys
from meterway.meter.recognise import Recognised, recognise
from meterway.meter.telegram import Telegram
from meterway.plugins import load_driver, make_decoder

_WINDOW_BYTES: Final = 4096
"""Signatures lie within this; some take the square of what they are looked for in."""
_ANY: Final = "sml"
"""Any protocol does to say that bytes are of none."""
_QUOTED_BYTES: Final = 40
_GATEWAY: Final = (
    "set the gateway's serial line to what the meter wants (9600 8N1 for most optical heads, 115200 8N1 for P1), or "
    "let it speak RFC 2217 and name it rfc2217://HOST:PORT: then all settings are tried"
)
_PATH: Final = (
    "look in the device's manual for the path or topic of its readings; `meterway drivers --protocol json` lists what "
    "is understood, and a family of your own is a file"
)
_AFTER_ALL_S: Final = 3600.0
"""After so long a source of messages has said all that belongs to one reading."""


class Judge:
    """Says what bytes are. ``is_messages``: each chunk is one whole message; ``is_shared``: others may send as well."""

    def __init__(self, known: Known, *, is_messages: bool = False, is_shared: bool = False) -> None:
        self._known = known
        pushes = (family.push for family in known.families)
        self._lists = tuple(push for push in pushes if push is not None and (push.text or push.positions))
        self._is_messages = is_messages
        self._is_shared = is_shared

    def recognise(self, data: bytes) -> Recognised | None:
        """Return the protocol of which something begins near the end of ``data``."""
        return recognise(data[-_WINDOW_BYTES:])

    def decoder(self, protocol: str) -> Decoder:
        """Return a decoder for a meter of which only the protocol is known."""
        return self._plain(protocol, self._known.keys)

    def take(self, chunks: Sequence[bytes], line: Line | None) -> Verdict:
        """Return the meters that are heard in ``chunks``; ``line`` is how it was set, None where nobody knows."""
        fitting = candidates(chunks, self._families(chunks), self._of_family, line)
        best = fitting[0] if fitting else None
        if best is None or not (best.heard.telegrams or best.locked):
            return Verdict(findings=self._why_not(chunks, line), outcome="no telegram")
        protocol = best.family.protocol
        if protocol == RADIO:
            decoders = self._plain(RADIO, self._known.keys), self._plain(RADIO, NO_KEYS)
            verdict = radio_meters(chunks, self._known.families, *decoders)
            count = len(verdict.meters)
            outcome = f"{count} radio meter{'s' * (count != 1)}"
            return replace(verdict, outcome=outcome)
        findings = diagnose(best.heard, protocol, line or Line(), self.decoder)
        count = len(best.heard.telegrams)
        outcome = f"{count} telegram{'s' * (count != 1)} of {protocol}"
        return Verdict(list(self._meters(chunks, fitting, line)), findings, outcome=outcome)

    def _meters(self, chunks: Sequence[bytes], fitting: Sequence[Candidate], line: Line | None) -> Iterator[Answered]:
        best = fitting[0]
        needs = self._needs(chunks, best.family)
        alike = [each for each in fitting if each.family.protocol == best.family.protocol]
        names = _names(best.heard.telegrams)
        has_address = self._is_shared or bool(best.family.json and best.family.json.several)
        if len(names) < 2 and not (names and has_address):  # noqa: PLR2004 - one meter or several
            yield Answered(fitting, needs=needs)
            return
        for name in names:
            families = ranked((_part(each, name) for each in alike), line)
            yield Answered(families, self._address(chunks, families[0].family, name), needs=needs)

    def _address(self, chunks: Sequence[bytes], family: Family, name: str) -> str:
        """Return the address with which a decoder takes this meter's telegrams and no others.

        A device that is known by its topic goes by one level of it.
        """
        for address in (name, *name.split("/")[::-1]):
            if address and _names(hear(chunks, self._of_family(family, address)).telegrams) == [name]:
                return address
        return name

    def _needs(self, chunks: Sequence[bytes], family: Family) -> frozenset[str]:
        """Return whether the key is needed: without it, nothing is opened."""
        keyless = hear(chunks, self._of_family(family, "", NO_KEYS))
        is_locked = keyless.reasons["encrypted"] or keyless.reasons["bad-key"]
        return frozenset({"key_file"} if is_locked else ())

    def _why_not(self, chunks: Sequence[bytes], line: Line | None) -> list[Finding]:
        """Return what the bytes say where there is no telegram in them; their end is enough for that."""
        tail = b"".join(chunks)[-_WINDOW_BYTES:]
        known = recognise(tail)
        if known is None and self._is_messages:
            begin = chunks[0][:_QUOTED_BYTES].decode(errors="replace")
            return [Finding("unknown-document", f"what comes is no meter's that a family describes: {begin!r}", _PATH)]
        protocol = known.protocol if known else _ANY
        heard = hear([tail], self.decoder(protocol))
        if known is None and line is None:
            return [Finding("unknown-bytes", f"{len(tail)} bytes came in which nothing is recognised", _GATEWAY)]
        return diagnose(heard, protocol, line or Line(), self.decoder)

    def _families(self, chunks: Sequence[bytes]) -> list[Family]:
        """Return the families whose meters may have sent this by themselves."""
        has_json = self._is_messages or any(b"{" in chunk for chunk in chunks)
        return [
            family
            for family in self._known.families
            if not family.is_asked and family.pulse is None and (family.json is None or has_json) and _can_hear(family)
        ]

    def _of_family(self, family: Family, address: str = "", keys: Keys | None = None) -> Decoder:
        if not address and family.json is not None and family.json.several:
            family = msgspec.structs.replace(family, json=msgspec.structs.replace(family.json, several=False))
        setup = MeterSetup(
            family=family,
            zone=find_zone(family.timezone),
            keys=self._known.keys if keys is None else keys,
            address=address,
        )
        return self._cut(make_decoder(setup))

    def _plain(self, protocol: str, keys: Keys) -> Decoder:
        return self._cut(make_decoder(MeterSetup.unknown(protocol, find_zone("UTC"), keys=keys, lists=self._lists)))

    def _cut(self, decoder: Decoder) -> Decoder:
        return _Messages(decoder) if self._is_messages else decoder


class _Messages:
    """A decoder each ``feed`` of which is one whole message."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.skipped_bytes = 0

    @property
    def buffered_bytes(self) -> int:
        """See ``Decoder``."""
        return self._decoder.buffered_bytes

    def feed(self, data: bytes, now: float) -> list[Telegram | CodecError]:
        """See ``Decoder``."""
        items = [*self._decoder.feed(data, now), *self._decoder.idle(now)]
        self.skipped_bytes = self._decoder.skipped_bytes
        return items

    def idle(self, now: float) -> list[Telegram | CodecError]:
        """See ``Decoder``; whatever is gathered is complete."""
        return self._decoder.idle(now + _AFTER_ALL_S)


def is_whole(item: Telegram | CodecError) -> bool:
    """Return whether a frame came whole, even if it cannot be read."""
    return isinstance(item, Telegram) or item.reason in ("encrypted", "bad-key")


def _names(telegrams: Sequence[Telegram]) -> list[str]:
    """Return who sent telegrams; a name that no checksum protects may be a damaged one, so it counts only if alone."""
    names = sorted({telegram.meter for telegram in telegrams if telegram.meter})
    checked = sorted({telegram.meter for telegram in telegrams if telegram.meter and telegram.checked})
    return checked or names[:1]


def _part(candidate: Candidate, name: str) -> Candidate:
    """Return what a family makes of one meter's telegrams."""
    return candidate_of(candidate.family, [each for each in candidate.heard.telegrams if each.meter == name])


def _can_hear(family: Family) -> bool:
    """Return whether there is a decoder for a family; the package of another one's may be gone."""
    try:
        return load_driver(family.protocol).decoder is not None
    except SetupError:
        return False
