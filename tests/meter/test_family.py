"""Families of meters: the files that Meterway brings, those of a site, and what is refused."""

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from meterway.core.errors import SetupError
from meterway.core.obis import Obis
from meterway.core.properties import catalogue
from meterway.core.reading import PhysicalMeterClass
from meterway.meter.family import Family, Line, family_names, load_family, parse_family
from meterway.meter.p1 import LIMIT_BYTES, P1Decoder
from meterway.meter.telegram import Register, Telegram
from meterway.testing import check_codec

P1_FAMILIES = [name for name in family_names() if load_family(name).protocol == "p1"]

WITHOUT_CHECKSUM = {"p1-slovenia", "p1-v2"}

MINIMAL = 'title = "Test"\nprotocol = "p1"\ntimezone = "Europe/Amsterdam"\ninterval_s = 1\n'


def expected(family: Family) -> list[tuple[Obis, str, str | None, datetime | None]]:
    """Return the sample's registers as ``written`` writes them."""
    assert family.sample is not None
    return [
        (Obis.parse(code), value, unit or None, datetime.fromisoformat(time[0]) if time else None)
        for code, value, unit, *time in family.sample.registers
    ]


def written(register: Register) -> tuple[Obis, str, str | None, datetime | None]:
    return register.obis, str(register.value), register.unit, register.time


def test_families_of_the_p1_port_are_there() -> None:
    expected = {"p1-belgium", "p1-generic", "p1-hungary", "p1-luxembourg", "p1-sweden", "p1-v2"}
    assert expected <= set(family_names())


@pytest.mark.parametrize("name", family_names())
def test_every_family_loads_and_every_property_it_names_exists(name: str) -> None:
    family = load_family(name)
    assert family.name == name
    assert family.title
    for code, rule in family.obis.items():
        assert rule.property is None or catalogue().find(rule.property), code


@pytest.mark.parametrize("name", P1_FAMILIES)
def test_sample_of_a_p1_family_decodes_to_what_stands_beside_it(name: str) -> None:
    family = load_family(name)
    assert family.sample is not None
    decoder = P1Decoder(ZoneInfo(family.timezone))
    [telegram] = decoder.feed(family.sample.telegram, 0.0)
    assert isinstance(telegram, Telegram)
    assert [written(register) for register in telegram.registers] == expected(family)
    assert telegram.checked == (name not in WITHOUT_CHECKSUM)
    assert decoder.skipped_bytes == 0


@pytest.mark.parametrize("name", P1_FAMILIES)
def test_sample_of_a_p1_family_passes_the_gate(name: str) -> None:
    family = load_family(name)
    assert family.sample is not None
    report = check_codec(
        lambda: P1Decoder(ZoneInfo(family.timezone)), family.sample.telegram, limit_bytes=LIMIT_BYTES, rounds=100
    )
    assert (report.telegrams, report.errors) == (1, 0)


def test_sample_of_hungary_is_in_the_second_of_two_like_hours() -> None:
    family = load_family("p1-hungary")
    assert family.sample is not None
    [telegram] = P1Decoder(ZoneInfo(family.timezone)).feed(family.sample.telegram, 0.0)
    assert isinstance(telegram, Telegram)
    assert telegram.time == datetime.fromisoformat("2026-10-25T01:45:10+00:00")


def test_dsmr_2_speaks_9600_baud_7e1() -> None:
    assert load_family("p1-v2").line == Line(baud=9600, data_bits=7, parity="E", stop_bits=1)


def test_luxembourg_needs_a_key() -> None:
    assert load_family("p1-luxembourg").secrets == ("encryption-key",)


def test_a_sites_own_folder_comes_first(tmp_path: Path) -> None:
    (tmp_path / "p1-generic.toml").write_text(MINIMAL.replace('"Test"', '"Ours"'))
    (tmp_path / "our-water.toml").write_text(MINIMAL + 'meter_class = "WATER"\n')
    (tmp_path / "notes.txt").write_text("no family")
    assert load_family("p1-generic", [tmp_path]).title == "Ours"
    assert load_family("our-water", [tmp_path]).meter_class is PhysicalMeterClass.WATER
    assert set(family_names([tmp_path])) == {*family_names(), "our-water"}


def test_folders_that_do_not_exist_are_skipped(tmp_path: Path) -> None:
    assert load_family("p1-v2", [tmp_path / "nowhere"]) == load_family("p1-v2")
    assert family_names([tmp_path / "nowhere"]) == family_names()


def test_unknown_family_names_the_nearest() -> None:
    with pytest.raises(SetupError, match="no family of meters `p1-belgum`; did you mean `p1-belgium`"):
        load_family("p1-belgum")


@pytest.mark.parametrize("name", ["../p1-generic", "/etc/passwd", "", "P1", "p1 generic"])
def test_a_name_is_never_a_path(name: str) -> None:
    with pytest.raises(SetupError, match="there is no family of meters"):
        load_family(name)


def test_rules_and_quirks_are_read() -> None:
    text = MINIMAL + 'quirks = ["some-quirk"]\n[obis."1-0:1.8.0"]\nproperty = "OBIS_1.8.0"\nfactor = "-0.001"\n'
    family = parse_family(text, "test", where="test.toml")
    assert family.quirks == ("some-quirk",)
    assert family.obis["1-0:1.8.0"].factor == "-0.001"
    assert family.obis["1-0:1.8.0"].property == "OBIS_1.8.0"
    assert not family.obis["1-0:1.8.0"].ignore


def test_text_of_a_sample_has_the_line_ends_of_a_serial_line() -> None:
    family = parse_family(MINIMAL + "[sample]\ntext = '''\n/ABC5\n!\n'''\n", "test", where="test.toml")
    assert family.sample is not None
    assert family.sample.telegram == b"/ABC5\r\n!\r\n"


def test_hex_of_a_sample_may_be_broken_into_lines() -> None:
    family = parse_family(MINIMAL + "[sample]\nhex = '''\n1b 1b\n01\n'''\n", "test", where="test.toml")
    assert family.sample is not None
    assert family.sample.telegram == b"\x1b\x1b\x01"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "chanels = 4\n", "chanels.*did you mean `channels`"),
        (MINIMAL.replace("Europe/Amsterdam", "Europe/Amsterdm"), "'Europe/Amsterdm' is not an IANA zone"),
        (MINIMAL.replace("interval_s = 1", "interval_s = 0"), "interval_s"),
        (MINIMAL + '[obis."1-0:1.8.999"]\n', "1-0:1.8.999|outside 0 to 255"),
        (MINIMAL + '[obis."1-0:1.8.0"]\nfactor = "much"\n', "factor 'much' is not a decimal number"),
        (MINIMAL + '[obis."1-0:1.8.0"]\nfactor = "0"\n', "factor '0' is not a decimal number"),
        (MINIMAL + '[line]\nparity = "M"\n', "parity"),
        (MINIMAL + 'name = "test"\n', "`name` is the file's name; remove the key"),
        (MINIMAL + "[sample]\n", "either `text` or `hex`"),
        (MINIMAL + '[sample]\nhex = "1b1"\n', "hexadecimal"),
        (MINIMAL + '[sample]\nhex = "1b"\nregisters = [["1-0:1.8.0"]]\n', "a register of a sample is"),
        ("title =", "not TOML"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(SetupError, match=f"(?s)^test.toml: .*{message}"):
        parse_family(text, "test", where="test.toml")


def test_a_file_that_is_no_text_says_so(tmp_path: Path) -> None:
    (tmp_path / "odd.toml").write_bytes(b'title = "\xff"')
    with pytest.raises(SetupError, match=r"odd.toml: not UTF-8 at byte 9"):
        load_family("odd", [tmp_path])
