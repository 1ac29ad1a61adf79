"""Water meters that scramble: what the shift register hides, whose number it is, what must prove itself.

The frames are of our own making.
"""

from decimal import Decimal

import pytest

from meterway.core.obis import CURRENT, Obis
from meterway.meter.keys import NO_KEYS
from meterway.meter.recognise import recognise
from meterway.meter.telegram import Telegram
from meterway.meter.virtual import encode_wmbus as radio
from meterway.meter.wmbus import LIMIT_BYTES
from meterway.testing import check_codec
from support.wmbus import decode, decoder, kinds

DME = bytes.fromhex("44A511780774658311A3200B00132C1F7B75651B3DA20D4663")
HYD = bytes.fromhex("442423860609907153A2200B0013C8997D04ADBCA4DB39C35B")
SAP = bytes.fromhex("44304C09907153C901A240011013B0C1F541B4C4BEDE7891B3")
RECORDS = bytes.fromhex("4424238B07099071537A2A0010737FD946D303B05B3ABEE0F8F91D877C0F")
RECORDS_IN_THE_CLEAR = bytes.fromhex("4424238B07099071537A2A0010730413F1FB0900426C41314413C0270900")

OF_ANOTHER_KEY = bytes.fromhex("44A511780774658311A3200B0013106A15CBCDB86461A67536")
TOO_MUCH = bytes.fromhex("44A511780774658311A3200B00132C4A542F621B3DA20D4663")
NEW = bytes.fromhex("44A511780774658311A3200B00132C4E997465D6BCA30D0752")


def only(content: bytes, address: str = "") -> Telegram:
    [telegram] = decode(radio.im871a(content), NO_KEYS, address=address)
    assert isinstance(telegram, Telegram), telegram
    return telegram


@pytest.mark.parametrize(
    ("content", "meter", "medium"),
    [(DME, "8DME7811836574", 8), (HYD, "9HYD8653719009", 9), (SAP, "8SAP0053719009", 8)],
)
def test_fields_of_the_makers_own_are_volume_and_due_day(content: bytes, meter: str, medium: int) -> None:
    telegram = only(content)
    assert telegram.meter == meter
    assert [(register.obis, register.value, register.unit) for register in telegram.registers] == [
        (Obis(medium, 0, 1, 0, 0, CURRENT), Decimal("123.456"), "m3"),
        (Obis(medium, 0, 1, 0, 0, 1), Decimal("98.765"), "m3"),
        (Obis(0, 0, 0, 9, 2, 1), "2026-01-01", None),
    ]


@pytest.mark.parametrize("content", [RECORDS, RECORDS_IN_THE_CLEAR])
def test_records_are_read_as_heard_and_where_the_receiver_undid_it(content: bytes) -> None:
    telegram = only(content)
    assert telegram.meter == "8HYD8B53719009"
    assert kinds([telegram]) == ["654.321"]


def test_number_is_that_printed_on_the_meter() -> None:
    assert only(DME, address="11836574").meter == "8DME7811836574"
    assert decode(radio.im871a(DME), NO_KEYS, address="07781183") == []


@pytest.mark.parametrize(
    "content",
    [
        OF_ANOTHER_KEY,
        TOO_MUCH,
        DME[:-1],
        DME[:14] + b"\x00" + DME[15:],
        RECORDS[:13] + b"\x74" + RECORDS[14:],
        RECORDS[:-1] + b"\x0e",
    ],
)
def test_what_does_not_prove_itself_is_an_error_and_never_a_value(content: bytes) -> None:
    assert kinds(decode(radio.im871a(content), NO_KEYS)) == ["bad-key"]


def test_meter_without_a_due_day_yet_is_read() -> None:
    assert only(NEW).registers[0].value == Decimal("0.017")


@pytest.mark.parametrize("content", [DME, HYD, RECORDS])
def test_bare_frame_is_recognised(content: bytes) -> None:
    found = recognise(bytes((len(content),)) + content)
    assert found is not None
    assert found.protocol == "wmbus"


@pytest.mark.parametrize("content", [DME, RECORDS])
def test_codec_holds_its_contract(content: bytes) -> None:
    check_codec(lambda: decoder(NO_KEYS), radio.im871a(content), limit_bytes=LIMIT_BYTES)
