"""Does a broker take us, and what does it know of our meters? Subscribes, never publishes."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from meterway.adapter.doctor.check import Check
from meterway.bus.bus import BrokerConfig
from meterway.bus.mqtt import login
from meterway.bus.session import Inbound, RefusedError, Session
from meterway.bus.tls import TlsError
from meterway.core.errors import SetupError, TransientError

CONNECT_TIMEOUT_S: Final = 5.0
_RETAINED_WITHIN_S: Final = 1.0
"""So long after the last one, a retained message is waited for."""
_GRACE_S: Final = 2.0
"""So long receipts are waited for when the watch is over, for what was published at its end."""
_RECEIPTS: Final = "receipt/"
_MOST_FILTERS: Final = 8
"""NATS allows 15 a session."""
_MOST_MESSAGES: Final = 20_000
_PASSWORD, _NOT_AUTHORISED = 4, 5
_SUBSCRIPTION: Final = 0x80


@dataclass(slots=True)
class Seen:
    """What a broker said."""

    checks: list[Check] = field(default_factory=list)
    is_connected: bool = False
    retained: dict[str, bytes] = field(default_factory=dict)
    """By topic."""
    live: Counter[str] = field(default_factory=Counter)
    """How many messages came on each topic while it was watched."""
    is_over: bool = False
    """The watch is, but for receipts."""


async def look_at_broker(
    config: BrokerConfig,
    name: str = "broker",
    *,
    needed: Iterable[str] = (),
    wanted: Iterable[str] = (),
    watch_s: float,
) -> Seen:
    """Log in as the component would, read what is retained, and watch for ``watch_s``.

    ``needed`` are filters without which the component cannot work; ``wanted`` those that only this look needs. A device
    that was enrolled may not read those, and the refusal would be noted as the device's own.
    """
    seen = Seen()

    def receive(inbound: Inbound) -> None:
        if inbound.retained:
            if len(seen.retained) < _MOST_MESSAGES:
                seen.retained[inbound.topic] = inbound.payload
        elif seen.is_over and not inbound.topic.startswith(_RECEIPTS):
            pass
        elif inbound.topic in seen.live or len(seen.live) < _MOST_MESSAGES:
            seen.live[inbound.topic] += 1
        inbound.ack()

    try:
        session = Session(login(config, f"doctor-{os.getpid()}", clean_session=True), receive)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await session.connect()
                await session.subscribe(dict.fromkeys(list(needed)[:_MOST_FILTERS], 0))
            seen.is_connected = True
            await _watch(session, seen, [] if config.cloud_url is not None else list(wanted), watch_s)
            await session.leave()
        finally:
            session.abort()
    except (OSError, TransientError, SetupError) as error:
        seen.checks.append(_why(config, name, error))
    else:
        seen.checks.append(Check(name, ok=True, detail=f"{config.url} takes us", code="broker"))
    return seen


async def _watch(session: Session, seen: Seen, wanted: list[str], watch_s: float) -> None:
    for each in wanted:
        with suppress(RefusedError):  # who may not look sees less
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await session.subscribe({each: 0})
    count = -1
    while wanted and count < len(seen.retained):
        count = len(seen.retained)
        await asyncio.sleep(_RETAINED_WITHIN_S)
    if watch_s:
        await asyncio.sleep(watch_s)
        seen.is_over = True
        await asyncio.sleep(_GRACE_S)


def _why(config: BrokerConfig, name: str, error: Exception) -> Check:
    """Return why a broker does not take us."""
    said = str(error) or "no answer in time"
    if isinstance(error, RefusedError):
        if error.code == _PASSWORD:
            fix = "correct `username`, and the password in `password_file`, or set it anew at the broker"
            return Check(name, ok=False, detail=f"{config.url} {said}", fix=fix, code="broker-password")
        if error.code in (_NOT_AUTHORISED, _SUBSCRIPTION):
            fix = "give this user its rights at the broker; where there are none to give, the password is wrong"
            return Check(name, ok=False, detail=f"{config.url} {said}", fix=fix, code="broker-not-authorised")
        fix = "the broker's log says more"
        return Check(name, ok=False, detail=f"{config.url} {said}", fix=fix, code="broker-refused")
    if isinstance(error, TlsError):
        code = "broker-certificate" if error.is_certificate else "broker-tls"
        return Check(name, ok=False, detail=f"{config.url} {error.detail}", fix=error.fix, code=code)
    if isinstance(error, SetupError):
        fix = "correct `url`, and the files named beside it: this user must be able to read them"
        return Check(name, ok=False, detail=said, fix=fix, code="broker-password")
    fix = "start it, or correct `url`; on another machine: is it on, and does its firewall let us in?"
    return Check(name, ok=False, detail=f"{config.url} cannot be reached: {said}", fix=fix, code="broker-unreachable")
