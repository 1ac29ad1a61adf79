"""What a virtual DLMS meter answers to each APDU: associations, gets and the action that proves a client."""

from collections.abc import Iterator, Sequence
from typing import Final

from meterway.core.obis import Obis
from meterway.meter import axdr_write as write
from meterway.meter.axdr import GrammarError
from meterway.meter.dlms_apdu import (
    ACTION,
    COUNTER_ERROR,
    DECIPHERING_ERROR,
    GET,
    Acted,
    Action,
    Answer,
    Attribute,
    Get,
    GetList,
    GetNext,
    Got,
    GotBlock,
    GotList,
    Refusal,
    Request,
    Unserved,
    decode_request,
    encode_answer,
    encode_results,
    read_value,
)
from meterway.meter.dlms_association import (
    AARQ,
    CONFORMANCE,
    INITIATE,
    MULTIPLE_REFERENCES,
    RLRE,
    RLRQ,
    AssociationRequest,
    AssociationResponse,
    Initiated,
    Mechanism,
    decode_initiate,
    encode_initiated,
    encode_release,
    encode_response,
    encode_service_error,
)
from meterway.meter.dlms_association import decode_request as decode_association
from meterway.meter.dlms_protection import Protection
from meterway.meter.dlms_security import GENERAL, SealedError
from meterway.meter.virtual.dlms_side import UNDEFINED, DlmsSide

PUBLIC: Final = 16

_DENIED, _NO_LONG_GET = Refusal(3), Refusal(16)
_ASSOCIATION: Final = Obis(0, 0, 40, 0, 0)
_DEVICE_NAME: Final = Obis(0, 0, 42, 0, 0)
_MECHANISMS: Final = {"none": Mechanism.LOWEST, "password": Mechanism.LOW, "gmac": Mechanism.HIGH_GMAC}
_CONTEXT_UNKNOWN, _MECHANISM_UNKNOWN, _FAILED = 2, 11, 13
_PLAUSIBLE: Final = frozenset(bytes((tag,)) for tag in (GET, ACTION, INITIATE))


class ServerSession:
    """The association of one client at a time; ``last_counter`` is the meter's, and outlives it."""

    def __init__(self, side: DlmsSide) -> None:
        self._side = side
        self.last_counter = side.last_counter
        self.requests: list[Request] = []
        """What it was asked for in associations."""
        self._own_counter = 1
        self._client = 0
        self._is_open = False
        self._is_proven = False
        self._protection: Protection | None = None
        self._is_ciphered = self._is_general = False
        self._challenge = b""
        self._rest: Iterator[tuple[bool, bytes]] = iter(())
        self._block = 0
        self._apdu_bytes = side.apdu_bytes

    def begin(self, client: int) -> bool:
        """Tell whether this client may connect; what went before is forgotten."""
        self.forget()
        return client in (PUBLIC, self._side.client)

    def forget(self) -> None:
        """Forget the association."""
        if self._protection:
            self._own_counter = self._protection.counter
        self._is_open = self._is_proven = self._is_ciphered = False
        self._protection = None
        self._rest = iter(())

    def answer(self, client: int, apdu: bytes) -> bytes:
        """Return the APDU that answers a client's."""
        try:
            if apdu[:1] == bytes((AARQ,)):
                self._client = client
                return self._associate(decode_association(apdu))
            if apdu[:1] == bytes((RLRQ,)):
                self.forget()
                return encode_release(tag=RLRE)
            if not self._is_open or client != self._client:
                return encode_answer(Unserved(1, 1))
            return self._serve(apdu)
        except GrammarError:
            return encode_answer(Unserved(1, 3))

    def _associate(self, request: AssociationRequest) -> bytes:
        self.forget()
        side = self._side
        is_owner = self._client == side.client and not (request.mechanism == 0 and self._client == PUBLIC)
        mechanism = _MECHANISMS[side.security] if is_owner else Mechanism.LOWEST
        if request.is_ciphered != (side.is_ciphered and is_owner):
            return self._rejected(_CONTEXT_UNKNOWN, request)
        if request.mechanism != mechanism:
            return self._rejected(_MECHANISM_UNKNOWN, request)
        if mechanism is Mechanism.LOW and request.secret != side.password.encode():
            return self._rejected(_FAILED, request)
        if is_owner and None not in (side.keys.encryption, side.keys.authentication):
            self._protection = Protection(side.keys, side.title, self._own_counter, suite=side.suite)
            self._protection.peer = request.title
        information = request.information
        if self._protection and request.is_ciphered:
            try:
                information = self._protection.open(information, _PLAUSIBLE.__contains__)
            except SealedError:
                return self._rejected(1, request, encode_service_error(4))
        proposed = decode_initiate(information)
        return self._accepted(request, mechanism, proposed)

    def _accepted(self, request: AssociationRequest, mechanism: Mechanism, proposed: Initiated) -> bytes:
        side = self._side
        self._is_open, self._is_ciphered = True, request.is_ciphered
        self._is_proven = mechanism is not Mechanism.HIGH_GMAC
        self._challenge = request.secret
        self._apdu_bytes = min(side.apdu_bytes, proposed.receivable_bytes or side.apdu_bytes)
        offered = CONFORMANCE if side.has_lists else CONFORMANCE & ~MULTIPLE_REFERENCES
        information = encode_initiated(Initiated(offered & proposed.conformance, side.apdu_bytes))
        if self._protection and self._is_ciphered:
            information = self._protection.seal(information)
        return encode_response(
            AssociationResponse(
                result=0,
                diagnostic=0 if self._is_proven else 14,
                is_ciphered=request.is_ciphered,
                title=side.title if self._protection else b"",
                mechanism=mechanism,
                challenge=b"" if self._is_proven else side.challenge,
                information=information,
            )
        )

    def _rejected(self, diagnostic: int, request: AssociationRequest, information: bytes = b"") -> bytes:
        return encode_response(
            AssociationResponse(
                result=1, diagnostic=diagnostic, is_ciphered=request.is_ciphered, information=information
            )
        )

    def _serve(self, apdu: bytes) -> bytes:
        protection = self._protection
        if protection is None or not self._is_ciphered:
            return encode_answer(self._obey(decode_request(apdu)))
        self._is_general = apdu[0] in GENERAL
        try:
            plain = protection.open(apdu, _PLAUSIBLE.__contains__)
        except SealedError as error:
            service = COUNTER_ERROR if error.reason == "replayed" else DECIPHERING_ERROR
            return encode_answer(Unserved(1, service))
        return protection.seal(encode_answer(self._obey(decode_request(plain))), is_general=self._is_general)

    def _obey(self, request: Request) -> Answer:
        self.requests.append(request)
        match request:
            case Action(invoke, method, data):
                return self._prove(invoke, method, data)
            case _ if not self._is_proven:
                return Unserved(1, 1)
            case Get(invoke, attribute, selector, access):
                found = self._value(attribute, selector, access)
                if isinstance(found, Refusal) or len(found) <= self._apdu_bytes:
                    return Got(invoke, found)
                return self._first_block(invoke, found)
            case GetNext(invoke, number):
                return self._next_block(invoke, number)
            case GetList(invoke, attributes):
                return self._list(invoke, attributes)

    def _list(self, invoke: int, attributes: Sequence[Attribute]) -> Answer:
        if not self._side.has_lists:
            return Unserved(1, 2)
        listed = encode_results([self._value(attribute, 0, b"") for attribute in attributes])
        return GotList(invoke, listed) if len(listed) <= self._apdu_bytes else self._first_block(invoke, listed)

    def _first_block(self, invoke: int, data: bytes) -> Answer:
        size = max(self._apdu_bytes - 16, 16)
        starts = range(0, len(data), size)
        self._rest = iter([(start + size >= len(data), data[start : start + size]) for start in starts])
        self._block = 0
        return self._next_block(invoke, 0)

    def _next_block(self, invoke: int, number: int) -> Answer:
        is_last, data = next(self._rest, (True, b""))
        if number != self._block or not data:
            return Got(invoke, _NO_LONG_GET)
        self._block += 1
        return GotBlock(invoke, is_last, self._block, data)

    def _prove(self, invoke: int, method: Attribute, data: bytes) -> Answer:
        protection = self._protection
        if protection is None or method != Attribute(15, _ASSOCIATION, 1):
            return Acted(invoke, UNDEFINED.reason)
        try:
            proof = read_value(data)
        except GrammarError:
            proof = None
        if not isinstance(proof, bytes) or not protection.is_proof(proof, self._side.challenge):
            return Acted(invoke, _DENIED.reason)
        self._is_proven = True
        self.last_counter = max(self.last_counter, int.from_bytes(proof[1:5], "big"))
        return Acted(invoke, 0, write.octets(protection.prove(self._challenge)))

    def _value(self, attribute: Attribute, selector: int, access: bytes) -> bytes | Refusal:
        side = self._side
        if attribute == Attribute(1, side.counter, 2) and self._client == PUBLIC:
            return write.uint32(self.last_counter)
        if self._client != side.client and attribute.obis != _DEVICE_NAME:
            return _DENIED
        if attribute == Attribute(15, _ASSOCIATION, 2):
            return self._object_list()
        if attribute.class_id == 7 and attribute.obis in side.profiles:  # noqa: PLR2004 - profile generic
            return side.profiles[attribute.obis].value(attribute.number, selector, access)
        return side.objects.get(attribute[:2], {}).get(attribute.number, UNDEFINED)

    def _object_list(self) -> bytes:
        rights = write.structure(write.array(), write.array())
        known = [*self._side.objects, *((7, obis) for obis in self._side.profiles)]
        return write.array(
            *(
                write.structure(write.uint16(class_id), write.uint8(0), write.octets(bytes(obis)), rights)
                for class_id, obis in known
            )
        )
