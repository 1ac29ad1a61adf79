"""The tests of the driver: the gate of Meterway's own codecs, the family's sample, and conversations."""

import pytest

from meterway.core.errors import SetupError, TransientError
from meterway.meter.codec import CodecError
from meterway.meter.family import load_family
from meterway.meter.master import Done, Send
from meterway.meter.telegram import Telegram
from meterway.testing import check_codec
from meterway_tickbox import DRIVER
from meterway_tickbox.codec import LIMIT_BYTES, TickboxDecoder, answer, decode
from meterway_tickbox.master import ATTEMPTS, TickboxMaster

ANSWER = answer("07", "imp=1234.567kWh pow=412W")
OTHER = answer("08", "imp=1kWh")


def test_the_codec_passes_the_gate() -> None:
    report = check_codec(TickboxDecoder, ANSWER + OTHER, limit_bytes=LIMIT_BYTES)
    assert (report.telegrams, report.errors) == (2, 0)


def test_the_familys_sample_is_decoded_to_what_stands_beside_it() -> None:
    assert DRIVER.families is not None
    family = load_family("tickbox-t1", [DRIVER.families])
    assert family.sample is not None
    assert DRIVER.asks(family)
    [telegram] = TickboxDecoder().feed(family.sample.telegram, 0.0)
    assert isinstance(telegram, Telegram)
    found = [(str(r.obis).removesuffix("*255"), str(r.value), r.unit) for r in telegram.registers]
    assert found == list(family.sample.registers)


@pytest.mark.parametrize("content", ["imp=1.kWh", "imp=1234567890kWh", "imp=1kWh ", "xyz=1W", "pow=nanW", "imp 1kWh"])
def test_values_of_another_form_are_no_reading(content: str) -> None:
    item = decode(answer("07", content))
    assert isinstance(item, CodecError)
    assert item.reason == "bad-syntax"


def test_a_meter_is_asked_with_its_password_and_answers_of_others_are_passed_over() -> None:
    master = TickboxMaster("07", "rosebud")
    [send, _] = master.start(0.0)
    assert send == Send(b"?07 rosebud\n")
    assert master.feed(OTHER + ANSWER[:9], 0.1) == []
    telegram, done = master.feed(ANSWER[9:], 0.2)
    assert isinstance(telegram, Telegram)
    assert telegram.meter == "07"
    assert done == Done()


def test_a_refusal_is_for_a_person_and_silence_is_not() -> None:
    master = TickboxMaster("07", None)
    master.start(0.0)
    [done] = master.feed(answer("07", "refused"), 0.1)
    assert isinstance(done, Done)
    assert isinstance(done.error, SetupError)
    master = TickboxMaster("07", None)
    steps = master.start(0.0)
    for now in range(1, ATTEMPTS + 1):
        assert steps[0] == Send(b"?07\n")
        steps = master.on_timeout(2.0 * now)
    [done] = steps
    assert isinstance(done, Done)
    assert isinstance(done.error, TransientError)


@pytest.mark.parametrize(("address", "password"), [("7", None), ("x7", None), ("07", ""), ("07", "a b"), ("07", "é")])
def test_what_cannot_be_sent_is_refused_at_once(address: str, password: str | None) -> None:
    with pytest.raises(SetupError):
        TickboxMaster(address, password)
