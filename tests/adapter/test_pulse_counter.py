from datetime import UTC, datetime
from pathlib import Path

import pytest

from meterway.adapter.config import MeterConfig, ReplaySource
from meterway.adapter.mapping import Mapper
from meterway.adapter.prepare import prepare
from meterway.adapter.pulse_counter import PulseConfig, PulseCounter
from meterway.core.errors import SetupError
from meterway.meter.codec import CodecError
from meterway.meter.family import load_family
from meterway.meter.pulse import Items
from meterway.meter.telegram import Telegram

FAMILY = load_family("pulse-s0-electricity")


def counter(path: Path, **keys: str) -> PulseCounter:
    assert FAMILY.pulse is not None
    return PulseCounter(PulseConfig(file=path, **keys), FAMILY.pulse, interval_s=60)


def pulses(made: PulseCounter, number: int, begin: float = 0.0) -> None:
    for pulse in range(number):
        assert made.feed(b"\x00", begin + pulse) == []


def register(items: Items) -> str:
    (telegram,) = items
    assert isinstance(telegram, Telegram)
    return str(telegram.registers[0].value)


def test_the_count_is_on_the_disk_before_its_reading_is_handed_on(tmp_path: Path) -> None:
    path = tmp_path / "state" / "pulses.json"
    first = counter(path, start="12345.678")
    pulses(first, 50)
    assert not path.exists()
    assert register(first.idle(60.0)) == "12345.728"
    pulses(first, 5, 61.0)  # lost: the process is killed here
    again = counter(path, start="12345.678")
    again.idle(0.0)
    assert register(again.idle(60.0)) == "12345.728"


def test_nothing_is_lost_when_it_is_closed(tmp_path: Path) -> None:
    first = counter(tmp_path / "pulses.json")
    pulses(first, 7)
    first.close()
    again = counter(tmp_path / "pulses.json")
    again.idle(0.0)
    assert register(again.idle(60.0)) == "0.007"


def test_it_is_written_once_a_reading_and_only_if_a_pulse_came(tmp_path: Path) -> None:
    path = tmp_path / "pulses.json"
    made = counter(path)
    pulses(made, 3)
    made.idle(60.0)
    written = path.stat()
    made.idle(120.0)
    made.close()
    assert path.stat().st_ino == written.st_ino
    made.feed(b"\x00", 130.0)
    assert path.stat().st_ino == written.st_ino
    made.idle(180.0)
    assert path.stat().st_ino != written.st_ino


def test_a_new_start_begins_the_count_anew(tmp_path: Path) -> None:
    path = tmp_path / "pulses.json"
    made = counter(path, start="100")
    pulses(made, 30)
    made.close()
    again = counter(path, start="200")
    again.idle(0.0)
    assert register(again.idle(60.0)) == "200.000"


def test_pulses_of_another_worth_are_not_mixed(tmp_path: Path) -> None:
    made = counter(tmp_path / "pulses.json")
    pulses(made, 30)
    made.close()
    with pytest.raises(SetupError, match="counted at 1000 a unit, and now there are 800; set `start`"):
        counter(tmp_path / "pulses.json", pulses_per_unit="800")
    counter(tmp_path / "pulses.json", pulses_per_unit="800", start="7")


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"version":1,"start":"0","pulses_per_unit":"1000","count":-1}', b"\0"]
)
def test_a_damaged_file_stops_with_the_next_step(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pulses.json").write_bytes(content)
    with pytest.raises(SetupError, match="set `start` to what the meter's dial shows, and remove the file"):
        counter(tmp_path / "pulses.json")


def test_readings_wait_while_the_count_cannot_be_saved(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    made = counter(folder / "pulses.json")
    pulses(made, 3)
    folder.write_bytes(b"no folder")
    (error,) = made.idle(60.0)
    assert isinstance(error, CodecError)
    assert error.reason == "not-saved"
    assert "the count of pulses cannot be saved" in str(error)
    folder.unlink()
    assert register(made.idle(120.0)) == "0.003"


@pytest.mark.parametrize("start", ["-1", "much", "1e30", "NaN"])
def test_a_wrong_start_is_refused(start: str) -> None:
    with pytest.raises(ValueError, match="as a dial shows it"):
        PulseConfig(file=Path("x"), start=start)


def test_what_is_counted_becomes_a_reading(tmp_path: Path) -> None:
    made = counter(tmp_path / "pulses.json")
    pulses(made, 30)
    (telegram,) = made.idle(60.0)
    assert isinstance(telegram, Telegram)
    mapper = Mapper(MeterConfig(id="m", source=ReplaySource(file=Path("x"))), FAMILY)
    (mapped,) = mapper.readings(telegram, datetime(2026, 11, 23, tzinfo=UTC))
    found = {value.property_id: str(value.numerical_value) for value in mapped.reading.property_values}
    assert found == {"OBIS_1.8.0": "0.030", "OBIS_1.7.0": "0.116"}


def test_the_configuration_of_a_meter_says_where_its_count_is_kept(tmp_path: Path) -> None:
    keys = {"id": "m", "source": ReplaySource(file=Path("x")), "family": "pulse-s0-gas"}
    with pytest.raises(SetupError, match="meter m: its pulses must be counted for ever"):
        prepare(MeterConfig(**keys))  # type: ignore[arg-type]
    pulse = PulseConfig(file=tmp_path / "pulses.json", start="4711.25")
    prepared = prepare(MeterConfig(pulse=pulse, **keys))  # type: ignore[arg-type]
    assert prepared.decoder is not None
    prepared.decoder.feed(b"\x00", 0.0)
    assert register(prepared.decoder.idle(30.0)) == "4711.26"
