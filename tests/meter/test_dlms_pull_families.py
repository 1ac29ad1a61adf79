"""Families of meters that are asked by DLMS: a session with each, of our own making, comes to what stands beside it."""

from datetime import datetime

import pytest

from meterway.core.errors import SetupError
from meterway.core.obis import Obis
from meterway.core.zones import find_zone
from meterway.meter.dlms_access import DlmsAccess, Objects
from meterway.meter.dlms_master import DlmsMaster
from meterway.meter.family import family_names, load_family, parse_family
from meterway.meter.master import Done
from support.dlms_wire import DlmsWire, Recording

FAMILIES = [name for name in family_names() if name.startswith("dlms-pull-")]

MINIMAL = 'title = "Test"\nprotocol = "dlms-pull"\ntimezone = "Europe/Berlin"\ninterval_s = 60\n[dlms_ask]\n'


def test_families_that_are_asked_by_dlms_are_there() -> None:
    assert FAMILIES == ["dlms-pull-idis", "dlms-pull-iskra-mt372", "dlms-pull-optical", "dlms-pull-tcp"]


@pytest.mark.parametrize("name", FAMILIES)
def test_session_comes_to_what_stands_beside_it(name: str) -> None:
    family = load_family(name)
    assert family.protocol == "dlms-pull"
    assert family.is_asked
    assert family.sample is not None
    access = DlmsAccess.of(family, password="12345678", keys=family.sample.keys)
    master = DlmsMaster(access, Objects(), find_zone(family.timezone), random_bytes=bytes)
    outcome = DlmsWire(Recording(family.sample.telegram)).run(master)
    assert outcome.done == Done()
    assert outcome.errors == []
    [telegram] = outcome.telegrams
    assert [(each.obis, str(each.value), each.unit, each.time) for each in telegram.registers] == [
        (Obis.parse(code), value, unit or None, datetime.fromisoformat(time[0]) if time else None)
        for code, value, unit, *time in family.sample.registers
    ]
    assert telegram.meter.startswith("202649")
    assert telegram.checked
    assert telegram.verified


def test_families_that_need_keys_say_so() -> None:
    for name in FAMILIES:
        family = load_family(name)
        assert family.sample is not None
        assert ("encryption-key" in family.secrets) == (family.sample.keys.encryption is not None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trasport = 'hdlc'", "did you mean `transport`"),
        ('objects = [["1-0:1.8.0", 2]]', "objects of class 2 have no value; there are 1, 3, 4, 5 and 8"),
        ('objects = [["1-0:1.8.999", 3]]', "outside 0 to 255"),
        ('optical = true\ntransport = "wrapper"', "an optical head speaks HDLC, not the wrapper of TCP"),
        ("suite = 2", "suite"),
        ("frame_bytes = 64", "frame_bytes"),
    ],
)
def test_a_wrong_table_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        parse_family(MINIMAL + text, "test", where="test.toml")


def test_a_family_that_is_not_asked_by_dlms_is_refused() -> None:
    with pytest.raises(SetupError, match="meters of the family `sml-generic` are not asked by DLMS"):
        DlmsAccess.of(load_family("sml-generic"))
