"""What ``meterway doctor`` asks the cloud where this device was enrolled: what did the broker refuse to us?

A broker tells the sender of a refused publish that all is well (MQTT 3.1.1), so only the cloud can say it.
"""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from meterway.adapter.doctor.check import Check
from meterway.bus.bus import BrokerConfig
from meterway.bus.mqtt import login
from meterway.cli.enroll_client import ask_own
from meterway.core.enrolment import OwnAnswer, RefusalItem
from meterway.core.errors import MeterwayError

RECENT: Final = timedelta(days=1)
"""An older refusal is history: told, but no failure."""


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
