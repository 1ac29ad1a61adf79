"""Every DLMS push of the corpus: how many telegrams, the stated values, the gate, and what two other libraries read."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from dlms_cosem import a_xdr
from han.autodecoder import AutoDecoder

from meterway.core.obis import Obis
from meterway.meter.axdr import Element, read_elements
from meterway.meter.codec import CodecError
from meterway.meter.dlms import LIMIT_BYTES, DlmsDecoder
from meterway.meter.family import push_lists
from meterway.meter.keys import Keys
from meterway.meter.recognise import recognise
from meterway.meter.telegram import Telegram
from meterway.testing import check_codec
from support.corpus import Capture, capture_parameters

VIENNA = ZoneInfo("Europe/Vienna")
LISTS = push_lists()

REFUSED = {
    "esphome_hdlc_landis_gyr_zmf100": ("bad-checksum",),
    "homey_described-list": ("bad-checksum",),
    "esphome_mbus_kmswest": ("encrypted",),
    "laendle_kaifa_stream30": ("encrypted",) * 30,
    "scs_lg_e450_UNENCRYPTED_INVALID_DATA": ("truncated", "truncated"),
}
"""Nothing is read of these: serial numbers were overwritten without mending the checksum (the second's JSON says that
it is wrong), the key is not published, a block is missing."""

ERRORS = {
    "homey_iskra-1": ("bad-syntax",),
    "scs_lg_e450_UNENCRYPTED_VALID_DATA": ("truncated",),
}
"""A telegram comes with an error: the data are cut within a right checksum; a push broke off before a whole one."""

NOT_STATED = {
    ("esphome_raw_energomera", None),
    ("esphome_raw_egd_example", "0.2.25.9.0.255"),
    ("tinetz_kaifa_example", "1.0.32.7.0.255"),
    (None, "0.0.0.0.0.0"),
}
"""Capture and code of what is no statement: placeholders of a reader that does not know the layout; the name of a list;
230.6 where the bytes are 0904, 230.8; a clock under a code of the reader's own."""

KEY_BEHIND_THE_FRAME = "36C66639E48A8CA4D6BC8B282A793BBB"
"""Stands behind one of two captures of the same telegram, and in the JSON of a third."""


def keys(capture: Capture) -> Keys:
    key, authentication = capture.about.get("key"), capture.about.get("auth_key")
    if capture.name.startswith("homey_austria"):
        key = KEY_BEHIND_THE_FRAME
    return Keys(bytes.fromhex(key) if key else None, bytes.fromhex(authentication) if authentication else None)


def decoder(capture: Capture, *, accept_repeats: bool = False) -> DlmsDecoder:
    return DlmsDecoder(VIENNA, keys=keys(capture), lists=LISTS, accept_repeats=accept_repeats)


def decode(capture: Capture) -> tuple[list[Telegram], list[str]]:
    made = decoder(capture)
    items = made.feed(capture.data, 0.0) + made.idle(1.0)
    return (
        [item for item in items if isinstance(item, Telegram)],
        [item.reason for item in items if isinstance(item, CodecError)],
    )


@pytest.mark.parametrize("capture", capture_parameters("dlms_push"))
def test_capture_is_recognised_and_gives_its_telegram(capture: Capture) -> None:
    recognised = recognise(capture.data)
    assert recognised is not None
    assert recognised.protocol == "dlms"
    telegrams, reasons = decode(capture)
    assert len(telegrams) == (0 if capture.name in REFUSED else 1)
    assert tuple(reasons) == REFUSED.get(capture.name, ERRORS.get(capture.name, ()))


@pytest.mark.parametrize("capture", capture_parameters("dlms_push"))
def test_stated_values_are_read(capture: Capture) -> None:
    if capture.name in REFUSED:
        return
    telegrams, _ = decode(capture)
    found = {register.obis: register for telegram in telegrams for register in telegram.registers}
    for code, value in stated(capture):
        register = found[Obis.parse(code)]
        if isinstance(value, str):
            assert register.value == value
        else:
            assert isinstance(register.value, Decimal)
            assert abs(register.value - value) < Decimal("1e-6")


def stated(capture: Capture) -> Iterator[tuple[str, Decimal | str]]:
    """Yield code and value of what the source states, without nulls and octets."""
    expected: dict[str, Any] = json.loads(json.dumps(capture.about.get("expected", {})), parse_float=Decimal)
    for code, value in {**expected.get("floats", {}), **expected.get("strings", {})}.items():
        if not {(capture.name, None), (capture.name, code), (None, code)} & NOT_STATED:
            yield code, value if isinstance(value, str) else Decimal(value)
    cosem = expected.get("cosem", {})
    for line in (*cosem.get("knownObjects", ()), *cosem.get("unknownObjects", ())):
        parts = re.fullmatch(r"([^(]+)\((-?[0-9.]+)(?:\*\w+)?\)", line)
        if parts and len(parts[2]) < 16:
            yield parts[1], Decimal(parts[2])


def test_as_many_stated_values_are_read_as_there_are() -> None:
    captures = [parameter.values[0] for parameter in capture_parameters("dlms_push")]
    if captures == [None]:
        pytest.skip("corpus not present")
    readable = [each for each in captures if each.name not in REFUSED]
    assert sum(len(list(stated(each))) for each in readable) >= 143


@pytest.mark.parametrize("capture", capture_parameters("dlms_push"))
def test_capture_passes_the_gate(capture: Capture) -> None:
    data = capture.data[:2000]
    check_codec(lambda: decoder(capture, accept_repeats=True), data, limit_bytes=LIMIT_BYTES, rounds=3)


@pytest.mark.parametrize("capture", capture_parameters("dlms_push"))
def test_telegram_that_comes_again_is_refused_where_it_is_encrypted(capture: Capture) -> None:
    made = decoder(capture)
    items = [item for _ in range(2) for item in (*made.feed(capture.data, 0.0), *made.idle(1.0))]
    telegrams = [item for item in items if isinstance(item, Telegram)]
    replayed = [item for item in items if isinstance(item, CodecError) and item.reason == "replayed"]
    if telegrams and keys(capture).encryption:
        assert (len(telegrams), len(replayed)) == (1, 1)
    else:
        assert not replayed


@pytest.mark.parametrize("capture", capture_parameters("dlms_push"))
def test_wrong_key_is_told_from_damage(capture: Capture) -> None:
    if not keys(capture).encryption:
        return
    made = DlmsDecoder(VIENNA, keys=Keys(bytes(16)), lists=LISTS)
    reasons = [getattr(item, "reason", "none") for item in (*made.feed(capture.data, 0.0), *made.idle(1.0))]
    assert reasons == ["bad-key"]


AMSHAN = {
    "active_power_import": "1.7.0",
    "active_power_export": "2.7.0",
    "reactive_power_import": "3.7.0",
    "reactive_power_export": "4.7.0",
    "current_l1": "31.7.0",
    "current_l2": "51.7.0",
    "current_l3": "71.7.0",
    "voltage_l1": "32.7.0",
    "voltage_l2": "52.7.0",
    "voltage_l3": "72.7.0",
    "active_power_import_total": "1.8.0",
    "active_power_export_total": "2.8.0",
    "reactive_power_import_total": "3.8.0",
    "reactive_power_export_total": "4.8.0",
}


@pytest.mark.parametrize("capture", capture_parameters("dlms_push"))
def test_amshan_reads_the_same_values(capture: Capture) -> None:
    if not capture.name.startswith("amshan_"):
        return
    theirs = AutoDecoder().decode_message_payload(capture.data) or {}
    ([telegram], _) = decode(capture)
    ours = {register.obis.reduced: register.value for register in telegram.registers}
    for name, code in AMSHAN.items():
        if name in theirs:
            assert float(ours[code]) == pytest.approx(theirs[name]), name
    assert any(name in theirs for name in AMSHAN)


def as_plain(element: Element) -> object:
    """Return our element in the form that dlms-cosem has it in: texts as bytes."""
    if isinstance(element, list):
        return [as_plain(each) for each in element]
    return element.encode() if isinstance(element, str) else element


@pytest.mark.parametrize("capture", capture_parameters("dlms_push"))
def test_dlms_cosem_reads_the_same_elements(capture: Capture) -> None:
    """It reads no visible strings (tag 0a), so lists that may have one are left out."""
    if capture.about.get("framing") != "llc" or b"\x0a" in capture.data:
        return
    body = capture.data[_body_at(capture.data) :]
    conf = a_xdr.EncodingConf(attributes=[a_xdr.Sequence(attribute_name="data")])
    theirs = a_xdr.AXdrDecoder(encoding_conf=conf).decode(body)["data"]
    [ours], end = read_elements(body, 0, 1)
    assert end == len(body)
    assert as_plain(ours) == _without_containers(theirs)


def _body_at(data: bytes) -> int:
    """Return where the data begin, behind LLC header, invoke id and time."""
    at = 3 + 5
    at += data[at] == 0x09
    return at + 1 + data[at]


def _without_containers(value: object) -> object:
    if isinstance(value, list):
        return [_without_containers(each) for each in value]
    return bytes(value) if isinstance(value, bytearray) else value.encode() if isinstance(value, str) else value
