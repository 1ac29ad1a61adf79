"""What ``meterway doctor`` asks of refusals: the cloud where this device was enrolled, and the broker itself.

A broker tells the sender of a refused publish that all is well (MQTT 3.1.1). What it wrote into its log, the cloud
knows; and where it speaks MQTT 5 it gives the reason to who sends the message that waits once more.
"""

import asyncio
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from meterway.adapter.doctor.backlog import LATE_S
from meterway.adapter.doctor.check import Check
from meterway.bus.bus import BrokerConfig
from meterway.bus.mqtt import login
from meterway.bus.reason import FIRST_REFUSAL, NOT_AUTHORISED, QUOTA_EXCEEDED, REASONS, TOO_LARGE, reason_of
from meterway.cli.enroll_client import ask_own
from meterway.core.enrolment import OwnAnswer, RefusalItem
from meterway.core.errors import MeterwayError
from meterway.delivery.look import look

RECENT: Final = timedelta(days=1)
"""An older refusal is history: told, but no failure."""

_FIXES: Final = {
    NOT_AUTHORISED: "give this user the right to publish it, at the broker or on the cloud's devices page; or correct "
    "the id of the meter",
    TOO_LARGE: "let the broker take packets of 1,200,000 bytes (mosquitto: message_size_limit, max_packet_size)",
    QUOTA_EXCEEDED: "raise what this user may send, or have waiting, at the broker",
}
_OTHERWISE: Final = "the broker's log says more"


async def look_at_refusals(config: BrokerConfig) -> list[Check]:
    """Return what the broker refused to the device that logs in there; nothing for one that was not enrolled."""
    if config.cloud_url is None or config.username is None:
        return []
    try:
        found = login(config, "doctor")
        own = await asyncio.to_thread(
            ask_own, config.cloud_url, _ca_file(config), config.username, found.password or ""
        )
    except MeterwayError as error:
        fix = "correct `cloud_url`; if the device was revoked, enrol it again with a new code"
        return [Check("refusals", ok=False, detail=str(error), fix=fix, code="not-asked")]
    return list(_checks(own, datetime.now(UTC)))


async def look_at_oldest(spool_dir: Path, config: BrokerConfig) -> list[Check]:
    """Return why the broker refuses what waits longest in a spool; nothing where it takes that, or does not say.

    The message is sent once more for this, as its owner does again and again: a second one of it does no harm.
    """
    try:
        waiting = look(spool_dir)
        who = login(config, f"doctor-{os.getpid()}", clean_session=True)
    except MeterwayError:
        return []  # said by those who look at the spool and at the broker
    if waiting is None or waiting.message is None or waiting.oldest is None:
        return []
    if (datetime.now(UTC) - waiting.oldest).total_seconds() <= LATE_S:
        return []
    topic = waiting.message.topic
    code = await reason_of(who, topic, waiting.message.payload)
    if code is None or code < FIRST_REFUSAL:
        return []
    why = REASONS.get(code, "a reason of its own")
    detail = (
        f"the broker refuses {topic}, the oldest message that waits in {spool_dir}: {why} (MQTT 5 reason {code:#x})"
    )
    return [Check("refusals", ok=False, detail=detail, fix=_FIXES.get(code, _OTHERWISE), code="refused")]


def _ca_file(config: BrokerConfig) -> str | None:
    return str(config.ca_file) if config.ca_file is not None else None


def _checks(own: OwnAnswer, now: datetime) -> Iterator[Check]:
    recent = [each for each in own.refusals if now - each.last_time < RECENT]
    for each in recent:
        yield Check("refusals", ok=False, detail=_detail(each), fix=each.reason, code="refused")
    if not recent:
        older = f", {len(own.refusals)} before" if own.refusals else ""
        yield Check("refusals", ok=True, detail=f"the broker refused nothing since yesterday{older}", code="refused")


def _detail(refusal: RefusalItem) -> str:
    what = {
        "publish": f"the broker refused {_times(refusal.count, 'publish', 'publishes')} of {refusal.topic}",
        "subscribe": f"the broker refused {_times(refusal.count, 'subscription', 'subscriptions')} to {refusal.topic}",
        "login": f"the broker refused {_times(refusal.count, 'log-in', 'log-ins')} in our name",
        "flood": f"the broker cut us off {_times(refusal.count, 'time', 'times')} for a flood",
    }[refusal.kind]
    return f"{what} since {refusal.first_time.astimezone():%Y-%m-%d %H:%M}"


def _times(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
