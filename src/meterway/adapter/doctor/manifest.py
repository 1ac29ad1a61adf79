"""What stands in the JSON files of a bundle. Pure."""

from datetime import datetime
from typing import Final

import msgspec

FORMAT: Final = 1


class ShownChunk(msgspec.Struct, frozen=True):
    """What one read of a link returned."""

    time: datetime
    hex: str


class ShownCheck(msgspec.Struct, frozen=True):
    """A ``Check``, as ``meterway doctor --json`` prints it."""

    check: str
    code: str
    ok: bool
    detail: str
    fix: str


class ShownLink(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One link: what was found, and whether its bytes are here."""

    meters: tuple[str, ...]
    protocol: str
    """What its bytes were found to be; empty: nothing is known of them, and they are shuffled."""
    size_bytes: int
    """Of its bytes, as they were recorded."""
    file: str = ""
    left_out: str = ""
    """Why its bytes are not here."""
    encrypted: bool = False
    """Its frames cannot be decrypted any more, because they do not name the meter any more."""
    replays: bool = False
    """Its bytes give the same findings again."""
    is_running: bool = False
    addresses: dict[str, str] = msgspec.field(default_factory=dict)
    """How meters that share the link call themselves in these bytes."""
    findings: tuple[ShownCheck, ...] = ()
    """What its bytes say."""
    others: tuple[ShownCheck, ...] = ()
    """What else was found of it."""


class ShownAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """One adapter."""

    name: str
    now: datetime
    """When it was looked at."""
    links: tuple[ShownLink, ...]
    findings: tuple[ShownCheck, ...]
    """Of its broker, spool and processes."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a bundle."""

    format: int
    made: datetime
    meterway: str
    adapters: tuple[ShownAdapter, ...]
