"""Services of DLMS with logical names: what a client asks and a meter answers, both written and read.

    get     ::= c0 01 id attribute (00 | 01 selector data)    ; normal
              | c0 02 id number(4)                            ; the next block
              | c0 03 id n n*(attribute 00)                   ; with list
    got     ::= c4 01 id result | c4 03 id n n*result
              | c4 02 id last number(4) (00 length *byte | 01 reason)
    result  ::= 00 data | 01 reason
    action  ::= c3 01 id method (00 | 01 data)
    acted   ::= c7 01 id reason (00 | 01 result)
    refused ::= d8 state service [counter(4)]
    attribute, method ::= class(2) code(6) number

The bytes in the blocks of a long answer are, put together, what would stand behind the id of a short one, for a normal
get without its leading 00. Source: IEC 62056-5-3, 9.3 and its abstract syntax of the COSEM PDUs.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from meterway.core.obis import Obis
from meterway.meter.axdr import CutError, Element, GrammarError, read_elements, read_length
from meterway.meter.dlms_security import write_length

GET, ACTION, GOT, ACTED, EXCEPTION = 0xC0, 0xC3, 0xC4, 0xC7, 0xD8
_NORMAL, _BLOCK, _LIST = 1, 2, 3
_NEXT: Final = 2
_HEAD_BYTES: Final = 3
_ATTRIBUTE_BYTES: Final = 9
_NUMBER_BYTES: Final = 4
_COUNTER_ERROR: Final = 6

REASONS: Final = {
    1: "hardware fault",
    2: "temporary failure",
    3: "read or write denied",
    4: "object undefined",
    9: "class of the object is another",
    11: "object unavailable",
    12: "type unmatched",
    13: "scope of access violated",
    14: "data block unavailable",
    15: "long get aborted",
    16: "no long get in progress",
    250: "other reason",
}
"""Data access results and action results but success."""

_STATES: Final = {1: "service not allowed", 2: "service unknown"}
_SERVICES: Final = {
    1: "operation not possible",
    2: "service not supported",
    3: "other reason",
    4: "request too long",
    5: "deciphering error",
    6: "invocation counter too low",
}
DECIPHERING_ERROR, COUNTER_ERROR = 5, _COUNTER_ERROR


class Attribute(NamedTuple):
    """An attribute, or a method, of an object."""

    class_id: int
    obis: Obis
    number: int

    def __bytes__(self) -> bytes:
        return self.class_id.to_bytes(2, "big") + bytes(self.obis) + bytes((self.number,))

    def __str__(self) -> str:
        return f"{self.obis} (class {self.class_id}, attribute {self.number})"


class Refusal(NamedTuple):
    """A data access result that is not success."""

    reason: int

    def __str__(self) -> str:
        return REASONS.get(self.reason, f"data access result {self.reason}")


class Get(NamedTuple):
    """The wish to read one attribute."""

    invoke: int
    attribute: Attribute
    selector: int = 0
    """0: all of it; 1: a range; 2: entries."""
    access: bytes = b""
    """What goes with the selector."""


class GetNext(NamedTuple):
    """The wish to read the block after ``number``."""

    invoke: int
    number: int


class GetList(NamedTuple):
    """The wish to read several attributes."""

    invoke: int
    attributes: tuple[Attribute, ...]


class Action(NamedTuple):
    """The wish to have a method carried out."""

    invoke: int
    method: Attribute
    data: bytes = b""


class Got(NamedTuple):
    """What was read: an A-XDR element."""

    invoke: int
    data: bytes | Refusal


class GotBlock(NamedTuple):
    """A part of what was read."""

    invoke: int
    is_last: bool
    number: int
    data: bytes | Refusal


class GotList(NamedTuple):
    """What was read of several attributes; see ``read_results``."""

    invoke: int
    data: bytes


class Acted(NamedTuple):
    """What a method came to."""

    invoke: int
    reason: int
    """0: success."""
    data: bytes = b""


class Unserved(NamedTuple):
    """The meter cannot take the request itself: an exception response."""

    state: int
    service: int
    counter: int | None = None
    """The invocation counter that it waits for."""

    def __str__(self) -> str:
        state = _STATES.get(self.state, f"state error {self.state}")
        service = _SERVICES.get(self.service, f"service error {self.service}")
        return f"{state}, {service}" + ("" if self.counter is None else f" ({self.counter} is expected)")


Request = Get | GetNext | GetList | Action
Answer = Got | GotBlock | GotList | Acted | Unserved


def encode_request(request: Request) -> bytes:
    """Return the APDU of a client's wish."""
    match request:
        case Get(invoke, attribute, selector, access):
            selection = bytes((1, selector)) + access if selector else b"\0"
            return bytes((GET, _NORMAL, invoke)) + bytes(attribute) + selection
        case GetNext(invoke, number):
            return bytes((GET, _NEXT, invoke)) + number.to_bytes(_NUMBER_BYTES, "big")
        case GetList(invoke, attributes):
            listed = b"".join(bytes(attribute) + b"\0" for attribute in attributes)
            return bytes((GET, _LIST, invoke)) + write_length(len(attributes)) + listed
        case Action(invoke, method, data):
            return bytes((ACTION, _NORMAL, invoke)) + bytes(method) + (b"\1" + data if data else b"\0")


def decode_request(apdu: bytes) -> Request:
    """Return the wish in an APDU.

    Raises:
        GrammarError: it is none of those above, or cut (``CutError``).
    """
    kind, invoke = _head(apdu)
    if kind == (GET, _NEXT):
        return GetNext(invoke, int.from_bytes(_taken(apdu, _HEAD_BYTES, _NUMBER_BYTES), "big"))
    if kind == (GET, _LIST):
        count, at = read_length(apdu, _HEAD_BYTES)
        attributes = []
        for _ in range(count):
            attributes.append(_attribute(apdu, at))
            if apdu[at + _ATTRIBUTE_BYTES : at + _ATTRIBUTE_BYTES + 1] != b"\0":
                raise GrammarError("a list of attributes has selective access, or is cut")
            at += _ATTRIBUTE_BYTES + 1
        return GetList(invoke, tuple(attributes))
    if kind not in ((GET, _NORMAL), (ACTION, _NORMAL)):
        raise GrammarError(f"an APDU of kind {apdu[0]:02x} {apdu[1]:02x} is no request that is known")
    attribute = _attribute(apdu, _HEAD_BYTES)
    at = _HEAD_BYTES + _ATTRIBUTE_BYTES
    is_more = _taken(apdu, at, 1) != b"\0"
    if apdu[0] == ACTION:
        return Action(invoke, attribute, apdu[at + 1 :] if is_more else b"")
    return Get(invoke, attribute, _taken(apdu, at + 1, 1)[0], apdu[at + 2 :]) if is_more else Get(invoke, attribute)


def encode_answer(answer: Answer) -> bytes:
    """Return the APDU of a meter's answer."""
    match answer:
        case Got(invoke, data):
            return bytes((GOT, _NORMAL, invoke)) + encode_result(data)
        case GotBlock(invoke, is_last, number, data):
            head = bytes((GOT, _BLOCK, invoke, is_last)) + number.to_bytes(_NUMBER_BYTES, "big")
            return head + (bytes((1, data.reason)) if isinstance(data, Refusal) else _raw(data))
        case GotList(invoke, data):
            return bytes((GOT, _LIST, invoke)) + data
        case Acted(invoke, reason, data):
            return bytes((ACTED, _NORMAL, invoke, reason)) + (b"\1\0" + data if data else b"\0")
        case Unserved(state, service, counter):
            return bytes((EXCEPTION, state, service)) + (b"" if counter is None else counter.to_bytes(4, "big"))


def decode_answer(apdu: bytes) -> Answer:
    """Return the answer in an APDU.

    Raises:
        GrammarError: it is none of those above, or cut (``CutError``).
    """
    if apdu[:1] == bytes((EXCEPTION,)):
        state, service = _taken(apdu, 1, 2)
        has_counter = service == _COUNTER_ERROR and len(apdu) >= _HEAD_BYTES + _NUMBER_BYTES
        return Unserved(state, service, int.from_bytes(apdu[3:7], "big") if has_counter else None)
    kind, invoke = _head(apdu)
    if kind == (GOT, _NORMAL):
        return Got(invoke, _result(apdu, _HEAD_BYTES))
    if kind == (GOT, _LIST):
        return GotList(invoke, apdu[_HEAD_BYTES:])
    if kind == (GOT, _BLOCK):
        is_last = _taken(apdu, _HEAD_BYTES, 1) != b"\0"
        number = int.from_bytes(_taken(apdu, _HEAD_BYTES + 1, _NUMBER_BYTES), "big")
        return GotBlock(invoke, is_last, number, _block(apdu, _HEAD_BYTES + 1 + _NUMBER_BYTES))
    if kind != (ACTED, _NORMAL):
        raise GrammarError(f"an APDU of kind {apdu[0]:02x} {apdu[1]:02x} is no answer to a get or an action")
    reason, has_data = _taken(apdu, _HEAD_BYTES, 2)
    data = _result(apdu, _HEAD_BYTES + 2) if has_data else b""
    return Acted(invoke, reason, b"" if isinstance(data, Refusal) else data)


def encode_result(data: bytes | Refusal) -> bytes:
    """Return what was read of one attribute, or why it was not."""
    return bytes((1, data.reason)) if isinstance(data, Refusal) else b"\0" + data


def encode_results(results: Sequence[bytes | Refusal]) -> bytes:
    """Return the data of a ``GotList``."""
    return write_length(len(results)) + b"".join(map(encode_result, results))


def read_value(data: bytes) -> Element:
    """Return the one element that ``data`` is.

    Raises:
        GrammarError: it is none, or more follows.
    """
    [value], end = read_elements(data, 0, 1)
    if end != len(data):
        raise GrammarError(f"a value ends at byte {end} of {len(data)}")
    return value


def read_results(data: bytes) -> list[Element | Refusal]:
    """Return what the data of a ``GotList`` say of each attribute.

    Raises:
        GrammarError: they are none.
    """
    count, at = read_length(data, 0)
    results: list[Element | Refusal] = []
    for _ in range(count):
        if _taken(data, at, 1) == b"\0":
            [value], at = read_elements(data, at + 1, 1)
            results.append(value)
        else:
            results.append(Refusal(_taken(data, at + 1, 1)[0]))
            at += 2
    if at != len(data):
        raise GrammarError(f"a list of results ends at byte {at} of {len(data)}")
    return results


def _head(apdu: bytes) -> tuple[tuple[int, int], int]:
    first, second, invoke = _taken(apdu, 0, _HEAD_BYTES)
    return (first, second), invoke


def _taken(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise CutError("the APDU ends before its end")
    return data[at : at + size]


def _attribute(apdu: bytes, at: int) -> Attribute:
    octets = _taken(apdu, at, _ATTRIBUTE_BYTES)
    return Attribute(int.from_bytes(octets[:2], "big"), Obis.from_bytes(octets[2:8]), octets[8])


def _result(apdu: bytes, at: int) -> bytes | Refusal:
    if _taken(apdu, at, 1) == b"\0":
        return apdu[at + 1 :]
    return Refusal(_taken(apdu, at + 1, 1)[0])


def _raw(data: bytes) -> bytes:
    return b"\0" + write_length(len(data)) + data


def _block(apdu: bytes, at: int) -> bytes | Refusal:
    if _taken(apdu, at, 1) != b"\0":
        return Refusal(_taken(apdu, at + 1, 1)[0])
    size, start = read_length(apdu, at + 1)
    return _taken(apdu, start, size)
