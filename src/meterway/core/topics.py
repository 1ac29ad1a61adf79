"""The topics on the wire; the only file that spells them.

    smartMeterMessage/[smartMeterId]/[specificTopic]                                  adapter -> concentrator
    concentrator/[concentratorId]/smartMeterMessage/[smartMeterId]/[specificTopic]    concentrator -> cloud
    concentrator/[concentratorId]/status                                              a concentrator, about itself
    concentrator/[concentratorId]/faults                                              a concentrator, about itself
    receipt/[senderId]                                                                receiver -> sender

Ids are ``[A-Za-z0-9_-]{1,64}``. Source: Open Meter Data Platform, Communication Technologies; receipts and a
concentrator's own status and faults are ours.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from meterway.core.errors import BadDataError

SMART_METER_FILTER = "smartMeterMessage/#"
"""What the concentrator subscribes to. The specification writes ``*``, which is no wildcard in MQTT."""

CONCENTRATOR_FILTER = "concentrator/#"
"""What the cloud subscribes to."""

ROOTS = frozenset({"smartMeterMessage", "concentrator", "receipt"})
"""The first levels of all topics that Meterway publishes on."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class SpecificTopic(StrEnum):
    """The specific topics that an adapter publishes."""

    READINGS = "readings"
    STATUS = "status"
    METER = "meter"
    FAULTS = "faults"

    @property
    def retained(self) -> bool:
        """Whether the broker keeps the last message for those who subscribe later."""
        return self in (SpecificTopic.STATUS, SpecificTopic.METER)


_OWN = (SpecificTopic.STATUS, SpecificTopic.FAULTS)


@dataclass(frozen=True, slots=True)
class CloudTopic:
    """A topic as it arrives in the cloud, taken apart."""

    concentrator_id: str
    meter_id: str | None
    """None where the concentrator speaks about itself."""
    specific_topic: SpecificTopic


def check_id(value: str, what: str) -> str:
    """Return ``value`` if it can stand in a topic.

    Raises:
        BadDataError: it is empty, longer than 64 characters, or has a character outside ``[A-Za-z0-9_-]``.
    """
    if not _ID.fullmatch(value):
        raise BadDataError(f"{what} {value[:80]!r} is not 1 to 64 letters, digits, '_' or '-'", reason="bad-identifier")
    return value


def smart_meter_topic(meter_id: str, specific_topic: SpecificTopic) -> str:
    """Return the topic on which an adapter publishes."""
    return f"smartMeterMessage/{check_id(meter_id, 'smart meter id')}/{specific_topic}"


def concentrator_topic(concentrator_id: str, topic: str) -> str:
    """Return the topic on which a concentrator passes on what arrived on ``topic``.

    Raises:
        BadDataError: ``topic`` is not ``smartMeterMessage/[smartMeterId]/[specificTopic]``.
    """
    meter_id, specific_topic = split_smart_meter_topic(topic)
    return f"concentrator/{concentrator_id}/smartMeterMessage/{meter_id}/{specific_topic}"


def concentrator_own_topic(concentrator_id: str, specific_topic: SpecificTopic) -> str:
    """Return the topic on which a concentrator speaks about itself: its status or its faults."""
    return f"concentrator/{check_id(concentrator_id, 'concentrator id')}/{specific_topic}"


def split_smart_meter_topic(topic: str) -> tuple[str, SpecificTopic]:
    """Return the smart meter id and the specific topic of an adapter's topic.

    Raises:
        BadDataError: the topic has another shape, an id that cannot stand in a topic, or an unknown ending.
    """
    parts = topic.split("/")
    if len(parts) != 3 or parts[0] != "smartMeterMessage":  # noqa: PLR2004
        raise BadDataError(
            f"topic {topic[:200]!r} is not smartMeterMessage/[smartMeterId]/[specificTopic]",
            reason="bad-topic",
        )
    return check_id(parts[1], "smart meter id"), _specific(parts[2])


def split_concentrator_topic(topic: str) -> CloudTopic:
    """Take apart a topic that arrived in the cloud.

    Raises:
        BadDataError: the topic has another shape, an id that cannot stand in a topic, or an unknown ending.
    """
    parts = topic.split("/", 2)
    if len(parts) != 3 or parts[0] != "concentrator":  # noqa: PLR2004
        raise BadDataError(
            f"topic {topic[:200]!r} is not concentrator/[concentratorId]/smartMeterMessage/[smartMeterId]"
            "/[specificTopic]",
            reason="bad-topic",
        )
    concentrator_id = check_id(parts[1], "concentrator id")
    if parts[2] in _OWN:
        return CloudTopic(concentrator_id, None, SpecificTopic(parts[2]))
    meter_id, specific_topic = split_smart_meter_topic(parts[2])
    return CloudTopic(concentrator_id, meter_id, specific_topic)


def receipt_topic(sender_id: str) -> str:
    """Return the topic on which ``sender_id`` (a smart meter or a concentrator) is told what has arrived."""
    return f"receipt/{check_id(sender_id, 'sender id')}"


def _specific(text: str) -> SpecificTopic:
    try:
        return SpecificTopic(text)
    except ValueError:
        known = ", ".join(SpecificTopic)
        raise BadDataError(f"specific topic {text[:80]!r} is unknown; known are {known}", reason="bad-topic") from None
