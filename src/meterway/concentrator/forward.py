"""Decides what becomes of a message. Pure; sees the topic and the length, never the payload."""

from dataclasses import dataclass
from functools import lru_cache

from meterway.core import topics
from meterway.core.errors import BadDataError

LIMIT_KNOWN_TOPICS = 16_384
"""For so many topics the decision is remembered; beyond, the one not used for longest is taken again."""


@dataclass(frozen=True, slots=True)
class Forward:
    """The message goes on as it is."""

    topic: str
    """Where to."""
    sender_id: str
    """The smart meter that is told when it is safe here."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The message cannot go on; a fault report goes in its place."""

    reason: str
    """``bad-topic``, ``bad-identifier`` or ``too-long``."""
    message: str
    sender_id: str | None
    """Who is told not to send it again; None when the topic does not say."""


def decide(concentrator_id: str, topic: str, size_bytes: int, *, limit_bytes: int) -> Forward | Refusal:
    """Return what to do with a message of ``size_bytes`` that arrived on ``topic``."""
    decision = _by_topic(concentrator_id, topic)
    if size_bytes > limit_bytes and isinstance(decision, Forward):
        message = f"payload of {size_bytes} bytes on {topic} is over limits.payload_bytes = {limit_bytes}"
        return Refusal("too-long", message, decision.sender_id)
    return decision


@lru_cache(maxsize=LIMIT_KNOWN_TOPICS)
def origin(cloud_topic: str) -> tuple[str, str] | None:
    """Return the topic and the smart meter that a forwarded message came from; None for the concentrator's own."""
    meter_id = topics.split_concentrator_topic(cloud_topic).meter_id
    return None if meter_id is None else (cloud_topic.split("/", 2)[2], meter_id)


@lru_cache(maxsize=LIMIT_KNOWN_TOPICS)
def is_retained(cloud_topic: str) -> bool:
    """Tell whether the cloud's broker keeps what is published on ``cloud_topic`` for late subscribers."""
    return topics.split_concentrator_topic(cloud_topic).specific_topic.retained


@lru_cache(maxsize=LIMIT_KNOWN_TOPICS)
def _by_topic(concentrator_id: str, topic: str) -> Forward | Refusal:
    try:
        sender_id, _ = topics.split_smart_meter_topic(topic)
        return Forward(topics.concentrator_topic(concentrator_id, topic), sender_id)
    except BadDataError as error:
        return Refusal(error.reason, str(error), _sender_id(topic))


def _sender_id(topic: str) -> str | None:
    """Return the smart meter id in a topic that is wrong elsewhere."""
    parts = topic.split("/")
    try:
        return topics.check_id(parts[1], "smart meter id") if len(parts) > 1 else None
    except BadDataError:
        return None
