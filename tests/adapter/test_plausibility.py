from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterway.adapter.config import MeterConfig, ReplaySource
from meterway.adapter.mapping import MappedReading, Mapper
from meterway.adapter.memory import LIMIT_REGISTERS, Memories, MeterMemory
from meterway.adapter.plausibility import HOLD_S, MEANINGS, Plausibility
from meterway.core import wire
from meterway.core.checks import LIMIT_FAULT_CODE_CHARACTERS
from meterway.core.identifiers import content_digest
from meterway.core.obis import Obis
from meterway.core.properties import Kind, catalogue
from meterway.core.reports import Fault
from meterway.meter.family import Family
from meterway.meter.telegram import Register, Telegram

BEGIN = datetime(2026, 11, 23, 9, 15, 1, tzinfo=UTC)
SERIAL = Register(Obis.parse("0-0:96.1.1"), "MWYE0001")
OTHER_SERIAL = Register(Obis.parse("0-0:96.1.1"), "MWYE0002")
BERLIN = ZoneInfo("Europe/Berlin")


def family(**keys: object) -> Family:
    return Family(title="t", protocol="p1", timezone="UTC", interval_s=10, **keys)  # type: ignore[arg-type]


LIMITED = family(maximum_power_w=43_000)


@dataclass
class Line:
    """A meter, its adapter's mapping and plausibility, and a clock."""

    family: Family = field(default_factory=family)
    checked: bool = True
    memories: Memories = field(default_factory=Memories)
    now: float = 0.0
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._mapper = Mapper(MeterConfig(id="m", source=ReplaySource(file=Path("x"))), self.family)
        self.restart()

    def restart(self) -> None:
        stored = msgspec.json.encode(self.memories.meters)
        self.memories = Memories(msgspec.json.decode(stored, type=dict[str, MeterMemory]))
        self.plausibility = Plausibility(self.family, self._mapper.meter_ids, self.memories)

    def says(
        self,
        *registers: Register,
        after_s: float = 10,
        clock: datetime | None = None,
        live: bool = True,
    ) -> list[MappedReading]:
        """Let a telegram come; return the readings that are handed on."""
        self.now += after_s
        arrival = BEGIN + timedelta(seconds=self.now)
        telegram = Telegram("p1", registers, b"", time=clock, checked=self.checked)
        judged = self.plausibility.judge(
            telegram, self._mapper.readings(telegram, arrival), arrival=arrival, now=self.now, live=live
        )
        self.faults += [doubt.fault for doubt in judged.doubts]
        return judged.readings

    def codes(self, *values: str, code: str = "1-0:1.8.0", unit: str | None = "kWh", after_s: float = 10) -> list[str]:
        """Let one register say ``values`` after one another; return the fault code of each reading."""
        readings = [each for value in values for each in self.says(SERIAL, number(code, value, unit), after_s=after_s)]
        judged = self.plausibility.flush()
        self.faults += [doubt.fault for doubt in judged.doubts]
        return [each.reading.fault_code or "" for each in (*readings, *judged.readings)]


def number(code: str, value: str, unit: str | None = "kWh") -> Register:
    return Register(Obis.parse(code), Decimal(value), unit)


def test_an_honest_register_is_never_doubted() -> None:
    assert Line().codes("12345.678", "12345.678", "12345.680", "12399.000") == [""] * 4


def test_a_single_damaged_value_is_marked_and_does_not_become_the_level() -> None:
    line = Line()
    assert line.codes("12345.678", "12045.678", "12345.679", "12345.680") == ["", "register-fell", "", ""]
    (fault,) = line.faults
    assert fault.reason == "register-fell"
    assert fault.message.startswith(
        "OBIS_1.8.0 is 12045.678 kWh, it was 12345.678 at 2026-11-23 09:15:11 UTC: a damaged value, or"
    )


def test_the_reading_is_kept_with_all_its_values() -> None:
    line = Line()
    line.says(number("1-0:1.8.0", "100.5"))
    (mapped,) = line.says(number("1-0:1.8.0", "0.5"), number("1-0:2.8.0", "7"))
    assert [value.numerical_value for value in mapped.reading.property_values] == [Decimal("0.5"), 7]
    assert mapped.reading.fault_code == "register-fell"


def test_two_values_that_agree_are_the_new_level_and_it_is_said_once() -> None:
    line = Line()
    assert line.codes("12345.678", "7.100", "7.101", "7.102", "7.050") == ["", "register-fell", "", "", "register-fell"]
    assert [fault.reason for fault in line.faults] == ["register-fell", "register-fell"]


def test_two_damaged_values_that_disagree_are_both_marked() -> None:
    assert Line().codes("500.0", "400.0", "300.0", "500.1") == ["", "register-fell", "register-fell", ""]


def test_a_register_that_rolls_over_is_named_so() -> None:
    line = Line()
    assert line.codes("99999.9", "0.4", "0.5") == ["", "register-rolled-over", ""]
    assert "all its digits were used up" in line.faults[0].message
    assert Line(LIMITED).codes("999999.9", "000000.1", "000000.2") == ["", "register-rolled-over", ""]
    assert Line(LIMITED).codes("999999.9", "000900.1") == ["", "register-fell"]


def test_zero_is_named_so_and_is_no_level_until_it_counts_on() -> None:
    assert Line().codes("500.0", "0", "0", "0", "500.1") == ["", *["register-zero"] * 3, ""]
    line = Line()
    assert line.codes("500.0", "0", "0", "0.001", "0.002") == ["", "register-zero", "register-zero", "", ""]
    assert [fault.reason for fault in line.faults] == ["register-zero"]


def test_a_register_that_stays_at_zero_for_a_day_has_been_reset() -> None:
    line = Line()
    hours = line.codes("500.0", *["0"] * 30, after_s=3600)
    assert hours == ["", *["register-zero"] * 24, *[""] * 6]


def test_a_swapped_meter_is_named_once_and_its_registers_begin_anew() -> None:
    line = Line(LIMITED)
    line.says(SERIAL, number("1-0:1.8.0", "12345.678"), number("1-0:2.8.0", "5"))
    (first,) = line.says(OTHER_SERIAL, number("1-0:1.8.0", "7.1"), number("1-0:2.8.0", "99000"))
    (second,) = line.says(OTHER_SERIAL, number("1-0:1.8.0", "7.2"), number("1-0:2.8.0", "99000"))
    (third,) = line.says(OTHER_SERIAL, number("1-0:1.8.0", "6.2"), number("1-0:2.8.0", "99000"))
    assert [each.reading.fault_code for each in (first, second, third)] == ["meter-changed", None, "register-fell"]
    assert [fault.reason for fault in line.faults] == ["meter-changed", "register-fell"]
    assert "MWYE" not in str(line.memories.meters)


def test_a_foreign_telegram_between_changes_nothing() -> None:
    line = Line()
    line.says(SERIAL, number("1-0:1.8.0", "500"))
    assert line.says(OTHER_SERIAL, number("1-0:1.8.0", "900"))[0].reading.fault_code == "meter-changed"
    assert line.says(SERIAL, number("1-0:1.8.0", "501"))[0].reading.fault_code is None
    assert line.says(SERIAL, number("1-0:1.8.0", "499"))[0].reading.fault_code == "register-fell"


def test_new_firmware_is_no_new_meter() -> None:
    line = Line()
    for head in ("KFM5 1.0", "KFM5 2.0"):
        line.now += 10
        telegram = Telegram("p1", (SERIAL, number("1-0:1.8.0", "1")), b"", meter=head)
        readings = line._mapper.readings(telegram, BEGIN)
        judged = line.plausibility.judge(telegram, readings, arrival=BEGIN, now=line.now)
        assert judged.readings[0].reading.fault_code is None


def test_a_unit_that_changed_is_named_so() -> None:
    assert Line().codes("12345.678", "12345679", "12345680") == ["", "scale-changed", ""]
    assert Line().codes("12345678", "12345.678", "12345.679") == ["", "scale-changed", ""]
    assert Line().codes("0.5", "500") == ["", ""], "a young meter"


def test_a_meter_whose_pin_is_locked_says_whole_kilowatt_hours_and_has_not_fallen() -> None:
    assert Line(LIMITED).codes("12345.6789", "12345.0000", "12346.0000", "12346.0010", "12346") == [""] * 5
    assert Line(LIMITED).codes("12345.0000", "12345.0000", "12345.9990") == [""] * 3


def test_a_rise_is_held_against_the_connection_where_it_is_known() -> None:
    assert Line(LIMITED).codes("100.000", "100.001", "300.000", "100.002") == ["", "", "rise-too-fast", ""]
    assert Line(LIMITED).codes("100.000", "100.001", "300.000", "300.001") == ["", "", "rise-too-fast", ""]
    assert Line().codes("100.000", "100.001", "300.000", "300.002") == [""] * 4


def test_a_rise_after_a_gap_is_none_too_fast() -> None:
    line = Line(LIMITED)
    assert line.codes("100.000", "100.001") == ["", ""]
    line.restart()
    assert line.codes("300.000", after_s=86400) == [""]


def test_a_register_that_is_renewed_every_quarter_of_an_hour_rises_rightly() -> None:
    line = Line(LIMITED)
    assert line.codes(*["100.0"] * 90, *["110.0"] * 90, "120.0") == [""] * 181


def test_a_power_that_the_connection_cannot_carry_is_marked() -> None:
    assert Line(LIMITED).codes("43.0", "43.1", "-60", code="1-0:16.7.0", unit="kW") == [
        "",
        "power-too-high",
        "power-too-high",
    ]
    assert Line().codes("4300.0", code="1-0:16.7.0", unit="kW") == [""]


@pytest.mark.parametrize(
    ("code", "unit", "good", "bad"),
    [
        ("1-0:32.7.0", "V", ["230.1", "0", "0.7", "57.7", "11547", "80", "300"], ["23.0", "2301", "-230", "330"]),
        ("1-0:14.7.0", "Hz", ["49.98", "60.02"], ["499.8", "0", "5"]),
        ("1-0:13.7.0", None, ["1", "-0.999", "0"], ["1.001", "95", "-2"]),
        ("1-0:1.7.0", "kW", ["0", "0.001"], ["-0.001"]),
        ("1-0:16.7.0", "kW", ["-3.5"], []),
        ("1-0:16.8.0", "kWh", ["-3.5", "-7", "4"], []),
        ("1-0:1.8.0", "kWh", ["0"], ["-1"]),
    ],
)
def test_a_value_that_cannot_be_is_out_of_range(code: str, unit: str | None, good: list[str], bad: list[str]) -> None:
    line = Line()
    extra = number("1-0:2.8.0", "1")  # a power factor alone is no reading
    found = [line.says(extra, number(code, value, unit))[0].reading.fault_code for value in (*good, *bad)]
    assert found == [None] * len(good) + ["value-out-of-range"] * len(bad)


def test_a_value_that_is_wrong_for_ever_is_marked_each_time_and_said_once() -> None:
    line = Line()
    assert line.codes(*["500"] * 5, code="1-0:14.7.0", unit="Hz") == ["value-out-of-range"] * 5
    assert len(line.faults) == 1
    line.restart()
    line.codes("500", "50", "500", code="1-0:14.7.0", unit="Hz")
    assert len(line.faults) == 2, "right in between, so it is said again"


def clocked(line: Line, *, off_s: float, live: bool = True, zone: ZoneInfo | None = None) -> str | None:
    time = BEGIN + timedelta(seconds=line.now + 10 + off_s)
    if zone:
        time = time.astimezone(zone).replace(fold=0)
    reading = line.says(number("1-0:1.8.0", str(10**8 + line.now)), clock=time, live=live)[0].reading
    return reading.fault_code


def test_a_clock_that_is_right_is_not_doubted() -> None:
    line = Line()
    assert [clocked(line, off_s=off_s) for off_s in (0, 2, -30, 59, -59)] == [None] * 5


def test_a_wrong_clock_marks_each_reading_and_is_said_once() -> None:
    line = Line()
    assert [clocked(line, off_s=off_s) for off_s in (-300, -301, -330, -290)] == ["clock-wrong"] * 4
    (fault,) = line.faults
    assert "is 300 s behind this computer's" in fault.message
    line.restart()
    clocked(line, off_s=-305)
    assert len(line.faults) == 1
    clocked(line, off_s=-900)
    assert len(line.faults) == 2, "it has changed a lot"
    assert clocked(line, off_s=0) is None
    clocked(line, off_s=-900)
    assert len(line.faults) == 3


def test_an_error_of_summer_time_is_named() -> None:
    line = Line()
    assert clocked(line, off_s=3600) == "clock-wrong"
    assert "an error of summer time" in line.faults[0].message
    assert clocked(line, off_s=-3590) == "clock-wrong"
    assert "it jumped back by an hour" in line.faults[1].message


def test_the_hour_that_comes_twice_is_named() -> None:
    line = Line()
    autumn = datetime(2026, 10, 25, 1, 30, 1, tzinfo=UTC)  # 02:30 for the second time
    line.now = (autumn - BEGIN).total_seconds() - 10
    assert clocked(line, off_s=0, zone=BERLIN) == "clock-wrong"
    assert "this hour comes twice" in line.faults[0].message


def test_a_clock_of_whole_minutes_may_be_a_minute_behind() -> None:
    line = Line()
    line.now = 40  # arrives at 51 s past
    time = BEGIN.replace(second=0) - timedelta(minutes=1)
    assert line.says(number("1-0:1.8.0", "1"), clock=time)[0].reading.fault_code is None


def test_rows_of_a_load_profile_are_not_live_and_older_than_the_level_rightly() -> None:
    line = Line()
    assert line.says(number("1-0:1.8.0", "500"), clock=BEGIN)[0].reading.fault_code is None
    rows = [
        line.says(number("1-0:1.8.0", str(400 + hour)), clock=BEGIN - timedelta(hours=10 - hour), live=False)
        for hour in range(10)
    ]
    assert [row[0].reading.fault_code for row in rows] == [None] * 10
    newer = line.says(number("1-0:1.8.0", "450"), clock=BEGIN + timedelta(hours=1), live=False)
    assert newer[0].reading.fault_code == "register-fell"


def test_a_row_of_a_readouts_load_profile_is_recognised() -> None:
    line = Line()
    row = Register(Obis.parse("1-0:99.1.0"), "00")
    (mapped,) = line.says(row, number("1-0:1.8.0", "500"), clock=BEGIN - timedelta(days=3))
    assert mapped.reading.fault_code is None


def test_the_same_reading_read_again_gets_the_same_verdict() -> None:
    line = Line()
    line.says(number("1-0:1.8.0", "500"), clock=BEGIN)
    first = line.says(number("1-0:1.8.0", "400"), clock=BEGIN + timedelta(seconds=20))
    line.restart()
    again = line.says(number("1-0:1.8.0", "400"), clock=BEGIN + timedelta(seconds=20), after_s=1)
    assert first[0].reading.fault_code == again[0].reading.fault_code == "register-fell"
    assert content_digest(first[0].reading) == content_digest(again[0].reading)
    later = line.says(number("1-0:1.8.0", "500"), clock=BEGIN + timedelta(seconds=30))
    assert later[0].reading.fault_code is None, "read twice is not two that agree"


def test_a_fall_across_a_restart_is_seen_though_the_set_of_properties_changed() -> None:
    line = Line()
    line.says(number("1-0:1.8.0", "500"), number("1-0:2.8.0", "7"))
    line.restart()
    line.says(number("1-0:2.8.0", "7"))
    line.restart()
    assert line.says(number("1-0:1.8.0", "400"))[0].reading.fault_code == "register-fell"


def test_without_checksum_a_reading_waits_for_the_next_and_none_is_marked_for_ever() -> None:
    line = Line(checked=False)
    assert line.says(number("1-0:1.8.0", "1.0")) == []
    for step in range(1, 100):
        (reading,) = line.says(number("1-0:1.8.0", f"1.{step:03}"), after_s=1)
        assert reading.reading.fault_code is None
    assert line.faults == []


def test_without_checksum_the_last_reading_is_handed_on_as_unconfirmed() -> None:
    line = Line(checked=False)
    assert line.codes("1.0", "1.1") == ["", "unconfirmed"]
    line.says(number("1-0:1.8.0", "1.2"))
    assert line.plausibility.idle(line.now + HOLD_S).readings == []
    (reading,) = line.plausibility.idle(line.now + HOLD_S + 1).readings
    assert reading.reading.fault_code == "unconfirmed"
    assert line.plausibility.flush().readings == []


def test_without_checksum_a_register_above_the_next_is_the_wrong_one() -> None:
    line = Line(checked=False)
    found = line.codes("1000.000", "1000.001", "1000.401", "1000.003", "1000.004", "1000.005")
    assert found == ["", "", "unconfirmed", "", "", "unconfirmed"]
    assert "it was 1000.001 at" in line.faults[0].message


def test_without_checksum_a_register_below_the_last_has_fallen() -> None:
    line = Line(checked=False)
    assert line.codes("1000.0", "1000.1", "0000.2", "1000.3", "1000.4")[:4] == ["", "", "register-fell", ""]


def test_without_checksum_the_first_value_needs_another() -> None:
    assert Line(checked=False).codes("9000.0", "1000.1", "1000.2", "1000.3")[:3] == ["unconfirmed", "", ""]


def test_without_checksum_a_text_that_stands_in_one_telegram_only_is_unconfirmed() -> None:
    line = Line(checked=False)
    found = []
    for text in ("0001", "0001", "0011", "0001", "0001", "0002", "0002", "0002"):
        found += line.says(Register(Obis.parse("0-0:96.14.0"), text), number("1-0:1.8.0", "1"))
    assert [each.reading.fault_code for each in found] == [None, None, "unconfirmed", None, None, None, None]


def test_without_checksum_a_list_that_comes_once_only_is_unconfirmed() -> None:
    line = Line(checked=False)
    found = []
    for code in ("1.8.1", "1.8.1", "1.8.3", "1.8.1", "1.8.1"):
        found += line.says(number(f"1-0:{code}", "1"))
    assert [each.reading.fault_code for each in found] == [None, None, "unconfirmed", None]


def test_without_checksum_lists_that_alternate_are_confirmed() -> None:
    line = Line(checked=False)
    found = []
    for step in range(12):
        found += line.says(number(f"1-0:{1 + step % 2}.8.0", str(step)))
    assert [each.reading.fault_code for each in found] == ["unconfirmed"] * 2 + [None] * 9


def test_all_codes_together_fit_the_wire() -> None:
    everything = ",".join(MEANINGS)
    assert len(everything) <= LIMIT_FAULT_CODE_CHARACTERS
    line = Line(LIMITED)
    line.says(number("1-0:1.8.0", "500"), clock=BEGIN)
    (mapped,) = line.says(
        number("1-0:1.8.0", "1"), number("1-0:32.7.0", "23", "V"), number("1-0:16.7.0", "99", "kW"), clock=BEGIN
    )
    assert mapped.reading.fault_code == "register-fell,power-too-high,value-out-of-range"
    sent = wire.encode(msgspec.structs.replace(mapped.reading, sequence_number=1))
    assert wire.decode(sent, meter_id="m").fault_code == mapped.reading.fault_code


def test_memory_is_bounded() -> None:
    line = Line()
    ids = [each.property_id for each in catalogue() if each.kind is Kind.REGISTER][: LIMIT_REGISTERS + 20]
    codes = [str(each.obis[0]) for name in ids if (each := catalogue().require(name)).medium == "electricity"]
    for step in range(50):
        line.says(
            *(number(code, str(step), None) for code in codes[:60]), Register(Obis.parse(f"0-{step}:96.1.0"), "s")
        )
    memory = line.memories.of("m")
    assert len(memory.registers) <= LIMIT_REGISTERS
    assert len(memory.identity) <= 32
    assert len(memory.recent) <= 8


@pytest.mark.parametrize("value", ["1E+400", "1E-400", "NaN", "Infinity", "9" * 60, "1." + "7" * 60])
def test_a_number_that_is_no_meters_is_left_to_the_outlet(value: str) -> None:
    line = Line(LIMITED)
    reading = Register(Obis.parse("1-0:1.8.0"), Decimal(value), "kWh")
    other = number("1-0:2.8.0", "1")
    telegram = Telegram("p1", (reading, other), b"")
    try:
        readings = line._mapper.readings(telegram, BEGIN)
    except ArithmeticError:
        return
    for _ in range(2):
        assert len(line.plausibility.judge(telegram, readings, arrival=BEGIN, now=0.0).readings) == 1


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_an_honest_meter_is_never_marked(data: st.DataObject) -> None:
    """Over restarts, gaps and the end of summer time, with and without checksum, whatever it counts."""
    line = Line(LIMITED if data.draw(st.booleans()) else family(), checked=data.draw(st.booleans()))
    line.now = (datetime(2026, 10, 25, 0, 0, tzinfo=UTC) - BEGIN).total_seconds()
    decimals = data.draw(st.integers(0, 4))
    energy_ws = data.draw(st.integers(0, 9 * 10**10))
    has_clock = data.draw(st.booleans())
    found = []
    for _ in range(data.draw(st.integers(2, 40))):
        after_s = data.draw(st.sampled_from([1, 10, 900, 3600, 86400 * 40]))
        power_w = data.draw(st.integers(0, 43_000))
        energy_ws += power_w * after_s
        kwh = (Decimal(energy_ws) / 3_600_000).quantize(Decimal(1).scaleb(-decimals), rounding="ROUND_DOWN")
        arrival = BEGIN + timedelta(seconds=line.now + after_s)
        late = timedelta(seconds=data.draw(st.integers(0, 5)))
        clock = (arrival - late).astimezone(BERLIN) if has_clock else None
        if kwh >= 10**6:
            break
        telegram = (SERIAL, number("1-0:1.8.0", str(kwh)), number("1-0:1.7.0", str(Decimal(power_w) / 1000), "kW"))
        found += line.says(*telegram, after_s=after_s, clock=clock)
        if line.checked and data.draw(st.integers(0, 5)) == 0:
            line.restart()
    assert {each.reading.fault_code for each in found} <= {None}
    assert line.faults == []
