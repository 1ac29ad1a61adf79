"""Mapping profiles of JSON sources: paths, times, registers that say what they are, and what a wrong profile says."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from meterway.core.config import load_config
from meterway.core.errors import SetupError
from meterway.core.obis import Obis
from meterway.meter.json_map import JsonMap, topic_fits
from meterway.meter.json_path import MISSING, find, parse_path, put
from meterway.meter.json_registers import LIMIT_REGISTERS, read_registers
from meterway.meter.json_time import Clock, TimeForm, write_time
from meterway.meter.telegram import Register

BERLIN = ZoneInfo("Europe/Berlin")
SUMMER = timezone(timedelta(hours=2))
EVENING = datetime(2026, 7, 14, 18, 30, 5, tzinfo=SUMMER)
DOCUMENT: dict[str, object] = {
    "a": {"b": [10, {"c": 20}]},
    "1.8.0": 30,
    "none": None,
    "list": [{"type": "gas", "v": 1}, 5, {"type": "water", "v": 2}],
    "media": "heat",
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a/b/0", 10),
        ("a/b/1/c", 20),
        ("1.8.0", 30),
        ("none", None),
        ("*/b/0", 10),
        ("list/*/v", 1),
        ("list/type=water/v", 2),
        ("media=heat/1.8.0", 30),
        ("", DOCUMENT),
    ],
)
def test_path_finds(path: str, found: object) -> None:
    assert find(DOCUMENT, parse_path(path)) == found


@pytest.mark.parametrize(
    "path",
    [
        "b",
        "a/b/2",
        "a/b/-1",
        "a/b/x",
        "a/b/0/c",
        "none/x",
        "*/z",
        "list/type=heat",
        "media=gas/1.8.0",
        "a/b/" + "9" * 99,
    ],
)
def test_path_finds_nothing(path: str) -> None:
    assert find(DOCUMENT, parse_path(path)) is MISSING


@pytest.mark.parametrize("path", ["a", "a/b/c", "a/2/b", "*/x", "list/type=gas/value", "media=water/x", ""])
def test_what_is_put_is_found(path: str) -> None:
    node = put(None, parse_path(path), 7)
    assert find(node, parse_path(path)) == 7


def test_what_is_put_beside_stays() -> None:
    node = put(put(None, parse_path("l/type=gas/v"), 1), parse_path("l/type=water/v"), 2)
    node = put(put(node, parse_path("l/type=gas/t"), 3), parse_path("x/1"), 4)
    assert node == {"l": [{"type": "gas", "v": 1, "t": 3}, {"type": "water", "v": 2}], "x": [None, 4]}


@pytest.mark.parametrize(
    ("form", "sent", "time"),
    [
        ("iso", "2026-07-14T18:30:05", EVENING),
        ("iso", "2026-07-14 18:30:05", EVENING),
        ("iso", "2026-07-14T16:30:05Z", EVENING),
        ("iso", "2026-07-14T18:30:05.000+02:00", EVENING),
        ("iso-local", "2026-07-14T18:30:05Z", EVENING),
        ("iso-local", "2026-01-14T18:30:05Z", datetime(2026, 1, 14, 17, 30, 5, tzinfo=UTC)),
        ("unix-s", 1784046605, EVENING),
        ("unix-s", Decimal("1784046605.5"), EVENING + timedelta(seconds=0.5)),
        ("unix-s", "1784046605", EVENING),
        ("unix-ms", 1784046605000, EVENING),
        ("yymmddhhmmss", 260714183005, EVENING),
        ("yymmddhhmmss", "260714183005", EVENING),
    ],
)
def test_clock_reads(form: TimeForm, sent: object, time: datetime) -> None:
    found = Clock(form, BERLIN).read(sent)
    assert found == time
    assert found is not None
    assert found.utcoffset() is not None


@pytest.mark.parametrize(
    ("form", "sent"),
    [
        ("iso", "1970-01-01T00:00:05"),
        ("iso", "2026-07-14"),
        ("iso", "2026-13-14T18:30:05"),
        ("iso", "2026-07-14T18:30:05" + " " * 99),
        ("iso", "0001-01-01T00:00:00+14:00"),
        ("iso", "9999-12-31T23:59:59-14:00"),
        ("iso", 1784046605),
        ("iso", None),
        ("iso", ["2026-07-14T18:30:05"]),
        ("unix-s", 5),
        ("unix-s", 10**30),
        ("unix-s", -1),
        ("unix-s", True),
        ("unix-ms", 1784046605),
        ("yymmddhhmmss", 260732183005),
        ("yymmddhhmmss", 26071418300),
        ("yymmddhhmmss", Decimal("260714183005.5")),
        ("yymmddhhmmss", "yymmddhhmmss"),
    ],
)
def test_what_is_no_time_is_none(form: TimeForm, sent: object) -> None:
    assert Clock(form, BERLIN).read(sent) is None


@pytest.mark.parametrize("form", ["iso", "iso-local", "unix-s", "unix-ms", "yymmddhhmmss"])
def test_written_time_is_read_again(form: TimeForm) -> None:
    assert Clock(form, BERLIN).read(write_time(EVENING, form, BERLIN)) == EVENING


def test_hour_that_does_not_exist_is_read_all_the_same() -> None:
    assert Clock("iso", BERLIN).read("2026-03-29T02:30:00") == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("topic", "ends", "before"),
    [
        ("a/b/c", ("c",), "a/b"),
        ("a/b/c", ("x", "b/c"), "a"),
        ("a/b/c", ("a/b/c",), ""),
        ("a/b/c", ("+/c",), "a"),
        ("a/b/c", ("/c",), None),
        ("a/b/c", ("x/a/b/c",), None),
        ("a/b/cc", ("c",), None),
        ("a/b/c", (), None),
    ],
)
def test_topic_is_told_by_its_end(topic: str, ends: tuple[str, ...], before: str | None) -> None:
    assert topic_fits(topic, ends) == before


def test_registers_say_themselves_what_they_are() -> None:
    entries: list[object] = [
        {"obis": "1-0:1.8.0", "value": "12345.678", "unit": "kWh"},
        {"obis": "16.7.0", "value": -412, "unit": "W"},
        {"obis": "1-0:13.7.0", "value": "0.98", "unit": ""},
        {"obis": "8-0:1.0.0", "value": Decimal("1.50"), "unit": "m³", "time": "2026-07-14T18:30:05"},
        {"obis": "0-0:96.14.0", "value": "0002"},
        {"obis": "1-0:99.8.0", "value": 1, "unit": "furlong per fortnight"},
    ]
    assert read_registers(entries, Clock("iso", BERLIN)) == [
        Register(Obis(1, 0, 1, 8, 0), Decimal("12345.678"), "kWh"),
        Register(Obis(1, 0, 16, 7, 0), Decimal(-412), "W"),
        Register(Obis(1, 0, 13, 7, 0), Decimal("0.98")),
        Register(Obis(8, 0, 1, 0, 0), Decimal("1.50"), "m3", EVENING),
        Register(Obis(0, 0, 96, 14, 0), "0002"),
        Register(Obis(1, 0, 99, 8, 0), Decimal(1), "furlong per fort"),
    ]


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"obis": "1-0:1.8.999", "value": 1},
        {"obis": 180, "value": 1},
        {"obis": "1.8.0"},
        {"obis": "1.8.0", "value": None},
        {"obis": "1.8.0", "value": "much", "unit": "kWh"},
        {"obis": "1.8.0", "value": True},
        {"obis": "1.8.0", "value": "a\nb"},
        {"obis": "1.8.0", "value": "a" * 10_000},
        {"obis": "1.8.0", "value": [1]},
        "1.8.0",
        None,
    ],
)
def test_entry_of_another_form_is_left_out(entry: object) -> None:
    assert read_registers([entry], Clock("iso", BERLIN)) == []


def test_registers_of_a_document_are_bounded() -> None:
    entries: list[object] = [{"obis": "1.8.0", "value": 1}] * (LIMIT_REGISTERS + 5)
    assert len(read_registers(entries, Clock("iso", BERLIN))) == LIMIT_REGISTERS
    assert read_registers({"obis": "1.8.0", "value": 1}, Clock("iso", BERLIN)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a mapping has `values` or `registers`"),
        ('values = [{ obis = "1.8.0" }]', "has neither `paths` nor `topics`"),
        ('values = [{ obis = "1.8.999", paths = ["a"] }]', "outside 0 to 255"),
        ('values = [{ obis = "1.8.0", paths = ["a"], negative = "x" }]', "'x' is not an OBIS code"),
        ('values = [{ obis = "1.8.0", paths = ["a"], unit = "kwh" }]', "unit 'kwh' of 1.8.0 is none"),
        ('values = [{ obis = "1.8.0", paths = ["a"], factor = "0" }]', "factor '0' of 1.8.0 is not a decimal number"),
        ('values = [{ obis = "1.8.0", paths = ["a"], factor = "inf" }]', "factor 'inf' of 1.8.0"),
        ('values = [{ obis = "1.8.0", path = ["a"] }]', "did you mean `paths`"),
        ('values = [{ obis = "1.8.0", paths = ["a"] }]\ntime = [{ paths = ["t"], form = "isо" }]', "form"),
        ('values = [{ obis = "1.8.0", paths = ["a"] }]\ngather_s = -1', "gather_s"),
    ],
)
def test_a_wrong_profile_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        load_config(text, JsonMap, where="x.toml")
