"""Every capture of a DLMS client and a server in the corpus: what it says, built again where we would send it.

The captures are APDUs and frames of a library's own tests, some of them wrong on purpose; what is stated here is read
off their bytes and agrees with dlms-cosem (``test_dlms_pull_oracle``). The keys are those of the DLMS UA's published
example. Set requests are refused: nothing is ever changed in a meter.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

import pytest

from meterway.core.obis import Obis
from meterway.meter import axdr_write as write
from meterway.meter import dlms_association as association
from meterway.meter.axdr import CutError, GrammarError, read_elements
from meterway.meter.dlms_apdu import (
    Action,
    Attribute,
    Get,
    Got,
    GotBlock,
    GotList,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
    read_results,
    read_value,
)
from meterway.meter.dlms_association import AssociationRequest, AssociationResponse, Initiated, Mechanism
from meterway.meter.dlms_hdlc import COMMAND_LLC, receivable_bytes
from meterway.meter.dlms_layout import clock
from meterway.meter.dlms_line import Heard, WrapperLine
from meterway.meter.dlms_protection import Protection
from meterway.meter.dlms_security import read_sealed
from meterway.meter.hdlc import HdlcFrame, encode_frame, read_frame
from meterway.meter.keys import Keys
from support.corpus import Capture, capture_parameters

KEYS: Final = Keys(bytes(range(16)), bytes(range(0xD0, 0xE0)))
CLIENT_TITLE: Final = bytes.fromhex("4d4d4d0000bc614e")
EXAMPLE_COUNTER: Final = 0x01234567
DEDICATED_KEY: Final = bytes.fromhex("00112233445566778899aabbccddeeff")
LOAD: Final = Obis(1, 0, 99, 1, 0)
HLS_REPLY: Final = Attribute(15, Obis(0, 0, 40, 0, 0), 1)
ROWS_IN_PROFILE: Final = b"\x01\x82\x05\xa0"


def named(capture: Capture) -> str:
    return capture.name.removeprefix("dlmscosem_")


def built(request: AssociationRequest) -> Callable[[bytes], None]:
    def check(data: bytes) -> None:
        assert association.decode_request(data) == request
        assert association.encode_request(request) == data

    return check


def granted(response: AssociationResponse) -> Callable[[bytes], None]:
    def check(data: bytes) -> None:
        assert association.decode_response(data) == response
        assert association.encode_response(response) == data

    return check


def initiate(conformance: int, receivable: int) -> bytes:
    return association.encode_initiate(receivable, conformance=conformance)


def initiated(conformance: int, receivable: int) -> bytes:
    return association.encode_initiated(Initiated(conformance, receivable))


def sealed_initiate() -> bytes:
    plain = association.encode_initiate(1200, conformance=0x7E1F, dedicated_key=DEDICATED_KEY)
    return Protection(KEYS, CLIENT_TITLE, EXAMPLE_COUNTER).seal(plain)


def block(number: int, *, is_last: bool, size: int, begins: bytes) -> Callable[[bytes], None]:
    def check(data: bytes) -> None:
        answer = decode_answer(data)
        assert isinstance(answer, GotBlock)
        assert isinstance(answer.data, bytes)
        assert (answer.invoke, answer.is_last, answer.number, len(answer.data)) == (0xC1, is_last, number, size)
        assert answer.data.startswith(begins)
        assert encode_answer(answer) == data

    return check


def ranged(start: bytes, end: bytes, *, is_request: bool = True) -> Callable[[bytes], None]:
    column = write.structure(write.uint16(8), write.octets(bytes(Obis(0, 0, 1, 0, 0))), write.int8(2), write.uint16(0))
    access = write.structure(column, write.octets(start), write.octets(end), write.array())

    def check(data: bytes) -> None:
        request = Get(0xC1, Attribute(7, LOAD, 2), 1, access)
        if is_request:
            assert decode_request(data) == request
            assert encode_request(request) == data
        else:
            assert data in (b"\x01" + access, b"\x01\x01" + access)

    return check


def refused(data: bytes) -> None:
    for decode in (decode_answer, decode_request, association.decode_request, association.decode_response):
        with pytest.raises(GrammarError):
            decode(data)


def begun_profile(data: bytes) -> None:
    """Assert that this is the first of 1440 rows, cut; the first has a time, the others follow it."""
    assert data.startswith(ROWS_IN_PROFILE)
    [row], _ = read_elements(data, 4, 1)
    assert isinstance(row, list)
    assert isinstance(row[0], bytes)
    assert clock(row[0], UTC) == datetime(2019, 12, 19, 2, 0, tzinfo=timezone(timedelta(hours=1)))
    assert row[1:] == [6, 1517, 1620]
    with pytest.raises(CutError):
        read_value(data)


def cut_in_rows(data: bytes) -> None:
    rows, _ = read_elements(data, 0, 2)
    assert rows == [1620, [None, 6, 1517, 1620]]


def whole_rows(data: bytes) -> None:
    value = read_value(data)
    assert isinstance(value, list)
    assert len(value) == 4
    assert value[1:] == [[None, 6, 1517, 1620]] * 3


def misnumbered_list(data: bytes) -> None:
    """Assert that what is marked as a list of results, and holds a block, is seen to be none."""
    answer = decode_answer(data)
    assert isinstance(answer, GotList)
    with pytest.raises(GrammarError):
        read_results(answer.data)


def cut_block(data: bytes) -> None:
    with pytest.raises(CutError):
        decode_answer(data)


def hls_action(data: bytes) -> None:
    proof = bytes.fromhex("1000001a90e6d2221fa2fd85eed61acc22")
    request = Action(0xC0, HLS_REPLY, write.octets(proof))
    assert decode_request(data) == request
    assert encode_request(request) == data


def action_as_answer(data: bytes) -> None:
    answer = decode_answer(data)
    assert isinstance(answer, Got)
    assert isinstance(answer.data, bytes)
    with pytest.raises(GrammarError):
        read_value(answer.data)


def sealed_push(counter: int) -> Callable[[bytes], None]:
    def check(data: bytes) -> None:
        sealed = read_sealed(data)
        assert (sealed.title.hex(), sealed.control, sealed.counter) == ("2f19229199164103", 0x30, counter)
        refused(data)

    return check


def wrapped_push(counter: int) -> Callable[[bytes], None]:
    def check(data: bytes) -> None:
        [heard] = WrapperLine(1, 1).feed(data)
        assert isinstance(heard, Heard)
        assert heard.raw == data
        assert read_sealed(heard.apdu).counter == counter

    return check


def plain_push(data: bytes) -> None:
    [value], end = read_elements(data, 6, 1)
    assert isinstance(value, bytes)
    assert (len(value), end) == (34, len(data))
    refused(data)


def frame(apdu_begins: bytes, *, control: int, destination: bytes, source: bytes) -> Callable[[bytes], None]:
    def check(data: bytes) -> None:
        found = read_frame(data, 0)
        assert isinstance(found, HdlcFrame)
        assert (found.header.control, found.header.destination, found.header.source) == (control, destination, source)
        assert found.information.startswith(apdu_begins)
        assert encode_frame(found.information, destination=destination, source=source, control=control) == data

    return check


def accepted_connection(data: bytes) -> None:
    found = read_frame(data, 0)
    assert isinstance(found, HdlcFrame)
    assert (found.header.control, found.header.destination, found.header.source) == (0x73, b"\x21", b"\x02\x23")
    assert receivable_bytes(found.information) == 154


def llc_and_request(data: bytes) -> None:
    assert data.startswith(COMMAND_LLC)
    built(AssociationRequest(information=initiate(0x1E1D, 0xFFFF)))(data[3:])


def sealed_request(data: bytes) -> None:
    request = AssociationRequest(
        is_ciphered=True,
        title=CLIENT_TITLE,
        mechanism=Mechanism.LOW,
        secret=b"12345678",
        information=sealed_initiate(),
    )
    built(request)(data)


def ciphertext(data: bytes) -> None:
    assert sealed_initiate().endswith(data)
    assert len(sealed_initiate()) == len(data) + 7


def proof_of_challenge(data: bytes) -> None:
    """Assert what a proof seals: control byte, authentication key, challenge. The proof is in the published example."""
    assert data == b"\x10" + (KEYS.authentication or b"") + b"P6wRJ21F"
    protection = Protection(KEYS, bytes.fromhex("4d4d4d0000000001"), 1)
    assert protection.prove(data[17:]).hex().upper() == "10000000011A52FE7DD3E72748973C1E28"


def initiate_with_key(data: bytes) -> None:
    assert association.encode_initiate(1200, conformance=0x7E1F, dedicated_key=DEDICATED_KEY) == data
    assert association.decode_initiate(data) == Initiated(0x7E1F, 1200)


def equal(expected: Callable[[], bytes]) -> Callable[[bytes], None]:
    def check(data: bytes) -> None:
        assert data == expected()

    return check


STATED: Final[dict[str, Callable[[bytes], None]]] = {
    "aare_0": granted(AssociationResponse(information=initiated(0x501F, 500))),
    "aare_3": granted(
        AssociationResponse(
            diagnostic=14,
            mechanism=Mechanism.HIGH_GMAC,
            challenge=b"P6wRJ21F",
            information=initiated(0x501F, 500),
        )
    ),
    "aare_4": granted(AssociationResponse(information=initiated(0x1E1D, 1224))),
    "aarq_2": built(
        AssociationRequest(mechanism=Mechanism.HIGH_GMAC, secret=b"K56iVagY", information=initiate(0x7E1F, 1200))
    ),
    "aarq_3": sealed_request,
    "aarq_5": built(AssociationRequest(mechanism=2, secret=b"12345678", information=initiate(0x7E1F, 0xFFFF))),
    "aarq_6": built(AssociationRequest(information=initiate(0x1E1D, 0xFFFF))),
    "action_0": hls_action,
    "action_1": action_as_answer,
    "action_5": refused,
    "general_global_cipher_0": sealed_push(0x1E5),
    "general_global_cipher_3": plain_push,
    "get_0": block(1, is_last=False, size=0x49E, begins=ROWS_IN_PROFILE),
    "get_1": refused,
    "get_11": block(8, is_last=True, size=0x49E, begins=ROWS_IN_PROFILE),
    "get_13": cut_block,
    "get_17": begun_profile,
    "get_19": cut_in_rows,
    "get_2": misnumbered_list,
    "get_3": block(1, is_last=True, size=0x49E, begins=ROWS_IN_PROFILE),
    "get_7": block(19, is_last=True, size=0x17C, begins=bytes.fromhex("0600000654020400")),
    "get_9": misnumbered_list,
    "hdlc_0": accepted_connection,
    "hdlc_2": frame(COMMAND_LLC + b"\x60", control=0x10, destination=b"\x02\x23", source=b"\x21"),
    "hdlc_3": llc_and_request,
    "hdlc_4": frame(b"\xe6\xe7\x00\x61", control=0x30, destination=b"\x21", source=b"\x02\x23"),
    "initiate_0": initiate_with_key,
    "initiate_2": equal(sealed_initiate),
    "initiate_4": ciphertext,
    "parsers_0": whole_rows,
    "security_2": proof_of_challenge,
    "selective_access_0": ranged(bytes.fromhex("07e20601ff000300ffff8880"), bytes.fromhex("07e50106ff000300ffffc400")),
    "selective_access_1": ranged(bytes.fromhex("07e2020cff00000000800000"), bytes.fromhex("07e3020cff00000000800000")),
    "selective_access_2": ranged(
        bytes.fromhex("07e40101ff00030000ff8800"), bytes.fromhex("07e40106ff00030000ffc400"), is_request=False
    ),
    "selective_access_3": ranged(bytes.fromhex("07e10a010700000000ffc480"), bytes.fromhex("07e10a010701000000ffc480")),
    "selective_access_4": ranged(
        bytes.fromhex("07e10a010700000000ffc480"), bytes.fromhex("07e10a010701000000ffc480"), is_request=False
    ),
    **dict.fromkeys(("set_0", "set_1", "set_2", "set_7", "set_8"), refused),
    **{
        f"udp_message_{number}": wrapped_push(counter)
        for number, counter in (
            (1, 0x1E6),
            (3, 0x1E8),
            (4, 0x1E9),
            (5, 0x1EA),
            (6, 0x1EB),
            (7, 0x1EC),
            (8, 0x1EE),
            (9, 0x1EF),
            (11, 0x1F1),
            (12, 0x1F2),
        )
    },
}


@pytest.mark.parametrize("capture", capture_parameters("dlms_pull"))
def test_capture_says_what_is_stated(capture: Capture) -> None:
    STATED[named(capture)](capture.data)


@pytest.mark.parametrize("capture", capture_parameters("dlms_pull"))
def test_every_prefix_of_a_capture_fails_cleanly(capture: Capture) -> None:
    for end in range(0, len(capture.data), 1 + len(capture.data) // 100):
        for decode in (decode_answer, decode_request, association.decode_response, association.decode_request):
            try:
                decode(capture.data[:end])
            except GrammarError:
                continue
