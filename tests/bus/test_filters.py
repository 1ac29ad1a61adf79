"""Topic filters and topics."""

import pytest

from meterway.bus.filters import check_topic, matches
from meterway.core.errors import BadDataError


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/#", "ab", False),
        ("#", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("a/+/c", "a/b/c", True),
        ("+/b/#", "a/b", True),
        ("a/+/#", "a/b/c/d", True),
        ("a//c", "a//c", True),
        ("a/+/c", "a//c", True),
    ],
)
def test_filter_matches_as_the_standard_says(topic_filter: str, topic: str, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected


@pytest.mark.parametrize("topic", ["", "a b", "a/#", "a/+", "a\0b", "a\nb", "a\x7f", "\ud800", "x" * 1025])
def test_topic_that_a_broker_may_choke_on_is_refused(topic: str) -> None:
    with pytest.raises(BadDataError) as caught:
        check_topic(topic)
    assert caught.value.reason == "bad-topic"


def test_good_topic_is_returned() -> None:
    assert check_topic("smartMeterMessage/ä-1_x/readings") == "smartMeterMessage/ä-1_x/readings"
