"""Topic filters and topics (MQTT 3.1.1, section 4.7)."""

import re
from functools import lru_cache

from meterway.core.errors import BadDataError

LIMIT_TOPIC_BYTES = 1024
"""The longest topic that is published."""

_UNFIT = re.compile(r"[\x00-\x20\x7f-\x9f+#\ud800-\udfff]")


def matches(topic_filter: str, topic: str) -> bool:
    """Tell whether a subscription to ``topic_filter`` takes messages on ``topic``."""
    if topic_filter == topic:
        return True
    wanted, given = topic_filter.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        if len(given) < len(wanted):
            return False
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(want in ("+", have) for want, have in zip(wanted, given, strict=True))


def check_filter(topic_filter: str) -> str:
    """Return ``topic_filter`` if every broker takes a subscription to it.

    Raises:
        BadDataError: as ``check_topic``; or a wildcard is only a part of a level, or ``#`` is not the last.
    """
    levels = topic_filter.split("/")
    names = [level for level in levels if level not in ("+", "#")]
    if "#" in levels[:-1] or any(wildcard in name for name in names for wildcard in "+#"):
        raise BadDataError(
            f"topic filter {topic_filter[:200]!r}: + stands for one whole level, # for all that follow, at the end",
            reason="bad-topic",
        )
    if names:
        check_topic("/".join(names))
    return topic_filter


@lru_cache(maxsize=16_384)
def check_topic(topic: str) -> str:
    """Return ``topic`` if every broker takes a message on it.

    Stricter than the standard: a space or a control character makes NATS drop the client.

    Raises:
        BadDataError: it is empty or too long, or has a space, a control character or a wildcard.
    """
    found = _UNFIT.search(topic)
    if found:
        raise BadDataError(f"topic {topic[:200]!r} cannot be published: it has {found[0]!r}", reason="bad-topic")
    if not 0 < len(topic.encode()) <= LIMIT_TOPIC_BYTES:
        raise BadDataError(f"topic {topic[:200]!r} is not 1 to {LIMIT_TOPIC_BYTES} bytes long", reason="bad-topic")
    return topic
