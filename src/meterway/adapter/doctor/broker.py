"""Does a broker take us, and what does it know of our meters? Subscribes, never publishes."""

import asyncio
import os
import ssl
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from meterway.adapter.doctor.check import Check
from meterway.bus.bus import BrokerConfig
from meterway.bus.mqtt import broker_address, login
from meterway.bus.session import Inbound, RefusedError, Session
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

    ``needed`` are filters without which the component cannot work; ``wanted`` those that only this look needs.
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
            await _watch(session, seen, list(wanted), watch_s)
            await session.leave()
        finally:
            session.abort()
    except (OSError, TransientError, SetupError) as error:
        seen.checks.append(await _why(config, name, error))
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


async def _why(config: BrokerConfig, name: str, error: Exception) -> Check:
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
    if isinstance(error, SetupError):
        fix = "correct `url`, and name a password file that this user can read"
        return Check(name, ok=False, detail=said, fix=fix, code="broker-password")
    if not isinstance(error, ConnectionRefusedError) and await _speaks_tls(config):
        detail = f"{config.url} speaks TLS, which this release does not"
        fix = "name the broker's plain port on this machine; for the way out use a VPN, or a bridge of the broker"
        return Check(name, ok=False, detail=detail, fix=fix, code="broker-tls")
    fix = "start it, or correct `url`; on another machine: is it on, and does its firewall let us in?"
    return Check(name, ok=False, detail=f"{config.url} cannot be reached: {said}", fix=fix, code="broker-unreachable")


async def _speaks_tls(config: BrokerConfig) -> bool:
    host, port = broker_address(config)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent; whether TLS is spoken is all that is asked
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
