"""The DLMS client and the virtual meter beside dlms-cosem 21.3.2: each understands the other."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from dlms_cosem import cosem, enumerations, security
from dlms_cosem.clients.dlms_client import DataResultError, DlmsClient
from dlms_cosem.cosem.selective_access import RangeDescriptor
from dlms_cosem.exceptions import DlmsClientException
from dlms_cosem.hdlc import address, frames
from dlms_cosem.protocol import acse, xdlms

from meterway.core.obis import Obis
from meterway.meter import axdr_write as write
from meterway.meter import dlms_association as association
from meterway.meter.dlms_apdu import (
    Action,
    Attribute,
    Get,
    GetNext,
    Got,
    GotBlock,
    Refusal,
    Unserved,
    encode_answer,
    encode_request,
    read_value,
)
from meterway.meter.dlms_association import AssociationRequest, AssociationResponse, Initiated, Mechanism
from meterway.meter.dlms_hdlc import ANSWER_LLC, COMMAND_LLC, HdlcLine, client_address, server_address
from meterway.meter.dlms_protection import Protection
from meterway.meter.virtual.answer_dlms import AnsweringDlmsMeter
from meterway.meter.virtual.dlms_side import DlmsSide, Rows
from support.dlms_wire import BERLIN, CLOCK, COLUMNS, IMPORT, KEYS, LOAD, NOON, OTHER_KEYS, SIDE, SocketMeter, rows

TITLE = b"MWY\0\0\0\0\1"
LOAD_ROWS = cosem.CosemAttribute(
    interface=enumerations.CosemInterface.PROFILE_GENERIC, instance=cosem.Obis(1, 0, 99, 1, 0, 255), attribute=2
)
IMPORT_VALUE = cosem.CosemAttribute(
    interface=enumerations.CosemInterface.REGISTER, instance=cosem.Obis(1, 0, 1, 8, 0, 255), attribute=2
)
LAST_DAY = RangeDescriptor(
    restricting_object=cosem.selective_access.CaptureObject(
        cosem_attribute=cosem.CosemAttribute(
            interface=enumerations.CosemInterface.CLOCK, instance=cosem.Obis(0, 0, 1, 0, 0, 255), attribute=2
        ),
        data_index=0,
    ),
    from_value=NOON - timedelta(hours=12),
    to_value=NOON - timedelta(hours=10),
)


@contextmanager
def their_client(side: DlmsSide, **kwargs: Any) -> Iterator[DlmsClient]:
    """Yield dlms-cosem's client, connected to our virtual meter through a real socket."""
    with SocketMeter(AnsweringDlmsMeter(replace(side, transport="wrapper"))) as far:
        client = DlmsClient.with_tcp_transport(
            "127.0.0.1", far.port, client_logical_address=side.client, server_logical_address=1, timeout=20, **kwargs
        )
        client.connect()
        try:
            client.associate()
            yield client
            client.release_association()
        finally:
            client.disconnect()


def test_their_client_reads_our_meter() -> None:
    with their_client(SIDE) as client:
        assert read_value(client.get(IMPORT_VALUE)) == 1234567


def test_their_client_reads_our_load_profile_by_range() -> None:
    with their_client(SIDE) as client:
        found = read_value(client.get(LOAD_ROWS, access_descriptor=LAST_DAY))
        assert isinstance(found, list)
        assert [row[1] for row in found if isinstance(row, list)] == list(range(1000, 1009))


def test_their_client_reads_our_blocks() -> None:
    side = replace(SIDE, apdu_bytes=200, profiles={LOAD: Rows(columns=COLUMNS, rows=rows(96))})
    with their_client(side) as client:
        found = read_value(client.get(LOAD_ROWS))
        assert isinstance(found, list)
        assert len(found) == 96


def test_their_client_sends_our_meter_a_password() -> None:
    side = replace(SIDE, client=1, security="password", password="12345678")
    low = enumerations.AuthenticationMechanism.LLS
    with their_client(side, authentication_method=low, password=b"12345678") as client:
        assert read_value(client.get(IMPORT_VALUE)) == 1234567
    with pytest.raises(DlmsClientException), their_client(side, authentication_method=low, password=b"1234567x"):
        pass


GMAC = replace(SIDE, client=1, security="gmac", keys=KEYS, is_ciphered=True)
THEIR_GMAC = {
    "authentication_method": enumerations.AuthenticationMechanism.HLS_GMAC,
    "encryption_key": KEYS.encryption,
    "authentication_key": KEYS.authentication,
    "client_system_title": TITLE,
    "client_initial_invocation_counter": 42,
}


def test_their_client_and_our_meter_prove_that_they_have_the_keys() -> None:
    with their_client(GMAC, **THEIR_GMAC) as client:
        assert read_value(client.get(IMPORT_VALUE)) == 1234567
        with pytest.raises(DataResultError, match="OBJECT_UNDEFINED"):
            client.get(replace_attribute(IMPORT_VALUE, 9))


def test_their_client_with_another_key_is_refused() -> None:
    wrong = {**THEIR_GMAC, "encryption_key": OTHER_KEYS.encryption}
    with pytest.raises(DlmsClientException, match="extra info: 4"), their_client(GMAC, **wrong):
        pass


def replace_attribute(attribute: Any, number: int) -> Any:
    return cosem.CosemAttribute(interface=attribute.interface, instance=attribute.instance, attribute=number)


INITIATE = association.encode_initiate(1200)


@pytest.mark.parametrize(
    ("request_", "theirs"),
    [
        (AssociationRequest(information=INITIATE), None),
        (
            AssociationRequest(mechanism=Mechanism.LOW, secret=b"12345678", information=INITIATE),
            enumerations.AuthenticationMechanism.LLS,
        ),
        (
            AssociationRequest(
                title=TITLE, mechanism=Mechanism.HIGH_GMAC, secret=b"0123456789abcdef", information=INITIATE
            ),
            enumerations.AuthenticationMechanism.HLS_GMAC,
        ),
    ],
)
def test_they_understand_our_association_request(request_: AssociationRequest, theirs: Any) -> None:
    apdu = association.encode_request(request_)
    found = acse.ApplicationAssociationRequest.from_bytes(apdu)
    assert found.authentication == theirs
    assert found.authentication_value == (request_.secret or None)
    assert (found.system_title or b"") == request_.title
    assert found.ciphered is False
    conformance = found.user_information.content.proposed_conformance
    assert (conformance.get, conformance.selective_access, conformance.action) == (True, True, True)
    assert conformance.multiple_references
    assert conformance.block_transfer_with_get_or_read
    assert not conformance.set
    assert found.user_information.content.client_max_receive_pdu_size == 1200
    assert found.to_bytes() == apdu


def test_they_understand_our_association_response() -> None:
    response = AssociationResponse(
        diagnostic=14,
        title=TITLE,
        mechanism=Mechanism.HIGH_GMAC,
        challenge=b"0123456789abcdef",
        information=association.encode_initiated(Initiated(0x1015, 1024)),
    )
    found = acse.ApplicationAssociationResponse.from_bytes(association.encode_response(response))
    assert found.result is enumerations.AssociationResult.ACCEPTED
    assert found.authentication is enumerations.AuthenticationMechanism.HLS_GMAC
    assert found.authentication_value == b"0123456789abcdef"
    assert found.system_title == TITLE
    assert found.user_information.content.server_max_receive_pdu_size == 1024


def test_they_understand_our_requests() -> None:
    attribute = Attribute(3, IMPORT, 2)
    get = xdlms.GetRequestNormal.from_bytes(encode_request(Get(0xC1, attribute)))
    assert get.cosem_attribute == IMPORT_VALUE
    following = xdlms.GetRequestNext.from_bytes(encode_request(GetNext(0xC1, 7)))
    assert following.block_number == 7
    method = Attribute(15, Obis(0, 0, 40, 0, 0), 1)
    action = xdlms.ActionRequestNormal.from_bytes(encode_request(Action(0xC1, method, write.octets(b"proof"))))
    assert action.data == write.octets(b"proof")


def test_they_understand_our_range() -> None:
    column = write.structure(write.uint16(8), write.octets(bytes(CLOCK)), write.int8(2), write.uint16(0))
    limits = [write.octets(write.date_time(each)) for each in (NOON - timedelta(hours=12), NOON - timedelta(hours=10))]
    access = write.structure(column, *limits, write.array())
    ours = encode_request(Get(0xC1, Attribute(7, LOAD, 2), 1, access))
    found = xdlms.GetRequestNormal.from_bytes(ours)
    assert found.access_selection.from_value == datetime(2026, 7, 1, tzinfo=BERLIN)
    assert found.access_selection.to_value == datetime(2026, 7, 1, 2, tzinfo=BERLIN)


def test_they_understand_our_answers() -> None:
    assert xdlms.GetResponseNormal.from_bytes(encode_answer(Got(0xC1, b"\x11\x05"))).data == b"\x11\x05"
    refused = xdlms.GetResponseNormalWithError.from_bytes(encode_answer(Got(0xC1, Refusal(4))))
    assert refused.error is enumerations.DataAccessResult.OBJECT_UNDEFINED
    block = xdlms.GetResponseWithBlock.from_bytes(encode_answer(GotBlock(0xC1, is_last=False, number=3, data=b"abc")))
    assert (block.block_number, block.data) == (3, b"abc")
    exception = xdlms.ExceptionResponse.from_bytes(encode_answer(Unserved(1, 2)))
    assert exception.service_error is enumerations.ServiceException.SERVICE_NOT_SUPPORTED


@pytest.mark.parametrize("suite", [0, 1])
def test_our_proofs_and_seals_are_theirs(suite: int) -> None:
    protection = Protection(KEYS, TITLE, 42, suite=suite)
    proof = protection.prove(b"0123456789abcdef")
    control = security.SecurityControlField(security_suite=suite, authenticated=True)
    theirs = security.gmac(control, TITLE, 42, KEYS.encryption, KEYS.authentication, b"0123456789abcdef")
    assert proof == control.to_bytes() + (42).to_bytes(4, "big") + theirs
    sealed = xdlms.GeneralGlobalCipher.from_bytes(protection.seal(INITIATE, is_general=True))
    plain = security.decrypt(
        sealed.security_control,
        TITLE,
        sealed.invocation_counter,
        KEYS.encryption,
        sealed.ciphered_text,
        KEYS.authentication,
    )
    assert (plain, sealed.invocation_counter) == (INITIATE, 43)


def test_our_frames_are_theirs() -> None:
    client = address.HdlcAddress(16, None, "client")
    server = address.HdlcAddress(1, 17, "server")
    line = HdlcLine(client_address(16), server_address(1, 17, 2))
    assert line.connect() == frames.SetNormalResponseModeFrame(server, client).to_bytes()
    information = frames.InformationFrame(
        server, client, COMMAND_LLC + INITIATE, send_sequence_number=0, receive_sequence_number=0
    )
    assert line.send(INITIATE) == information.to_bytes()
    answer = frames.InformationFrame(
        client, server, ANSWER_LLC + b"hello", send_sequence_number=0, receive_sequence_number=1
    )
    line.connect()
    line.feed(frames.UnNumberedAcknowledgmentFrame(client, server).to_bytes())
    line.send(INITIATE)
    [heard] = line.feed(answer.to_bytes())
    assert getattr(heard, "apdu", None) == b"hello"
    assert line.disconnect() == frames.DisconnectFrame(server, client).to_bytes()
