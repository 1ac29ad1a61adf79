"""Grants as nats-server understands them, and the users in its configuration.

NATS takes an MQTT topic for a subject: levels are joined by ``.``, a dot within a level is ``//``, an empty level
``/``. ``a/#`` is both ``a`` and ``a.>``. A space has no subject, and NATS drops a client that uses one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from meterway.core.grants import Grant

SYSTEM_ACCOUNT = "$SYS"
SERVICE_USER = "callout"
LOGIN_WITHIN_S = 5
"""How long the authorisation service may take; without an answer the log-in is refused."""

_DELIVERIES = "$MQTT.sub.>"
"""Where NATS delivers QoS 1 messages to a subscriber; an MQTT client cannot itself subscribe to it."""
_NOTHING = {"deny": [">"]}


@dataclass(frozen=True, slots=True)
class StaticUser:
    """A user that stands in the configuration."""

    name: str
    password: str = field(repr=False)
    grant: Grant | None
    """None: may do everything."""


@dataclass(frozen=True, slots=True)
class CalloutUser:
    """The authorisation service, which nats-server asks about all other users."""

    issuer: str
    password: str = field(repr=False)


def subjects(topic_filters: Iterable[str]) -> list[str]:
    """Return the subjects that the MQTT topic filters take."""
    found: list[str] = []
    for topic_filter in topic_filters:
        levels = topic_filter.split("/")
        below = levels[-1] == "#" and len(levels) > 1
        named = [_level(level) for level in (levels[:-1] if below else levels)]
        found.append(".".join(named))
        if below:
            found.append(".".join((*named, ">")))
    return found


def permissions(grant: Grant) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return what ``grant`` allows to publish and to subscribe. An empty list would allow everything."""
    publish = {"allow": subjects(grant.publish)} if grant.publish else _NOTHING
    read = {"allow": [*subjects(grant.read), _DELIVERIES]} if grant.read else _NOTHING
    return publish, read


def authorization(users: Sequence[StaticUser], callout: CalloutUser | None) -> str:
    """Return the part of the configuration that says who may log in."""
    rights: dict[str, object] = {"users": [_user(user) for user in users]}
    if callout is None:
        return f"authorization: {_encoded(rights)}\n"
    service = {"user": SERVICE_USER, "password": callout.password}
    rights["timeout"] = LOGIN_WITHIN_S
    rights["auth_callout"] = {
        "issuer": callout.issuer,
        "account": SYSTEM_ACCOUNT,
        "auth_users": [SERVICE_USER, *(user.name for user in users)],
    }
    accounts = {SYSTEM_ACCOUNT: {"users": [service]}}
    return f"accounts: {_encoded(accounts)}\nauthorization: {_encoded(rights)}\n"


def _user(user: StaticUser) -> dict[str, object]:
    entry: dict[str, object] = {"user": user.name, "password": user.password}
    if user.grant is not None:
        publish, subscribe = permissions(user.grant)
        entry["permissions"] = {"publish": publish, "subscribe": subscribe}
    return entry


def _level(level: str) -> str:
    return {"": "/", "+": "*", "#": ">"}.get(level, level.replace(".", "//"))


def _encoded(value: object) -> str:
    return msgspec.json.encode(value).decode()
