"""Faults: what is called spoilt is refused by the codec, what is called whole is read."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from meterway.core.errors import SetupError
from meterway.meter.p1 import P1Decoder
from meterway.meter.sml import SmlDecoder
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.faults import FaultName, Faults, parse_faults
from meterway.meter.virtual.meter import Kind, VirtualMeter

if TYPE_CHECKING:
    from meterway.meter.codec import CodecError, Decoder

VIENNA = ZoneInfo("Europe/Vienna")
START = int(datetime(2026, 6, 17, 10, 0, tzinfo=UTC).timestamp())
TELEGRAMS = 400


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("fault", FaultName)
def test_the_codec_gets_every_whole_telegram_and_none_that_is_spoilt(kind: Kind, fault: FaultName) -> None:
    meter = VirtualMeter(kind, "faulty", 0, zone=VIENNA)
    faults = Faults({fault: 0.3}, kind, "faulty", 0)
    decoder: Decoder = P1Decoder(VIENNA) if kind is Kind.P1 else SmlDecoder()
    whole: list[bytes] = []
    items: list[Telegram | CodecError] = []
    seen = set()
    for instant_s in range(START, START + TELEGRAMS):
        spoken = meter.tick(instant_s)
        sending = faults.send(spoken.telegram, instant_s)
        seen.add(sending.fault)
        if sending.whole:
            whole.append(spoken.telegram)
            assert sending.data.endswith(spoken.telegram)
        else:
            assert spoken.telegram not in sending.data
        items += decoder.feed(sending.data, 0.0)
    items += decoder.idle(1.0)
    assert seen == {None, fault}
    assert 0 < len(whole) <= TELEGRAMS
    decoded = [item.raw.rstrip(b"\r\n") for item in items if isinstance(item, Telegram)]
    assert decoded == [telegram.rstrip(b"\r\n") for telegram in whole]


def test_faults_are_the_same_for_the_same_seed() -> None:
    rates = dict.fromkeys(FaultName, 0.1)
    meter = VirtualMeter(Kind.P1, "seed", 0, zone=VIENNA)
    telegrams = [meter.tick(instant_s).telegram for instant_s in range(START, START + 100)]
    first, second, other = (
        [faults.send(telegram, START + n).data for n, telegram in enumerate(telegrams)]
        for faults in (Faults(rates, Kind.P1, seed, 0) for seed in ("a", "a", "b"))
    )
    assert first == second != other


def test_a_silence_takes_several_telegrams_in_a_row() -> None:
    faults = Faults({FaultName.SILENCE: 0.02}, Kind.P1, "quiet", 0)
    silent = [not faults.send(b"/x\r\n\r\n1(2)\r\n!ABCD\r\n", START + n).data for n in range(2000)]
    stretches = "".join("x" if each else " " for each in silent).split()
    assert len(stretches) > 3
    assert min(map(len, stretches)) >= 3


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("noize=0.1",), "fault 'noize' is unknown; there are noise, garble, cut, checksum, silence"),
        (("cut",), "fault 'cut' needs a rate from 0 to 1, such as cut=0.01"),
        (("cut=1.5",), "between 0 and 1"),
        (("cut=0.6", "noise=0.6"), "at most 1 together"),
        (("cut=nan",), "between 0 and 1"),
    ],
)
def test_wrong_rates_are_refused_with_the_way_out(texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(SetupError) as caught:
        parse_faults(texts)
    assert message in str(caught.value)


def test_rates_are_read() -> None:
    assert parse_faults(("cut=0.25", "noise=0")) == {FaultName.CUT: 0.25, FaultName.NOISE: 0.0}
