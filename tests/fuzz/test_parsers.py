"""Whatever a network says, what reads it refuses it with one of our own errors, in a sentence of bounded length.

The codecs of meters have a gate of their own (``meterway.testing``); brokers and HTTP are fuzzed beside this file.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from meterway.bus import callout, filters, nats_jwt, refusals
from meterway.cloud import bulk, curve, guard, kept_aside, meters, paging, query, signing_keys
from meterway.cloud.access import middleware, people, rules
from meterway.cloud.decide import Window, decide
from meterway.cloud.devices import answers as devices
from meterway.cloud.privacy import answers as privacy
from meterway.concentrator import forward
from meterway.core import enrolment, hosts, provisioning, receipts, reports, signatures, topics, wire
from meterway.core.errors import BadDataError, SetupError
from support.fuzz import damaged, damaged_text, fuzzing

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LIMIT_SENTENCE_CHARACTERS = 3000

READING = (
    b'{"meterReadingIdentifier":"019ca8f4-9d40-7abc-8def-0123456789ab","readingTime":"2026-11-23T09:15:00Z",'
    b'"sequenceNumber":4711,"faultCode":null,"propertyValues":[{"operationalPropertyDefinition":{"propertyId":'
    b'"OBIS_1.8.0"},"numericalValue":12345.678,"unit":"kWh"},{"operationalPropertyDefinition":{"propertyId":'
    b'"OBIS_0.0.0"},"textValue":"1EMH"}],"meterIndividual":{"meterIndividualId":"m1"}}'
)
FLAT = (
    b'{"meterId":"m1","readingTime":"2026-11-23T10:15:00+01:00","propertyValues":[{"propertyName":"1.8.0",'
    b'"numericalValue":"12345.678","unit":"kWh"},{"propertyName":"1.7.0","numericalValue":0.4,"unit":"kW"}]}'
)
SIGNED = signatures.Signer(Ed25519PrivateKey.from_private_bytes(bytes(32))).sign(READING)
STATUS = b'{"state":"offline","since":"2026-11-23T09:15:00Z","reason":"link","counters":{"telegrams":4}}'
DESCRIPTION = (
    b'{"meterIndividualId":"m1","physicalMeterClass":"ELECTRICITY","protocol":"sml","link":"serial","family":"x",'
    b'"intervalS":1.0,"properties":[{"propertyId":"OBIS_1.8.0","unit":"kWh"}],"unmapped":["1-0:96.5.0"]}'
)
CONFIG = (
    b'{"MeterIndividualId":"m1","OperationalPropertyMapping":[{"from":"1-0:1.8.0","to":"OBIS_1.8.0"}],'
    b'"CloudAuth":{"username":"a","password":"b"}}'
)
LOGIN = (
    b'{"nats":{"server_id":{"id":"N"},"user_nkey":"U","client_info":{"type":"mqtt","mqtt_id":"a:1"},'
    b'"connect_opts":{"user":"a","pass":"b"}}}'
)
FAULT = b'{"time":"2026-11-23T09:15:00Z","reason":"bad-checksum","message":"It is.","data":"aGk=","sizeBytes":2}'
QUERY = (
    b'{"readingTimeStart":"2026-11-23T00:00:00+01:00","readingTimeEnd":"2026-11-24T00:00:00+01:00","meterIds":["m1"],'
    b'"operationalProperties":[{"specificPropertyName":"OBIS_1.8.0","numericalValueGreaterThan":12000}],"pageSize":1}'
)
NEXT_PAGE = msgspec.json.encode(
    {
        **msgspec.json.decode(QUERY),
        "pageToken": paging.encode_token(query.parse_query(QUERY), query.Cursor(1, NOW, 1, UUID(int=7))),
    }
)
CODE = enrolment.EnrolmentCode(bytes(range(11)), bytes(range(13)))
BODIES: dict[type[msgspec.Struct], bytes] = {
    people.SignIn: b'{"login":"ada","password":"x"}',
    people.LinkUse: b'{"secret":"s","name":"Ada","password":"x"}',
    people.PasswordChange: b'{"old":"a","new":"b"}',
    people.TokenNew: b'{"name":"billing","scopes":["read","write"],"days":90}',
    people.AccountNew: b'{"login":"ada","role":"member","name":"Ada","tenantId":"main"}',
    people.AccountChange: b'{"name":"Ada","role":"auditor","disabled":true}',
    people.TenantNew: b'{"tenantId":"north","name":"North"}',
    people.HouseholdNew: b'{"name":"River Lane 3","tenantId":"main"}',
    people.ResidentNew: b'{"login":"ada","fromTime":"2026-11-01T00:00:00Z","untilTime":null}',
    privacy.ConsentNew: b'{"householdId":1,"propertyIds":["OBIS_1.8.0"],"expiresTime":"2027-11-01T00:00:00Z"}',
    privacy.ErasureNew: b'{"householdId":1,"untilTime":"2026-11-01T00:00:00Z","reason":"objection"}',
    privacy.Retention: b'{"rules":[{"propertyId":"OBIS_1.8.0","keepDays":30}]}',
    privacy.ResearchQuery: (
        b'{"propertyName":"OBIS_1.8.0","fromTime":"2026-11-01T00:00:00Z","untilTime":"2026-11-02T00:00:00Z"}'
    ),
}


def _encoded(claims: bytes) -> bytes:
    return b".".join((b"e30", nats_jwt._base64(claims), b"c2ln"))


def _page(body: bytes) -> object:
    return paging.page_of(query.parse_query(body))


def _signed(payload: bytes) -> object:
    found = signatures.split(payload)
    return found and (found.is_genuine(), found.subject())


def _decided(payload: bytes) -> object:
    """Tell what the cloud does with a payload on each topic; that must never raise."""
    window = Window(past=timedelta(days=400), future=timedelta(hours=1))
    return [
        decide(f"concentrator/c/smartMeterMessage/m1/{kind}", payload, now=NOW, window=window)
        for kind in topics.SpecificTopic
    ]


def _bulk(name: str, text: str) -> object:
    return bulk.parse_bulk([(name, text)])


def _body(kind: type[msgspec.Struct], data: bytes) -> object:
    """Read a body, and check in it what its type alone does not say."""
    found = people.parse(data, kind)
    match found:
        case people.AccountNew():
            return people.check_login(found.login), people.check_name(found.name)
        case privacy.ConsentNew():
            return privacy.check_consent(found, NOW)
        case privacy.ErasureNew():
            return privacy.check_erasure(found, NOW)
        case privacy.Retention():
            return privacy.check_retention(found)
        case privacy.ResearchQuery():
            return privacy.days_of(found, NOW)
    return found


class Reader(NamedTuple):
    """Something that reads what came over a network."""

    read: Callable[[Any], object]
    seeds: tuple[Any, ...]
    refuses: tuple[type[Exception], ...] = (BadDataError,)
    """How it may; () where it must always answer."""


OF_BYTES = {
    "reading": Reader(lambda data: wire.decode(data, meter_id="m1"), (READING, FLAT, SIGNED)),
    "signature": Reader(_signed, (SIGNED,)),
    "receipt": Reader(receipts.decode, (bytes(48),)),
    "status": Reader(lambda data: reports.decode(data, reports.Status), (STATUS,)),
    "description": Reader(lambda data: reports.decode(data, reports.MeterDescription), (DESCRIPTION,)),
    "fault": Reader(lambda data: reports.decode(data, reports.Fault), (FAULT,)),
    "what arrives": Reader(_decided, (READING, FLAT, SIGNED, STATUS, DESCRIPTION, FAULT), ()),
    "provisioning": Reader(lambda data: provisioning.decode(data, where="c.json"), (CONFIG,), (SetupError,)),
    "log-in at NATS": Reader(lambda data: nats_jwt.read_claims(_encoded(data), callout._Request), (LOGIN,)),
    "token of NATS": Reader(lambda data: nats_jwt.read_claims(data, callout._Request), (_encoded(LOGIN),)),
    "query": Reader(_page, (QUERY, NEXT_PAGE)),
    "change of a meter": Reader(meters.parse_change, (b'{"claimed":true,"name":"Flat 3","householdId":1}',)),
    "replay": Reader(kept_aside.parse_replay, (b'{"ids":[1,2]}',)),
    "signing key": Reader(signing_keys.parse_signing_key, (b'{"publicKey":"' + b"A" * 43 + b'","required":true}',)),
    "device": Reader(devices.parse_new, (b'{"kind":"adapter","id":"cellar","meterIds":["m1"]}',)),
    "change of a device": Reader(devices.parse_device_change, (b'{"meterIds":["m1","m2"]}',)),
    "enrolment": Reader(devices.parse_enrolment, (f'{{"code":"{CODE}","kind":"adapter"}}'.encode(),)),
    **{kind.__name__: Reader(partial(_body, kind), (body,)) for kind, body in BODIES.items()},
}

OF_TEXT = {
    "topic of an adapter": Reader(topics.split_smart_meter_topic, ("smartMeterMessage/m1/readings",)),
    "topic of a concentrator": Reader(
        topics.split_concentrator_topic, ("concentrator/c/smartMeterMessage/m1/status", "concentrator/c/faults")
    ),
    "what is passed on": Reader(
        lambda text: forward.decide("c", text, 1, limit_bytes=100), ("smartMeterMessage/m1/readings",), ()
    ),
    "topic": Reader(filters.check_topic, ("a/b/c",)),
    "topic filter": Reader(filters.check_filter, ("a/+/#",)),
    "enrolment code": Reader(enrolment.EnrolmentCode.parse, (str(CODE), str(CODE)[:23])),
    "public key": Reader(signatures.parse_key, ("A" * 43,)),
    "log of NATS": Reader(
        refusals.parse_nats,
        (
            '[ERR] 127.0.0.1:1 - mid:7 - "a:1" - Publish Violation - User "a", Subject "smartMeterMessage.x"',
            '[ERR] 127.0.0.1:1 - mid:7 - "a" - authentication error - User "a"',
        ),
        (),
    ),
    "log of mosquitto": Reader(
        refusals.parse_mosquitto, ("1: Denied PUBLISH from a (d0, q1, r0, m1, 'a/b', ... (5 bytes))",), ()
    ),
    "Host header": Reader(guard.host_name, ("localhost:8080", "[::1]:80"), ()),
    "public name": Reader(hosts.is_public_name, ("meter.example.org", "10.0.0.1"), ()),
    "path": Reader(lambda text: rules.find("GET", text), ("/v1/meters/m1/curve", "/static/a.css"), ()),
    "cookie": Reader(
        lambda text: middleware.session_secret("https", Headers({"cookie": text.encode().decode("latin-1")})),
        ("__Host-meterway=abc; other=1",),
        (),
    ),
    "day": Reader(lambda text: curve.local_day(text, "Europe/Berlin", NOW), ("2026-11-23",)),
    "time zone": Reader(lambda text: curve.local_day("2026-11-23", text, NOW), ("Europe/Berlin", "../UTC")),
    "login": Reader(people.check_login, ("ada@example.org",)),
    **{
        f"bulk {name}": Reader(partial(_bulk, name), (seed,))
        for name, seed in {
            "readingTimeStart": "2026-11-23T00:00:00Z",
            "maxRows": "100",
            "meterIds": "m1",
            "operationalProperties": '[{"specificPropertyName":"OBIS_1.8.0","numericalValueGreaterThan":1}]',
            "format": "csv",
        }.items()
    },
}


def _try(reader: Reader, data: object) -> None:
    sentence = ""
    try:
        reader.read(data)
    except reader.refuses as error:
        sentence = str(error)
    assert len(sentence) < LIMIT_SENTENCE_CHARACTERS


@pytest.mark.parametrize("name", OF_BYTES)
def test_bytes_are_read_or_refused(name: str) -> None:
    reader = OF_BYTES[name]
    given(damaged(*reader.seeds))(fuzzing(lambda data: _try(reader, data)))()


@pytest.mark.parametrize("name", OF_TEXT)
def test_text_is_read_or_refused(name: str) -> None:
    reader = OF_TEXT[name]
    given(damaged_text(*reader.seeds))(fuzzing(lambda text: _try(reader, text)))()


@pytest.mark.parametrize("name", [*OF_BYTES, *OF_TEXT])
def test_what_is_damaged_here_was_good(name: str) -> None:
    reader = {**OF_BYTES, **OF_TEXT}[name]
    reader.read(reader.seeds[0])


@fuzzing
@given(damaged(READING, FLAT, SIGNED))
def test_what_is_read_can_be_written_and_read_again(payload: bytes) -> None:
    try:
        reading = wire.decode(payload, meter_id="m1")
    except BadDataError:
        return
    assert wire.decode(wire.encode(reading), meter_id="m1") == reading


@fuzzing
@given(st.binary(min_size=1, max_size=8), st.integers(0, len(SIGNED)))
def test_nobody_changes_what_is_signed(piece: bytes, place: int) -> None:
    changed = SIGNED[:place] + piece + SIGNED[place + len(piece) :]
    found = signatures.split(changed)
    if found is not None and found.is_genuine():
        assert found.message == READING
