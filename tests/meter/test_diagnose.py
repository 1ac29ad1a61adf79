"""What the bytes of a line say about it."""

from random import Random

import pytest

from meterway.core.zones import find_zone
from meterway.meter.codec import Decoder
from meterway.meter.diagnose import Finding, diagnose, hear
from meterway.meter.driver import MeterSetup
from meterway.meter.family import Family, Line, family_names, load_family
from meterway.meter.keys import NO_KEYS, Keys
from meterway.plugins import make_decoder
from support import sml
from support.uart import read_as

P1_LINE = Line()
SEVEN_BITS = Line(baud=9600, data_bits=7, parity="E")


def found(family: Family, data: bytes, line: Line | None = None, *, keys: Keys = NO_KEYS) -> list[Finding]:
    zone = find_zone(family.timezone)
    heard = hear([data], make_decoder(MeterSetup(family=family, zone=zone, keys=keys)))

    def decoder_of(protocol: str) -> Decoder:
        return make_decoder(MeterSetup.unknown(protocol, zone))

    return diagnose(heard, family.protocol, line or family.line, decoder_of)


def sample(name: str) -> tuple[Family, bytes]:
    family = load_family(name)
    assert family.sample is not None
    return family, family.sample.telegram


def codes(findings: list[Finding]) -> list[str]:
    assert all(finding.detail and finding.fix for finding in findings)
    return [finding.code for finding in findings]


def pushed() -> list[str]:
    names = (load_family(name) for name in family_names())
    return [family.name for family in names if family.protocol in ("p1", "sml", "dlms") and not family.is_asked]


@pytest.mark.parametrize("name", pushed())
def test_good_telegrams_have_no_finding(name: str) -> None:
    family, telegram = sample(name)
    assert family.sample is not None
    assert found(family, telegram, keys=family.sample.keys) == []


def test_no_bytes() -> None:
    assert codes(found(load_family("p1-generic"), b"")) == ["no-bytes"]


def test_another_protocol() -> None:
    _, telegram = sample("sml-generic")
    finding = found(load_family("p1-generic"), telegram)[0]
    assert finding.code == "wrong-protocol"
    assert "sml" in finding.detail


@pytest.mark.parametrize("baud", [300, 2400, 9600])
def test_a_sender_that_is_slower_than_the_reader(baud: int) -> None:
    family, telegram = sample("p1-generic")
    seen = read_as(telegram[:60], Line(baud=baud), P1_LINE)
    finding = found(family, seen, P1_LINE)[0]
    assert finding.code == "wrong-baud"
    assert "too fast" in finding.detail


@pytest.mark.parametrize("read", [Line(baud=9600), Line(baud=2400, parity="E")])
def test_a_sender_that_is_faster_than_the_reader(read: Line) -> None:
    family, telegram = sample("p1-generic")
    finding = found(family, read_as(telegram * 4, P1_LINE, read), read)[0]
    assert finding.code == "wrong-baud"
    assert "too fast" not in finding.detail


def test_wrong_parity() -> None:
    family, telegram = sample("p1-v2")
    seen = read_as(telegram, SEVEN_BITS, Line(baud=9600))
    assert not seen.isascii()
    assert codes(found(family, seen, Line(baud=9600))) == ["wrong-parity"]


def test_right_line_is_not_blamed() -> None:
    family, telegram = sample("p1-v2")
    assert found(family, read_as(telegram * 2, SEVEN_BITS, SEVEN_BITS), SEVEN_BITS) == []


def test_noise_is_no_wrong_parity() -> None:
    assert codes(found(load_family("p1-generic"), Random(1).randbytes(4000))) == ["wrong-baud"]


def test_wrong_checksum() -> None:
    family, telegram = sample("p1-generic")
    damaged = telegram.replace(b"1-0:1.8.1", b"1-0:1.8.2")
    assert damaged != telegram
    assert codes(found(family, damaged * 2)) == ["bad-checksum"]


def test_half_telegrams() -> None:
    family, telegram = sample("p1-generic")
    assert codes(found(family, telegram[: len(telegram) // 2])) == ["half-telegrams"]


@pytest.mark.parametrize("name", ["dlms-kaifa-austria", "p1-luxembourg-encrypted"])
def test_keys(name: str) -> None:
    family, telegram = sample(name)
    assert family.sample is not None
    right = family.sample.keys
    assert found(family, telegram, keys=Keys(right.encryption)) == []
    assert codes(found(family, telegram)) == ["no-key"]
    random = Random(7)
    wrong = [codes(found(family, telegram, keys=Keys(random.randbytes(16)))) for _ in range(50)]
    assert all("wrong-key" in each for each in wrong)


def test_a_locked_sml_meter() -> None:
    family, _ = sample("sml-generic")
    locked = sml.entry(sml.IMPORT, sml.integer(12345000, 8), unit=sml.WH)
    assert codes(found(family, sml.frame(sml.get_list(locked)))) == ["pin-locked"]
    open_ = sml.entry(sml.IMPORT, sml.integer(12345001, 8), unit=sml.WH)
    power = sml.entry(sml.POWER, sml.integer(120, 4), unit=sml.W)
    for entries in ([open_], [locked, power]):
        assert found(family, sml.frame(sml.get_list(*entries))) == []
