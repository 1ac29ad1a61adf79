"""M-Bus data records: data types, value information, what VIFEs change, and the codes that come of it."""

import struct
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterway.core.obis import Obis
from meterway.core.properties import catalogue
from meterway.core.units import find_unit
from meterway.meter.codec import CodecError
from meterway.meter.mbus import MbusDecoder
from meterway.meter.mbus_records import RecordError, read_records
from meterway.meter.mbus_units import FB, FD, PRIMARY
from meterway.meter.telegram import Register, Telegram
from meterway.meter.virtual.encode_mbus import (
    BCD2,
    BCD4,
    BCD6,
    BCD8,
    BCD12,
    DURING_ERROR,
    INT8,
    INT16,
    INT24,
    INT32,
    INT48,
    INT64,
    MAXIMUM,
    MINIMUM,
    VARIABLE,
    Header,
    Where,
    bcd,
    day,
    encode_answer,
    integer,
    minute,
    plain_vif,
    real,
    record,
    second,
    text,
)
from support.mbus import BERLIN, HEAT, WATER, decode, registers

VOLUME_L = b"\x13"
POWER_W = b"\x2b"
ENERGY_WH = b"\x03"
VOLTAGE_100MV = b"\xfd\x48"
ELECTRICITY = Header("20264713", "MWY", 1, 0x02)
GAS = Header("20264714", "MWY", 1, 0x03)
ALLOCATOR = Header("20264715", "MWY", 1, 0x08)
COOLING = Header("20264716", "MWY", 1, 0x0A)


def value(data: bytes) -> Decimal | str:
    return one(data).value


def one(data: bytes, header: Header = HEAT) -> Register:
    [register] = registers(data, header=header)
    return register


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (integer(VOLUME_L, INT8, -5), "-0.005"),
        (integer(VOLUME_L, INT16, 1000), "1.000"),
        (integer(VOLUME_L, INT24, -8388607), "-8388.607"),
        (integer(VOLUME_L, INT32, 123456789), "123456.789"),
        (integer(VOLUME_L, INT48, 140737488355327), "140737488355.327"),
        (integer(VOLUME_L, INT64, 9223372036854775807), "9223372036854775.807"),
        (integer(VOLUME_L, INT16, -32768), "invalid 8000"),
        (bcd(VOLUME_L, BCD2, 42), "0.042"),
        (bcd(VOLUME_L, BCD4, 9999), "9.999"),
        (bcd(VOLUME_L, BCD6, -99999), "-99.999"),
        (bcd(VOLUME_L, BCD8, 12345678), "12345.678"),
        (bcd(VOLUME_L, BCD12, 123456789012), "123456789.012"),
        (record(VOLUME_L, BCD6, bytes.fromhex("BDEBDD")), "invalid DDEBBD"),
        (record(VOLUME_L, BCD2, b"\xff"), "invalid FF"),
        (record(VOLUME_L, BCD4, b"\x1a\x00"), "invalid 001A"),
        (real(b"\x16", Decimal("230.1")), "230.1"),
        (real(VOLUME_L, Decimal("230.1")), "0.2301"),
        (real(b"\x17", Decimal("1.5e10")), "150000000000"),
        (record(VOLUME_L, 5, struct.pack("<f", float("nan"))), "invalid 7FC00000"),
        (record(VOLUME_L, 5, struct.pack("<f", float("inf"))), "invalid 7F800000"),
        (text(VOLUME_L, "off"), "off"),
        (record(VOLUME_L, VARIABLE, b"\x03\x01\x02\x03"), "030201"),
        (record(VOLUME_L, VARIABLE, b"\xc2\x34\x12"), "1.234"),
        (record(VOLUME_L, VARIABLE, b"\xd2\x34\x12"), "-1.234"),
        (record(VOLUME_L, VARIABLE, b"\xe2\x34\x12"), "4.660"),
        (record(VOLUME_L, VARIABLE, b"\xe0"), ""),
        (record(VOLUME_L, VARIABLE, b"\xf0" + bytes(range(16))), bytes(range(16))[::-1].hex().upper()),
    ],
)
def test_number_keeps_its_digits_and_an_invalid_one_is_none(data: bytes, expected: str) -> None:
    assert str(value(data)) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (day(b"\x6c", date(2026, 2, 28)), ("0-0:0.9.2*255", "2026-02-28")),
        (day(b"\x6c", date(2025, 12, 31), Where(storage=1)), ("0-0:0.9.2*1", "2025-12-31")),
        (record(b"\x6c", INT16, b"\xff\xfc"), ("0-0:0.9.2*255", "--12-31")),
        (record(b"\x6c", INT16, b"\xff\xff"), ("0-0:0.9.2*255", "-----31")),
        (record(b"\x6c", INT16, b"\x00\x00"), ("0-0:0.9.2*255", "invalid 0000")),
        (record(b"\x6c", INT16, b"\x5e\x32"), ("0-0:0.9.2*255", "invalid 325E")),
        (record(b"\x6d", INT32, b"\x80\x00\x41\x11"), ("0-0:1.0.0*255", "invalid 11410080")),
        (record(b"\x6d", INT32, b"\x3f\x1f\xff\xfc"), ("0-0:1.0.0*255", "--12-31T--:--")),
        (record(b"\x6d", INT24, b"\x1e\x0f\x07"), ("0-0:1.0.0*255", "07:15:30")),
        (record(b"\x6d", INT24, b"\x1e\x0f\x1f"), ("0-0:1.0.0*255", "invalid 1F0F1E")),
        (record(b"\x6d", INT8, b"\x1e"), ("0-0:1.0.0*255", "invalid 1E")),
    ],
)
def test_date_is_a_text_and_what_is_none_is_invalid(data: bytes, expected: tuple[str, str]) -> None:
    register = one(data)
    assert (str(register.obis), register.value) == expected
    assert register.time is None


def test_clock_in_winter_and_summer_is_the_telegrams_time() -> None:
    for instant in (datetime(2026, 1, 15, 7, 30, tzinfo=BERLIN), datetime(2026, 7, 15, 7, 30, tzinfo=BERLIN)):
        for data in (minute(b"\x6d", instant), second(b"\x6d", instant.replace(second=59))):
            [telegram] = decode(encode_answer(HEAT, [data], address=1, access=1))
            assert isinstance(telegram, Telegram)
            assert telegram.time is not None
            assert telegram.time.replace(second=0) == instant
            assert telegram.time.utcoffset() == instant.utcoffset()


def test_clock_without_the_summer_bit_shows_standard_time_in_summer_too() -> None:
    data = minute(b"\x6d", datetime(2026, 7, 15, 7, 30, tzinfo=UTC))
    assert one(data).time == datetime(2026, 7, 15, 8, 30, tzinfo=BERLIN)


def test_two_digit_years_are_of_the_century_they_can_be_of() -> None:
    assert one(record(b"\x6c", INT16, b"\x41\x01")).value == "2002-01-01"
    assert one(record(b"\x6c", INT16, b"\x21\xc1")).value == "1997-01-01"


@given(number=st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float_is_the_shortest_number_that_means_the_same_float(number: float) -> None:
    data = struct.pack("<f", number)
    found = value(record(b"\x16", 5, data))
    assert isinstance(found, Decimal)
    assert struct.pack("<f", float(found)) == data or number == 0
    assert len(found.normalize().as_tuple().digits) <= 9


@given(
    number=st.integers(-(2**31) + 1, 2**31 - 1),
    code=st.integers(0, 0x5F),
    place=st.tuples(st.integers(0, 3), st.integers(0, 200), st.integers(0, 15), st.integers(0, 7)),
)
def test_what_was_encoded_is_decoded(number: int, code: int, place: tuple[int, int, int, int]) -> None:
    where = Where(*place)
    quantity = PRIMARY[code]
    for field, encode in ((INT32, integer), (INT64, integer), (BCD12, bcd)):
        register = one(encode(bytes((code,)), field, number, where))
        assert register.value == Decimal(number).scaleb(quantity.exponent)
        assert register.unit == quantity.unit
        assert register.obis.f == (min(where.storage, 254) or 255)
        said = ((where.storage, "storage"), (where.tariff, "tariff"), (where.subunit, "subunit"))
        for count, name in said:
            assert (f"{name} {count}" in str(register.name).split(", ")) == bool(count)


def code(data: bytes, header: Header = HEAT) -> str:
    return str(one(data, header).obis)


@pytest.mark.parametrize(
    ("header", "data", "expected"),
    [
        (HEAT, integer(b"\x06", INT32, 1), "6-0:1.0.0*255"),
        (HEAT, integer(b"\x0e", INT32, 1), "6-0:1.0.0*255"),
        (HEAT, integer(b"\xfb\x01", INT32, 1), "6-0:1.0.0*255"),
        (HEAT, integer(b"\x06", INT32, 1, Where(tariff=2)), "6-0:1.0.2*255"),
        (HEAT, integer(b"\x06", INT32, 1, Where(storage=3)), "6-0:1.0.0*3"),
        (HEAT, integer(VOLUME_L, INT32, 1), "6-0:2.0.0*255"),
        (HEAT, integer(POWER_W, INT32, 1), "6-0:8.0.0*255"),
        (HEAT, integer(POWER_W, INT32, 1, Where(MAXIMUM)), "6-0:8.5.0*255"),
        (HEAT, integer(b"\x3b", INT32, 1), "6-0:9.0.0*255"),
        (HEAT, integer(b"\x5a", INT16, 1), "6-0:10.0.0*255"),
        (HEAT, integer(b"\x5e", INT16, 1), "6-0:11.0.0*255"),
        (HEAT, integer(b"\x62", INT16, 1), "6-0:12.0.0*255"),
        (HEAT, integer(b"\x62", INT16, 1, Where(MINIMUM)), "6-0:12.4.0*255"),
        (HEAT, integer(b"\x06", INT32, 1, Where(DURING_ERROR)), "6-128:0.0.3*255"),
        (HEAT, integer(VOLUME_L, INT32, 1, Where(subunit=1)), "6-132:16.0.0*255"),
        (HEAT, integer(VOLUME_L, INT32, 1, Where(subunit=2, tariff=1)), "6-136:16.0.4*255"),
        (HEAT, integer(b"\x93\x3c", INT32, 1), "6-128:16.188.0*255"),
        (HEAT, bcd(b"\x78", BCD8, 123), "6-0:96.1.0*255"),
        (HEAT, integer(b"\xfd\x17", INT16, 1), "6-0:97.97.0*255"),
        (HEAT, integer(b"\x22", INT16, 1), "6-128:32.0.0*255"),
        (HEAT, integer(b"\x23", INT16, 1), "6-128:32.0.0*255"),
        (HEAT, integer(b"\xfd\x74", INT16, 1), "6-130:116.0.0*255"),
        (COOLING, integer(b"\x06", INT32, 1), "5-0:1.0.0*255"),
        (WATER, integer(VOLUME_L, INT32, 1), "8-0:1.0.0*255"),
        (WATER, integer(b"\x93\x3b", INT32, 1), "8-0:1.0.0*255"),
        (WATER, integer(b"\x3b", INT32, 1), "8-0:2.0.0*255"),
        (WATER, integer(b"\x5b", INT16, 1), "8-0:3.0.0*255"),
        (GAS, integer(VOLUME_L, INT32, 1), "7-0:3.0.0*255"),
        (GAS, integer(b"\x93\x3a", INT32, 1), "7-0:3.0.0*255"),
        (GAS, integer(b"\x93\x3e", INT32, 1), "7-0:3.2.0*255"),
        (GAS, integer(b"\x3b", INT32, 1), "7-0:43.0.0*255"),
        (ALLOCATOR, integer(b"\x6e", INT16, 1), "4-0:1.0.0*255"),
        (ELECTRICITY, integer(ENERGY_WH, INT32, 1), "1-0:1.8.0*255"),
        (ELECTRICITY, integer(ENERGY_WH, INT32, 1, Where(tariff=2)), "1-0:1.8.2*255"),
        (ELECTRICITY, integer(b"\x83\x3c", INT32, 1), "1-0:2.8.0*255"),
        (ELECTRICITY, integer(b"\x83\xfc\x02", INT32, 1), "1-0:41.8.0*255"),
        (ELECTRICITY, integer(POWER_W, INT32, 1), "1-0:16.7.0*255"),
        (ELECTRICITY, integer(b"\xab\x3b", INT32, 1), "1-0:1.7.0*255"),
        (ELECTRICITY, integer(b"\xab\x3c", INT32, 1), "1-0:2.7.0*255"),
        (ELECTRICITY, integer(b"\xab\xfc\x01", INT32, 1), "1-0:36.7.0*255"),
        (ELECTRICITY, integer(POWER_W, INT32, 1, Where(MAXIMUM)), "1-0:1.6.0*255"),
        (ELECTRICITY, integer(VOLTAGE_100MV, INT16, 1), "1-0:12.7.0*255"),
        (ELECTRICITY, integer(b"\xfd\xc8\xfc\x03", INT16, 1), "1-0:72.7.0*255"),
        (ELECTRICITY, integer(b"\xfd\xd9\xfc\x04", INT16, 1), "1-0:91.7.0*255"),
        (ELECTRICITY, integer(b"\xfd\xc8\xfc\x05", INT16, 1), "1-130:64.5.0*255"),
        (ELECTRICITY, integer(b"\xfd\xc8\xff\x05", INT16, 1), "1-130:64.6.0*255"),
        (ELECTRICITY, integer(b"\xfb\x2e", INT16, 1), "1-0:14.7.0*255"),
        (ELECTRICITY, integer(b"\xfb\x02", INT16, 1), "1-0:3.8.0*255"),
        (ELECTRICITY, integer(b"\xfb\x14", INT16, 1), "1-0:3.7.0*255"),
    ],
)
def test_quantity_has_the_code_of_its_medium(header: Header, data: bytes, expected: str) -> None:
    if expected == "1-130:64.5.0*255":
        register = one(data, header)
        assert register.name == "voltage, between L1 and L2"
        assert register.obis[:3] == (1, 130, 64)
        assert register.obis.d > 0
        return
    assert code(data, header) == expected


def test_codes_do_not_collide_among_the_makers_own_vifes() -> None:
    codes = {code(integer(b"\xfd\xc8\xff" + bytes((n,)), INT16, 1), ELECTRICITY) for n in range(0x7F)}
    assert len(codes) == 0x7F
    codes = {code(integer(bytes((0x93, n)), INT16, 1)) for n in (0x12, *range(0x20, 0x36), 0x3C, 0x40, 0x48, 0x69)}
    assert len(codes) == 27


@pytest.mark.parametrize(
    ("vif", "expected"),
    [
        (b"\x93\x7d", ("10", "m3", "volume")),
        (b"\x93\x70", ("1.0E-8", "m3", "volume")),
        (b"\x93\x77", ("0.10", "m3", "volume")),
        (b"\x83\x22", ("10", "Wh/h", "energy, per h")),
        (b"\xb4\x2d", ("1E5", "J/h/m3", "power, per m3")),
        (b"\x83\x36", ("10", "Wh*s", "energy, times s")),
        (b"\x93\x12", ("0.010", "m3", "volume, average")),
        (b"\x93\x78", ("0.010", "m3", "volume, with 1E-3 to be added")),
        (b"\x93\x15", ("invalid no data available", "m3", "volume")),
        (b"\x93\x16", ("invalid data overflow", "m3", "volume")),
        (b"\x93\x55", ("0.010", "m3", "volume, VIFE 55")),
        (b"\x93\xff\x12\x34"[:3], ("0.010", "m3", "volume, maker's 12")),
        (b"\xff\x07", ("10", None, "manufacturer specific, maker's 07")),
        (b"\x7f", ("10", None, "manufacturer specific, maker's ")),
        (b"\x6f", ("10", None, "VIF 6F")),
        (b"\xfb\x40", ("10", None, "FB 40")),
        (b"\xfd\x7f", ("10", None, "FD 7F")),
        (b"\xef\x22", ("10", "1/h", "VIF 6F, per h")),
    ],
)
def test_vife_changes_what_it_says(vif: bytes, expected: tuple[str, str | None, str]) -> None:
    register = one(integer(vif, INT8, 10))
    number, unit, name = expected
    written = str(Decimal(number) if number == "1E5" else number)
    assert (register.unit, str(register.name)) == (unit, name)
    if number == "1E5":
        assert register.value == Decimal(written)
    else:
        assert str(register.value) == written


def test_plain_text_unit_is_name_and_unit() -> None:
    humidity = one(integer(plain_vif("%RH", b"\x74"), INT16, 5432))
    assert (str(humidity.value), humidity.unit, humidity.name) == ("54.32", "%RH", "%RH")
    assert one(integer(plain_vif("litres"), INT16, 5)).obis != one(integer(plain_vif("pulses"), INT16, 5)).obis


def test_names_versions_and_flags_are_read_as_such() -> None:
    found = registers(
        bcd(b"\x78", BCD8, 815),
        integer(b"\x78", INT32, 815),
        record(b"\xfd\x0a", INT16, b"\xf9\x36"),
        integer(b"\xfd\x17", INT8, -1),
        text(b"\xfd\x0c", "MW 7"),
    )
    assert [str(register.value) for register in found] == ["00000815", "815", "MWY", "255", "MW 7"]


def test_access_codes_and_keys_are_never_handed_on() -> None:
    for secret in (0x12, 0x13, 0x14, 0x15, 0x16, 0x19):
        assert registers(text(bytes((0xFD, secret)), "hunter2"), integer(VOLUME_L, INT8, 1))[0].unit == "m3"


def test_fillers_and_records_without_data_are_passed_over() -> None:
    assert len(registers(b"\x2f\x2f", record(VOLUME_L, 0, b""), integer(VOLUME_L, INT8, 1), b"\x2f")) == 1


def test_makers_own_data_are_kept_as_hex_digits() -> None:
    frame = encode_answer(HEAT, [integer(VOLUME_L, INT8, 1)], address=1, access=1, rest=b"\x01\xab")
    [telegram] = decode(frame)
    assert isinstance(telegram, Telegram)
    assert [(r.name, str(r.value)) for r in telegram.registers] == [
        ("volume", "0.001"),
        ("manufacturer specific", "01AB"),
        ("status", "0"),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x04", "the header of the record at byte 0 breaks off or is too long"),
        (b"\x84" * 12 + b"\x04\x13\x01\x02\x03\x04", "the header of the record at byte 0 breaks off or is too long"),
        (b"\x04" + b"\x93" * 12 + b"\x13\x01", "the header of the record at byte 0 breaks off or is too long"),
        (b"\x04\x13\x01", "the record 'volume' breaks off: 3 of 4 bytes are missing"),
        (b"\x0d\x13", "a record of variable length has no length"),
        (b"\x0d\x13\xff", "the length FF of a record is reserved"),
        (b"\x3f", "DIF 3F at byte 0 of the records has no meaning here"),
        (b"\x04\x7c\x05a", "the text of a VIF breaks off at byte 8 of the records"),
        (b"\x04\xfc\x01a", "the header of the record with the VIF 'a' breaks off"),
    ],
)
def test_records_that_break_off_refuse_the_telegram(data: bytes, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        read_records(data, device_type=4, zone=BERLIN)
    assert str(caught.value) == message
    [item] = decode(encode_answer(HEAT, [data], address=1, access=1))
    assert isinstance(item, CodecError)
    assert message in str(item)


def test_catalogue_knows_what_meters_of_each_medium_send() -> None:
    sent = {
        HEAT: (b"\x06", VOLUME_L, POWER_W, b"\x3b", b"\x5a", b"\x5e", b"\x62", b"\xfd\x17", b"\x22", b"\xfd\x74"),
        WATER: (VOLUME_L, b"\x93\x3c", b"\x3b", b"\x5a", b"\x66", b"\xfd\x17", b"\xfd\x74"),
        GAS: (VOLUME_L, b"\x93\x3e", b"\x3b", b"\xfd\x17", b"\xfd\x74"),
        COOLING: (b"\x06", VOLUME_L, POWER_W, b"\x3b"),
        ELECTRICITY: (ENERGY_WH, POWER_W, VOLTAGE_100MV, b"\xfd\x59", b"\xfb\x2e"),
    }
    for header, vifs in sent.items():
        for vif in vifs:
            register = one(integer(vif, INT16, 1), header)
            found = catalogue().for_obis(register.obis)
            assert found is not None, register
            assert (register.unit is None) == (found.unit is None)
            assert register.unit is None or found.check_unit(register.unit)
    for name in ("HEAT_maximum_power", "HEAT_maximum_volume_flow", "COOLING_maximum_power"):
        assert any(obis.d == 5 for obis in catalogue().require(name).obis)


def test_every_unit_of_the_tables_is_known_or_foreign() -> None:
    foreign = {"cal", "ft3", "gal", "gal/min", "gal/h", "degreeFahrenheit", "month", "year", "currency"}
    for table in (PRIMARY, FB, FD):
        for quantity in table.values():
            assert quantity.unit is None or find_unit(quantity.unit) or quantity.unit in foreign, quantity


def test_wireless_meters_use_the_same_records() -> None:
    records = read_records(integer(VOLUME_L, INT32, 5), device_type=0x07, zone=BERLIN)
    assert records.registers == (Register(Obis(8, 0, 1, 0, 0), Decimal("0.005"), "m3", None, "volume"),)
    assert not records.more
    assert records.time is None


def test_decoder_has_a_zone_for_the_meters_clock() -> None:
    at = datetime(2026, 1, 15, 7, 30, tzinfo=UTC)
    frame = encode_answer(HEAT, [minute(b"\x6d", at)], address=1, access=1)
    [telegram] = MbusDecoder(UTC).feed(frame, 0.0)
    assert isinstance(telegram, Telegram)
    assert telegram.time == at
    assert at - telegram.time == timedelta()
