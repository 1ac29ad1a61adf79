"""What the concentrator decides about a message."""

import pytest

from meterway.concentrator.forward import Forward, Refusal, decide, is_retained


def test_good_topic_gets_the_prefix_and_names_the_sender() -> None:
    assert decide("c-1", "smartMeterMessage/meter_7/readings", 10, limit_bytes=10) == Forward(
        "concentrator/c-1/smartMeterMessage/meter_7/readings", "meter_7"
    )


@pytest.mark.parametrize(
    ("topic", "reason", "sender_id"),
    [
        ("smartMeterMessage/m 1/readings", "bad-identifier", None),
        ("smartMeterMessage/m#/readings", "bad-identifier", None),
        ("smartMeterMessage/m\0/readings", "bad-identifier", None),
        ("smartMeterMessage//readings", "bad-identifier", None),
        (f"smartMeterMessage/{'m' * 65}/readings", "bad-identifier", None),
        ("smartMeterMessage/m/other", "bad-topic", "m"),
        ("smartMeterMessage/m", "bad-topic", "m"),
        ("smartMeterMessage/m/readings/more", "bad-topic", "m"),
        ("smartMeterMessage", "bad-topic", None),
        ("", "bad-topic", None),
    ],
)
def test_topic_that_cannot_go_on_is_refused_with_the_reason(topic: str, reason: str, sender_id: str | None) -> None:
    decision = decide("c-1", topic, 0, limit_bytes=10)
    assert isinstance(decision, Refusal)
    assert (decision.reason, decision.sender_id) == (reason, sender_id)


def test_payload_over_the_limit_is_refused_and_its_sender_named() -> None:
    decision = decide("c-1", "smartMeterMessage/m/readings", 11, limit_bytes=10)
    assert decision == Refusal(
        "too-long", "payload of 11 bytes on smartMeterMessage/m/readings is over limits.payload_bytes = 10", "m"
    )


@pytest.mark.parametrize(
    ("specific_topic", "expected"), [("readings", False), ("status", True), ("meter", True), ("faults", False)]
)
def test_status_and_meter_are_retained(specific_topic: str, expected: bool) -> None:
    assert is_retained(f"concentrator/c/smartMeterMessage/m/{specific_topic}") is expected


def test_own_faults_are_not_retained() -> None:
    assert is_retained("concentrator/c/faults") is False
