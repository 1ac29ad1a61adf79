"""A DLMS client's conversation with a meter, as generators that yield what is to be done and are sent what came of it.

    talk = converse(...)            # yields Connect, Call, Listen, Disconnect, Telegram, CodecError
    demand = talk.send(None)        # and is sent the APDU that answers a Call or a Listen, else None

What it does: come to terms with the meter, prove who we are, seal and open, read attributes whole however many blocks
they come in, and leave in good order whatever went wrong. What it does not: wait, repeat, or know of frames; that is
``dlms_master``'s. It raises a SetupError where a person must change something, and a TransientError where another
attempt may do.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast

from meterway.core.errors import MeterwayError, SetupError, TransientError
from meterway.core.obis import Obis
from meterway.meter import dlms_association as association
from meterway.meter.axdr import Element, GrammarError
from meterway.meter.axdr_write import octets
from meterway.meter.codec import CodecError
from meterway.meter.dlms_access import DlmsAccess
from meterway.meter.dlms_apdu import (
    ACTED,
    COUNTER_ERROR,
    DECIPHERING_ERROR,
    EXCEPTION,
    GOT,
    Acted,
    Action,
    Answer,
    Attribute,
    Get,
    GetList,
    GetNext,
    GotBlock,
    Refusal,
    Request,
    Unserved,
    decode_answer,
    encode_request,
    read_results,
    read_value,
)
from meterway.meter.dlms_association import (
    AARE,
    INITIATED,
    MULTIPLE_REFERENCES,
    SERVICE_ERROR,
    AssociationRequest,
    AssociationResponse,
    Mechanism,
)
from meterway.meter.dlms_protection import Protection
from meterway.meter.dlms_security import TITLE_BYTES, SealedError
from meterway.meter.telegram import Telegram

LIMIT_VALUE_BYTES: Final = 512 * 1024
"""The longest value, all its blocks together: three months of a load profile of six columns."""

LIMIT_STALE: Final = 8
"""So many APDUs that answer other questions, or none, are passed over while an answer is awaited."""

MOST_IN_A_LIST: Final = 10
"""Attributes that are read by one request."""

T = TypeVar("T")
Random = Callable[[int], bytes]
"""Returns so many random bytes."""

_CHALLENGE_BYTES: Final = 16
_CURRENT_ASSOCIATION: Final = Obis(0, 0, 40, 0, 0)
_ASSOCIATION_CLASS: Final = 15
_DATA_CLASS: Final = 1
_INVOKE: Final = 0xC0
"""High priority, confirmed; the low four bits number the requests."""
_INVOKE_NUMBER: Final = 0x0F


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect as this client."""

    client: int


@dataclass(frozen=True, slots=True)
class Call:
    """Send the APDU; its answer is wanted."""

    apdu: bytes = field(repr=False)
    """May hold a password."""
    is_farewell: bool = False
    """Nothing is lost where no answer comes."""


@dataclass(frozen=True, slots=True)
class Listen:
    """What came was no answer; wait for another APDU."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """End the connection."""


Demand = Connect | Call | Listen | Disconnect | Telegram | CodecError
Talk = Generator[Demand, bytes | None, T]
Value = Element | Refusal | Unserved
"""What was read of an attribute, or why it was not; None also where the answer was not understood, and reported."""


class Client:
    """One association, as one client."""

    def __init__(
        self,
        access: DlmsAccess,
        *,
        number: int,
        mechanism: Mechanism = Mechanism.LOWEST,
        is_ciphered: bool = False,
        protection: Protection | None = None,
        challenge: bytes = b"",
    ) -> None:
        """``number`` is the client's address; ``challenge`` is random, for the meter to prove that it has the keys."""
        self._access = access
        self._number = number
        self._mechanism = mechanism
        self._is_ciphered = is_ciphered
        self._protection = protection
        self._challenge = challenge
        self._invoke = 0
        self._has_lists = False
        self._is_open = False

    @property
    def title(self) -> str:
        """The meter's system title in hex; empty where it named none."""
        return self._protection.peer.hex().upper() if self._protection else ""

    def session(self, work: Talk[T]) -> Talk[T]:
        """Connect, associate, do the work, and leave, whether it was done or not.

        Raises:
            SetupError, TransientError: as its parts.
        """
        yield Connect(self._number)
        failure: MeterwayError | None = None
        result: T | None = None
        try:
            yield from self._open()
            result = yield from work
        except MeterwayError as error:
            failure = error
        yield from self._leave()
        if failure is not None:
            raise failure
        return cast("T", result)

    def get(self, attribute: Attribute, selector: int = 0, access: bytes = b"") -> Talk[Value]:
        """Return the value of an attribute, or why there is none; ``selector`` and ``access`` ask for a part of it.

        Raises:
            SetupError: it is too long; the keys are wrong.
            TransientError: the blocks of the answer do not follow each other.
        """
        data = yield from self._read(Get(0, attribute, selector, access))
        if not isinstance(data, bytes):
            return data
        try:
            return read_value(data)
        except GrammarError as error:
            yield CodecError(f"the answer to {attribute} is no value: {error}", reason=error.reason, data=data)
            return None

    def get_all(self, attributes: Sequence[Attribute]) -> Talk[list[Value]]:
        """Return the values of several attributes; read together where the meter can do that, else one by one.

        Raises:
            SetupError, TransientError: as ``get``.
        """
        values: list[Value] = []
        for start in range(0, len(attributes), MOST_IN_A_LIST):
            some = attributes[start : start + MOST_IN_A_LIST]
            together = (yield from self._get_list(some)) if self._has_lists and len(some) > 1 else None
            if together is not None:
                values += together
                continue
            for attribute in some:
                values.append((yield from self.get(attribute)))
        return values

    def _get_list(self, attributes: Sequence[Attribute]) -> Talk[list[Value] | None]:
        """Return their values; None where the meter, whatever it said of itself, cannot do that."""
        data = yield from self._read(GetList(0, tuple(attributes)))
        try:
            values = read_results(data) if isinstance(data, bytes) else []
        except GrammarError:
            values = []
        if len(values) == len(attributes):
            return list(values)
        self._has_lists = False
        return None

    def _read(self, request: Get | GetList) -> Talk[bytes | Refusal | Unserved | None]:
        """Return what the answer holds, its blocks put together."""
        answer = yield from self._ask(request)
        data, number = bytearray(), None
        while isinstance(answer, GotBlock):
            if isinstance(answer.data, Refusal):
                return answer.data
            if number is not None and answer.number != number + 1:
                raise TransientError(f"block {answer.number} of an answer came after block {number}")
            if not answer.data and not answer.is_last:
                raise TransientError(f"block {answer.number} of an answer is empty, and more are to follow")
            number = answer.number
            data += answer.data
            if len(data) > LIMIT_VALUE_BYTES:
                raise SetupError(f"an answer is longer than {LIMIT_VALUE_BYTES} bytes; ask for fewer rows at a time")
            if answer.is_last:
                return bytes(data)
            answer = yield from self._ask(GetNext(0, number), is_next=True)
        if isinstance(answer, Acted):
            raise TransientError("the meter answers a get as if it were an action")
        return answer if answer is None or isinstance(answer, Unserved) else answer.data

    def _ask(self, request: Request, *, is_next: bool = False) -> Talk[Answer | None]:
        """Return the answer to a request; None where it was not understood, and has been reported."""
        if not is_next:
            self._invoke = (self._invoke + 1) & _INVOKE_NUMBER
        apdu = encode_request(request._replace(invoke=_INVOKE | self._invoke))
        heard = yield Call(self._sealed(apdu))
        for _ in range(LIMIT_STALE):
            try:
                plain = self._opened(heard or b"", _ANSWERS)
                answer = decode_answer(plain) if plain[0] in _ANSWERS else None
            except SealedError as error:
                yield CodecError(str(error), reason=error.reason, data=heard or b"")
                raise _wrong_key(error) from error
            except GrammarError as error:
                text = f"the meter's answer is not understood: {error}"
                yield CodecError(text, reason=error.reason, data=heard or b"")
                return None
            if isinstance(answer, Unserved):
                return self._served(answer)
            if answer is not None and answer.invoke & _INVOKE_NUMBER == self._invoke:
                return answer
            heard = yield Listen()
        raise TransientError("the meter answers other questions than the one that was asked")

    def _open(self) -> Talk[None]:
        """Associate, and prove who we are."""
        access = self._access
        secret = (access.password or "").encode("latin-1", "replace")
        request = AssociationRequest(
            is_ciphered=self._is_ciphered,
            title=access.title if self._protection else b"",
            mechanism=self._mechanism,
            secret=secret if self._mechanism is Mechanism.LOW else self._challenge,
            information=self._sealed(association.encode_initiate(access.ask.apdu_bytes)),
        )
        heard = yield Call(association.encode_request(request))
        for _ in range(LIMIT_STALE):
            if heard and heard[0] in _ASSOCIATED:
                break
            heard = yield Listen()
        response = self._granted(heard or b"")
        self._is_open = True
        if self._protection:
            if len(response.title) != TITLE_BYTES:
                raise TransientError("the meter accepts the association, but names no system title of 8 bytes")
            self._protection.peer = response.title
        try:
            agreed = association.decode_initiated(self._opened(response.information, (INITIATED,)))
        except SealedError as error:
            raise _wrong_key(error) from error
        except (GrammarError, association.ServiceError) as error:
            raise TransientError(
                f"the meter accepts the association, but does not say what it offers: {error}"
            ) from error
        self._has_lists = bool(agreed.conformance & MULTIPLE_REFERENCES)
        if self._mechanism is Mechanism.HIGH_GMAC:
            yield from self._prove(response.challenge)

    def _granted(self, heard: bytes) -> AssociationResponse:
        """Return what the meter grants.

        Raises:
            SetupError: it refuses.
            TransientError: it refuses for now, or answers something else.
        """
        who = f"the meter refuses the association as client {self._number}"
        try:
            if heard[:1] == bytes((EXCEPTION,)):
                answer = decode_answer(heard)
                raise SetupError(f"{who}: {answer}; check client, password and keys")
            if heard[:1] == bytes((SERVICE_ERROR,)):
                association.decode_initiated(heard)
            response = association.decode_response(heard)
            if not response.result:
                return response
            why = association.DIAGNOSTICS.get(response.diagnostic, f"diagnostic {response.diagnostic}")
            if response.information[:1] == bytes((SERVICE_ERROR,)):
                association.decode_initiated(response.information)
        except association.ServiceError as error:
            raise SetupError(f"{who}: {error}; check client, password and keys") from error
        except GrammarError as error:
            raise TransientError(f"the meter answers the association with something else: {error}") from error
        if response.result == _REJECTED_FOR_NOW:
            raise TransientError(f"{who} for now: {why}")
        raise SetupError(f"{who}: {why}; check client, password and keys")

    def _prove(self, challenge: bytes) -> Talk[None]:
        """Prove to the meter that we have the keys, and have it prove the same.

        Raises:
            SetupError: one side has not.
        """
        protection = self._protection
        if protection is None or not challenge or challenge == self._challenge:
            raise SetupError("the meter makes no challenge of its own, so it cannot be trusted to have the keys")
        method = Attribute(_ASSOCIATION_CLASS, _CURRENT_ASSOCIATION, 1)
        answer = yield from self._ask(Action(0, method, octets(protection.prove(challenge))))
        if not isinstance(answer, Acted) or answer.reason:
            raise SetupError("the meter does not accept our proof: a key is wrong, or this client's rights were taken")
        try:
            proof = read_value(answer.data)
        except GrammarError:
            proof = None
        if not isinstance(proof, bytes) or not protection.is_proof(proof, self._challenge):
            raise SetupError("the meter cannot prove that it has the keys: a key is wrong, or it is not the meter")

    def _leave(self) -> Talk[None]:
        """Release the association where the end of the connection does not (IEC 62056-5-3, 7.3.2), and disconnect."""
        if self._is_open and self._access.ask.transport == "wrapper":
            initiate = association.encode_initiate(self._access.ask.apdu_bytes)
            information = self._sealed(initiate) if self._is_ciphered else b""
            yield Call(association.encode_release(information), is_farewell=True)
        yield Disconnect()

    def _sealed(self, apdu: bytes) -> bytes:
        return self._protection.seal(apdu) if self._protection and self._is_ciphered else apdu

    def _opened(self, apdu: bytes, kinds: Sequence[int]) -> bytes:
        """Return the plain APDU; one that begins with one of ``kinds`` is what a right key makes."""
        if not apdu:
            raise GrammarError("it is empty")
        if not self._protection or not self._is_ciphered or apdu[0] in _ALWAYS_PLAIN:
            return apdu
        return self._protection.open(apdu, lambda plain: plain[:1] in {bytes((kind,)) for kind in kinds})

    def _served(self, answer: Unserved) -> Unserved:
        if answer.service == DECIPHERING_ERROR:
            raise SetupError("the meter cannot decipher what we send: a key is wrong, or its security suite is another")
        if answer.service == COUNTER_ERROR:
            raise TransientError(f"the meter refuses our invocation counter: {answer}")
        return answer


def converse(access: DlmsAccess, work: Callable[[Client], Talk[None]], random_bytes: Random) -> Talk[None]:
    """Do ``work`` in an association; where that needs an invocation counter, the public client asks for it first.

    Raises:
        SetupError, TransientError: as ``Client.session``.
    """
    ask = access.ask
    protection = None
    if access.is_sealed:
        counter = access.counter
        if counter is None:
            public = Client(access, number=ask.counter_client)
            counter = 1 + (yield from public.session(_last_counter(public, Obis.parse(ask.counter))))
        protection = Protection(access.keys, access.title, counter, suite=ask.suite)
    client = Client(
        access,
        number=ask.client,
        mechanism=access.mechanism,
        is_ciphered=ask.ciphered,
        protection=protection,
        challenge=random_bytes(_CHALLENGE_BYTES) if access.mechanism is Mechanism.HIGH_GMAC else b"",
    )
    yield from client.session(work(client))


def _last_counter(public: Client, obis: Obis) -> Talk[int]:
    value = yield from public.get(Attribute(_DATA_CLASS, obis, 2))
    if isinstance(value, int):
        return value
    why = f": {value}" if isinstance(value, Refusal | Unserved) else ""
    raise SetupError(
        f"the meter does not tell the public client its invocation counter {obis}{why}; `counter` in the family's file "
        "names another"
    )


def _wrong_key(error: SealedError) -> MeterwayError:
    if error.reason == "bad-key":
        return SetupError(f"the meter's answer cannot be opened: {error}; ask the grid operator for the right key")
    return TransientError(f"the meter's answer cannot be trusted: {error}")


_REJECTED_FOR_NOW: Final = 2
_ASSOCIATED: Final = (AARE, EXCEPTION, SERVICE_ERROR)
_ANSWERS: Final = (GOT, ACTED, EXCEPTION)
_ALWAYS_PLAIN: Final = (EXCEPTION, SERVICE_ERROR)
