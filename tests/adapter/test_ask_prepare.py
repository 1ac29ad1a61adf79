"""Who shares a link with whom, and how its line is set: decided before anything is opened."""

from pathlib import Path

import msgspec
import pytest

from meterway.adapter.config import AdapterConfig, MeterConfig, ReplaySource, SerialSource, TcpSource, segments
from meterway.adapter.prepare import line_of, prepare
from meterway.core.errors import SetupError
from meterway.meter.family import Line
from support.adapter import METER

IDS = tuple(f"{n}{METER[1:]}" for n in range(1, 5))
PORT = SerialSource(port=Path("/dev/ttyUSB0"))
IEC = Line(baud=300, data_bits=7, parity="E")


def meters(*addresses: str) -> tuple[MeterConfig, ...]:
    return tuple(
        MeterConfig(id=meter_id, source=PORT, address=address)
        for meter_id, address in zip(IDS, addresses, strict=False)
    )


def test_meters_with_an_equal_source_are_one_segment() -> None:
    first, second = meters("1", "2")
    other = MeterConfig(id=IDS[2], source=SerialSource(port=Path("/dev/ttyUSB0"), baud=9600))
    assert segments([first, other, second]) == [[first, second], [other]]


@pytest.mark.parametrize("addresses", [("", ""), ("1", ""), ("1", "1"), ("0a", "0A"), ("1", "2", "1")])
def test_meters_that_share_a_source_have_an_address_each(addresses: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="share one source: each needs an `address`, and each another one"):
        AdapterConfig(id="a", spool_dir=Path("spool"), meters=meters(*addresses))


def test_a_meter_alone_needs_no_address() -> None:
    alone = (*meters(""), MeterConfig(id=IDS[3], source=TcpSource(host="gateway", port=8001)))
    assert AdapterConfig(id="a", spool_dir=Path("spool"), meters=alone).meters == alone


@pytest.mark.parametrize(
    ("pinned", "line"),
    [
        ({}, IEC),
        ({"data_bits": 8}, Line(baud=300, data_bits=8, parity="N")),
        ({"data_bits": 8, "parity": "N"}, Line(baud=300, data_bits=8, parity="N")),
        ({"data_bits": 8, "parity": "E"}, Line(baud=300, data_bits=8, parity="E")),
        ({"baud": 9600}, Line(baud=9600, data_bits=7, parity="E")),
    ],
)
def test_a_port_with_eight_bits_leaves_the_parity_to_the_master(pinned: dict[str, object], line: Line) -> None:
    assert line_of(msgspec.structs.replace(PORT, **pinned), IEC) == line
    assert line_of(TcpSource(host="gateway", port=1), IEC) == IEC


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "cannot be read: No such file"), ("", "has 0 lines"), ("one\ntwo\n", "has 2 lines")],
)
def test_a_password_file_that_is_of_no_use_is_refused_without_its_content(
    tmp_path: Path, content: str | None, sentence: str
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_text(content)
    source = ReplaySource(file=tmp_path / "x")
    with pytest.raises(SetupError) as caught:
        prepare(MeterConfig(id=METER, source=source, password_file=file))
    assert sentence in str(caught.value)
    assert "one" not in str(caught.value).replace(str(file), "").replace("has one", "")
