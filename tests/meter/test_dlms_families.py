"""Families of DLMS meters and of encrypted P1 ports: each sample decodes to what stands beside it."""

from collections.abc import Sequence
from datetime import datetime

import pytest

from meterway.core.obis import Obis
from meterway.core.zones import find_zone
from meterway.meter import dlms, p1_encrypted
from meterway.meter.codec import Decoder
from meterway.meter.dlms import DlmsDecoder
from meterway.meter.dlms_layout import PushList
from meterway.meter.driver import MeterSetup
from meterway.meter.family import Family, Sample, family_names, load_family, push_lists
from meterway.meter.p1_encrypted import EncryptedP1Decoder
from meterway.meter.recognise import recognise
from meterway.meter.telegram import Telegram
from meterway.plugins import make_decoder
from meterway.testing import check_codec

PUSHING = [name for name in family_names() if name.startswith("dlms-") and not name.startswith("dlms-pull-")]
FAMILIES = [*PUSHING, *(name for name in family_names() if name.endswith("-encrypted"))]

NO_TAG_AND_WEAK_SUM = {"dlms-kaifa-austria", "dlms-kaifa-tirol", "dlms-sagemcom-austria"}
NEED_THEIR_NAME = {
    "dlms-czech",
    "dlms-lg-e360-switzerland",
    "dlms-lg-e450-austria",
    "dlms-lg-e450-switzerland",
    "dlms-lg-e570-switzerland",
}
"""Nothing in these lists tells their units, nor who sends them."""


def sample(family: Family) -> Sample:
    assert family.sample is not None
    return family.sample


def decoder(family: Family, lists: Sequence[PushList]) -> Decoder:
    zone = find_zone(family.timezone)
    return make_decoder(MeterSetup(family=family, zone=zone, keys=sample(family).keys, lists=tuple(lists)))


def own_lists(family: Family) -> Sequence[PushList]:
    return () if family.push is None else (family.push,)


def decode(family: Family, lists: Sequence[PushList]) -> Telegram:
    made = decoder(family, lists)
    [telegram] = [*made.feed(sample(family).telegram, 0.0), *made.idle(1.0)]
    assert isinstance(telegram, Telegram), str(telegram)
    assert made.skipped_bytes == 0
    return telegram


def written(telegram: Telegram) -> list[tuple[Obis, str, str | None, datetime | None]]:
    return [(item.obis, str(item.value), item.unit, item.time) for item in telegram.registers]


def expected(family: Family) -> list[tuple[Obis, str, str | None, datetime | None]]:
    return [
        (Obis.parse(code), value, unit or None, datetime.fromisoformat(time[0]) if time else None)
        for code, value, unit, *time in sample(family).registers
    ]


@pytest.mark.parametrize("name", FAMILIES)
def test_sample_decodes_to_what_stands_beside_it(name: str) -> None:
    family = load_family(name)
    telegram = decode(family, own_lists(family))
    assert written(telegram) == expected(family)
    assert telegram.verified == ("encryption-key" not in family.secrets or name in VERIFIED)
    assert telegram.checked == (name not in NO_TAG_AND_WEAK_SUM)


VERIFIED = {
    "dlms-kamstrup-denmark",
    "dlms-lg-e450-austria",
    "dlms-lg-e450-burgenland",
    "p1-austria-encrypted",
    "p1-lithuania-encrypted",
    "p1-luxembourg-encrypted",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_sample_is_read_where_nobody_named_its_family(name: str) -> None:
    family = load_family(name)
    recognised = recognise(sample(family).telegram)
    assert recognised is not None
    assert recognised.protocol == family.protocol
    found = written(decode(family, push_lists()))
    assert [(code, time) for code, _, _, time in found] == [(code, time) for code, _, _, time in expected(family)]
    if name in NEED_THEIR_NAME:
        assert {unit for _, _, unit, _ in found} == {None, "unscaled"}
    else:
        assert found == expected(family)


@pytest.mark.parametrize("name", FAMILIES)
def test_sample_passes_the_gate(name: str) -> None:
    family = load_family(name)
    zone, keys, lists = find_zone(family.timezone), sample(family).keys, own_lists(family)

    def make() -> Decoder:
        if family.protocol == "dlms":
            return DlmsDecoder(zone, keys=keys, lists=lists, accept_repeats=True)
        return EncryptedP1Decoder(zone, keys=keys, accept_repeats=True)

    limit_bytes = dlms.LIMIT_BYTES if family.protocol == "dlms" else p1_encrypted.LIMIT_BYTES
    report = check_codec(make, sample(family).telegram, limit_bytes=limit_bytes, rounds=10)
    assert (report.telegrams, report.errors) == (1, 0)


def test_encrypted_samples_say_which_secrets_they_need() -> None:
    for name in FAMILIES:
        family = load_family(name)
        keys = sample(family).keys
        assert ("encryption-key" in family.secrets) == (keys.encryption is not None)
        assert ("authentication-key" in family.secrets) == (keys.authentication is not None)


def test_sagemcom_writes_length_1_where_it_sends_257_bytes() -> None:
    assert sample(load_family("dlms-sagemcom-austria")).telegram.startswith(b"\x68\x01\x01\x68")
