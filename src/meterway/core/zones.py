"""IANA time zones by name."""

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from meterway.core.errors import BadDataError

_LIMIT_CHARACTERS = 64


def find_zone(name: str) -> ZoneInfo:
    """Return the zone.

    Raises:
        BadDataError: there is none of this name (reason ``bad-zone``).
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadDataError(
            f"time zone {name[:_LIMIT_CHARACTERS]!r} is not an IANA zone such as Europe/Berlin", reason="bad-zone"
        ) from error
