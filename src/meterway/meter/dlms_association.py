"""How a DLMS client and a meter come to terms: the association request, its answer, and the release.

    aarq    ::= 60 length context [a6 title] [8a 02 07 80 mechanism ac secret] information
    aare    ::= 61 length context result diagnostic [a4 title] [88 02 07 80 mechanism aa challenge] [information]
    context ::= a1 09 06 07 60 85 74 05 08 01 (01 | 03)        ; logical names, plain or ciphered
    information ::= be length 04 length (initiate | ciphered initiate)
    request  ::= 01 (00 | 01 10 key) 00 00 06 5f 1f 04 00 conformance(3) receivable(2)
    response ::= 08 00 06 5f 1f 04 00 conformance(3) receivable(2) 00 07
    service error ::= 0e 01 kind reason
    release ::= 62 length 80 01 00 [information]     ; answered by 63

Each is a list of tagged values, BER; lengths as in A-XDR. Source: IEC 62056-5-3, 9.4 and annex on AARQ and AARE.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

from meterway.meter.axdr import CutError, GrammarError, read_length
from meterway.meter.dlms_security import write_length

AARQ, AARE, RLRQ, RLRE = 0x60, 0x61, 0x62, 0x63
INITIATE, INITIATED, SERVICE_ERROR = 0x01, 0x08, 0x0E

MULTIPLE_REFERENCES: Final = 1 << 9
CONFORMANCE: Final = 1 << 12 | MULTIPLE_REFERENCES | 1 << 4 | 1 << 2 | 1 << 0
"""What we want: get, with blocks, with list and with selective access, and action (for the passes of HLS)."""

_NAMES: Final = bytes.fromhex("6085740508")
_CONTEXT, _MECHANISM = b"\x01", b"\x02"
_PLAIN_CONTEXT, _CIPHERED_CONTEXT = 1, 3
_AUTHENTICATED: Final = b"\x02\x07\x80"
_VERSION: Final = 6
_CONFORMANCE_TAG: Final = bytes.fromhex("5f1f0400")
_CONFORMANCE_BYTES: Final = 3
_VAA_NAME: Final = bytes.fromhex("0007")


class Mechanism(IntEnum):
    """How a client proves who it is."""

    LOWEST = 0
    """Not at all."""
    LOW = 1
    """By a password in the clear."""
    HIGH_GMAC = 5
    """Both sides seal what the other made up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationRequest:
    """What a client asks for."""

    is_ciphered: bool = False
    title: bytes = b""
    """System title of the client; empty where nothing is sealed."""
    mechanism: int = Mechanism.LOWEST
    secret: bytes = field(default=b"", repr=False)
    """The password, or the client's challenge."""
    information: bytes = b""
    """The initiate request, perhaps sealed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationResponse:
    """What a meter grants."""

    result: int = 0
    """0: accepted; 1: rejected for good; 2: rejected for now."""
    diagnostic: int = 0
    is_ciphered: bool = False
    title: bytes = b""
    """System title of the meter."""
    mechanism: int = Mechanism.LOWEST
    challenge: bytes = b""
    information: bytes = b""


class Initiated(NamedTuple):
    """What the meter agrees to."""

    conformance: int
    receivable_bytes: int
    """The longest APDU that it takes; 0: no limit."""


class ServiceError(Exception):
    """The meter refuses to initiate; ``kind`` 6 says why by ``reason``."""

    _REASONS: Final = {
        1: "its DLMS version is older",
        2: "it offers none of the services asked for",
        3: "the length of APDUs offered is too short",
        4: "it refuses, as it does with a wrong key or a client that it does not know",
    }

    def __init__(self, kind: int, reason: int) -> None:
        known = self._REASONS.get(reason) if kind == 6 else None  # noqa: PLR2004 - initiate
        super().__init__(known or f"service error {kind}, {reason}")


DIAGNOSTICS: Final = {
    1: "no reason given",
    2: "the application context (plain or ciphered) is not the one it wants",
    3: "it does not know our system title",
    11: "it does not know this kind of authentication",
    12: "it wants a kind of authentication",
    13: "the authentication failed: wrong password or key",
    14: "it wants authentication",
}
"""Diagnostics of the service user; 14 of them are of interest to a client."""


def encode_request(request: AssociationRequest) -> bytes:
    """Return the AARQ."""
    content = _context(is_ciphered=request.is_ciphered)
    if request.title:
        content += _tagged(0xA6, _tagged(0x04, request.title))
    if request.mechanism:
        name = b"\x07" + _NAMES + _MECHANISM + bytes((request.mechanism,))
        content += b"\x8a" + _AUTHENTICATED + b"\x8b" + name + _tagged(0xAC, _tagged(0x80, request.secret))
    return _tagged(AARQ, content + _tagged(0xBE, _tagged(0x04, request.information)))


def decode_request(apdu: bytes) -> AssociationRequest:
    """Return what an AARQ asks for.

    Raises:
        GrammarError: it is none.
    """
    fields = _fields(apdu, AARQ)
    return AssociationRequest(
        is_ciphered=_is_ciphered(fields),
        title=_inner(fields.get(0xA6)),
        mechanism=fields[0x8B][-1] if fields.get(0x8B) else 0,
        secret=_inner(fields.get(0xAC)),
        information=_inner(fields.get(0xBE)),
    )


def encode_response(response: AssociationResponse) -> bytes:
    """Return the AARE."""
    content = _context(is_ciphered=response.is_ciphered)
    content += bytes((0xA2, 3, 2, 1, response.result, 0xA3, 5, 0xA1, 3, 2, 1, response.diagnostic))
    if response.title:
        content += _tagged(0xA4, _tagged(0x04, response.title))
    if response.challenge:
        name = b"\x07" + _NAMES + _MECHANISM + bytes((response.mechanism,))
        content += b"\x88" + _AUTHENTICATED + b"\x89" + name + _tagged(0xAA, _tagged(0x80, response.challenge))
    if response.information:
        content += _tagged(0xBE, _tagged(0x04, response.information))
    return _tagged(AARE, content)


def decode_response(apdu: bytes) -> AssociationResponse:
    """Return what an AARE grants.

    Raises:
        GrammarError: it is none, or says no result.
    """
    fields = _fields(apdu, AARE)
    result, diagnostic = _inner(fields.get(0xA2)), _inner(fields.get(0xA3))
    if not result:
        raise GrammarError("an association response says no result")
    return AssociationResponse(
        result=result[-1],
        diagnostic=diagnostic[-1] if diagnostic else 0,
        is_ciphered=_is_ciphered(fields),
        title=_inner(fields.get(0xA4)),
        mechanism=fields[0x89][-1] if fields.get(0x89) else 0,
        challenge=_inner(fields.get(0xAA)),
        information=_inner(fields.get(0xBE)),
    )


def encode_initiate(receivable_bytes: int, *, conformance: int = CONFORMANCE, dedicated_key: bytes = b"") -> bytes:
    """Return an initiate request, plain."""
    key = b"\x01" + write_length(len(dedicated_key)) + dedicated_key if dedicated_key else b"\0"
    agreed = _CONFORMANCE_TAG + conformance.to_bytes(_CONFORMANCE_BYTES, "big") + receivable_bytes.to_bytes(2, "big")
    return bytes((INITIATE,)) + key + bytes((0, 0, _VERSION)) + agreed


def decode_initiate(apdu: bytes) -> Initiated:
    """Return what a client wants in an initiate request.

    Raises:
        GrammarError: it is none.
    """
    if apdu[:1] != bytes((INITIATE,)):
        raise GrammarError("there is no initiate request")
    return _agreed(apdu)


def encode_initiated(initiated: Initiated) -> bytes:
    """Return an initiate response, plain."""
    agreed = initiated.conformance.to_bytes(_CONFORMANCE_BYTES, "big") + initiated.receivable_bytes.to_bytes(2, "big")
    return bytes((INITIATED, 0, _VERSION)) + _CONFORMANCE_TAG + agreed + _VAA_NAME


def encode_service_error(reason: int) -> bytes:
    """Return the refusal to initiate."""
    return bytes((SERVICE_ERROR, 1, 6, reason))


def decode_initiated(apdu: bytes) -> Initiated:
    """Return what a meter agrees to.

    Raises:
        ServiceError: it refuses.
        GrammarError: it is neither.
    """
    if apdu[:1] == bytes((SERVICE_ERROR,)):
        raise ServiceError(*(apdu[2:4] if len(apdu) >= 4 else b"\0\0"))  # noqa: PLR2004 - 0e 01 kind reason
    if apdu[:1] != bytes((INITIATED,)):
        raise GrammarError("there is no initiate response")
    return _agreed(apdu)


def encode_release(information: bytes = b"", *, tag: int = RLRQ) -> bytes:
    """Return a release request, or with ``RLRE`` its answer; ``information`` as of the association, sealed or none."""
    return _tagged(tag, b"\x80\x01\x00" + (_tagged(0xBE, _tagged(0x04, information)) if information else b""))


def _tagged(tag: int, content: bytes) -> bytes:
    return bytes((tag,)) + write_length(len(content)) + content


def _context(*, is_ciphered: bool) -> bytes:
    number = _CIPHERED_CONTEXT if is_ciphered else _PLAIN_CONTEXT
    return _tagged(0xA1, _tagged(0x06, _NAMES + _CONTEXT + bytes((number,))))


def _is_ciphered(fields: dict[int, bytes]) -> bool:
    return _inner(fields.get(0xA1))[-1:] == bytes((_CIPHERED_CONTEXT,))


def _fields(apdu: bytes, tag: int) -> dict[int, bytes]:
    """Return the tagged values in an APDU."""
    if apdu[:1] != bytes((tag,)):
        raise GrammarError(f"an APDU of kind {apdu[:1].hex()} came instead of {tag:02x}")
    length, at = read_length(apdu, 1)
    end = at + length
    if end > len(apdu):
        raise CutError("an association APDU is cut")
    fields = {}
    while at < end:
        size, start = read_length(apdu, at + 1)
        if start + size > end:
            raise CutError("a field of an association APDU is cut")
        fields[apdu[at]] = apdu[start : start + size]
        at = start + size
    return fields


def _inner(content: bytes | None) -> bytes:
    """Return the value of the one tagged value that ``content`` is; empty where there is none."""
    if not content:
        return b""
    size, start = read_length(content, 1)
    if start + size > len(content):
        raise CutError("a field of an association APDU is cut")
    return content[start : start + size]


def _agreed(apdu: bytes) -> Initiated:
    at = apdu.find(_CONFORMANCE_TAG[:-1])
    start = at + len(_CONFORMANCE_TAG)
    end = start + _CONFORMANCE_BYTES
    if at < 0 or end + 2 > len(apdu):
        raise GrammarError("an initiate APDU says no conformance")
    return Initiated(int.from_bytes(apdu[start:end], "big"), int.from_bytes(apdu[end : end + 2], "big"))
