"""The topics of the specification, put together and taken apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterway.core import topics
from meterway.core.errors import BadDataError
from meterway.core.topics import CloudTopic, SpecificTopic

ids = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)


def test_topics_are_spelled_as_required() -> None:
    topic = topics.smart_meter_topic("m1", SpecificTopic.READINGS)
    assert topic == "smartMeterMessage/m1/readings"
    assert topics.concentrator_topic("c1", topic) == "concentrator/c1/smartMeterMessage/m1/readings"
    assert topics.concentrator_own_topic("c1", SpecificTopic.STATUS) == "concentrator/c1/status"
    assert topics.receipt_topic("m1") == "receipt/m1"
    assert (topics.SMART_METER_FILTER, topics.CONCENTRATOR_FILTER) == ("smartMeterMessage/#", "concentrator/#")


@given(ids, ids, st.sampled_from(SpecificTopic))
def test_what_is_put_together_comes_apart(concentrator_id: str, meter_id: str, specific: SpecificTopic) -> None:
    topic = topics.smart_meter_topic(meter_id, specific)
    assert topics.split_smart_meter_topic(topic) == (meter_id, specific)
    onward = topics.concentrator_topic(concentrator_id, topic)
    assert topics.split_concentrator_topic(onward) == CloudTopic(concentrator_id, meter_id, specific)


@pytest.mark.parametrize("specific", [SpecificTopic.STATUS, SpecificTopic.FAULTS])
def test_a_concentrator_speaks_about_itself(specific: SpecificTopic) -> None:
    topic = topics.concentrator_own_topic("c1", specific)
    assert topics.split_concentrator_topic(topic) == CloudTopic("c1", None, specific)


def test_status_and_description_are_retained_and_nothing_else() -> None:
    assert [specific for specific in SpecificTopic if specific.retained] == [SpecificTopic.STATUS, SpecificTopic.METER]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a#", "+", "a\0", "ä", "x" * 65, "a\n"])
def test_an_id_that_cannot_stand_in_a_topic_is_refused(name: str) -> None:
    with pytest.raises(BadDataError, match="is not 1 to 64 letters, digits, '_' or '-'") as caught:
        topics.check_id(name, "smart meter id")
    assert caught.value.reason == "bad-identifier"


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("", "bad-topic"),
        ("smartMeterMessage/m1", "bad-topic"),
        ("smartMeterMessage/m1/readings/x", "bad-topic"),
        ("SmartMeterMessage/m1/readings", "bad-topic"),
        ("smartMeterMessage/m1/secrets", "bad-topic"),
        ("smartMeterMessage/m 1/readings", "bad-identifier"),
        ("smartMeterMessage//readings", "bad-identifier"),
    ],
)
def test_another_topic_of_an_adapter_is_refused(topic: str, reason: str) -> None:
    with pytest.raises(BadDataError) as caught:
        topics.split_smart_meter_topic(topic)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("concentrator/c1", "bad-topic"),
        ("concentrator/c1/readings", "bad-topic"),
        ("other/c1/smartMeterMessage/m1/readings", "bad-topic"),
        ("concentrator/c 1/smartMeterMessage/m1/readings", "bad-identifier"),
        ("concentrator/c1/smartMeterMessage/m1/readings/more", "bad-topic"),
    ],
)
def test_another_topic_of_a_concentrator_is_refused(topic: str, reason: str) -> None:
    with pytest.raises(BadDataError) as caught:
        topics.split_concentrator_topic(topic)
    assert caught.value.reason == reason


@given(st.text(max_size=80))
def test_any_text_is_a_topic_or_bad_data(topic: str) -> None:
    for split in (topics.split_smart_meter_topic, topics.split_concentrator_topic):
        with pytest.raises(BadDataError) as caught:
            split(topic)
        assert len(str(caught.value)) < 400
