"""Names and addresses of machines: which are this machine alone, and under which a server is reached."""

import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from meterway.core.errors import BadDataError

LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")
LIMIT_NAMES: Final = 50
"""The most names of one server."""

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_LIMIT_NAME_CHARACTERS = 253
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - to tell them from others
_PRIVATE_DOMAINS = ("local", "lan", "home", "internal", "localhost", "test", "invalid", "home.arpa", "fritz.box")


def is_loopback(host: str) -> bool:
    """Tell whether ``host`` is this machine for itself, so that no other can listen in."""
    try:
        return host.lower() == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_address(name: str) -> bool:
    """Tell whether ``name`` is an IPv4 or IPv6 address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def is_public_name(name: str) -> bool:
    """Tell whether ``name`` is a name of the public DNS: no address, and of no domain that means another each place."""
    return (
        "." in name
        and not is_address(name)
        and not any(name == each or name.endswith(f".{each}") for each in _PRIVATE_DOMAINS)
    )


def check_name(name: str) -> str:
    """Return a host name in lower case, or an address as it is usually written.

    Raises:
        BadDataError: it is neither; a certificate cannot carry it.
    """
    if is_address(name) and "%" not in name:
        return str(ip_address(name))
    lower = name.lower().removesuffix(".")
    if len(lower) > _LIMIT_NAME_CHARACTERS or not all(map(_LABEL.fullmatch, lower.split("."))):
        raise BadDataError(
            f"{name[:80]!r} is no host name and no address; write meters.example.org or 192.0.2.7, without port",
            reason="bad-name",
        )
    return lower


def names_of(host: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return all names under which a server that listens on ``host`` is reached: ``names``, its address, loopback.

    Raises:
        BadDataError: one of them is no name; there are too many; it listens for other machines and has none.
    """
    known = [check_name(name) for name in names]
    if len(known) > LIMIT_NAMES:
        raise BadDataError(f"{len(known)} names are more than the {LIMIT_NAMES} of one server", reason="bad-name")
    if host not in _WILDCARDS:
        known.append(check_name(host))
    elif not known:
        raise BadDataError(
            f'names is empty, and host {host!r} is no name: say how other machines call this one, names = ["'
            'meters.example.org", "192.0.2.7"]; it stands in the certificate',
            reason="bad-name",
        )
    return tuple(dict.fromkeys((*known, *LOOPBACK_NAMES)))


def reached_at(host: str) -> str:
    """Return the address at which this machine itself reaches a server that listens on ``host``."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - as above


def in_url(host: str) -> str:
    """Return ``host`` as it stands in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host
