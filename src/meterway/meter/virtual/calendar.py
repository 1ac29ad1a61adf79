"""Days as load profiles see them: 86,400 seconds of local standard time, with month, weekend and summer time.

A profile day never has 23 or 25 hours, so that arithmetic stays simple; habits follow the clock on the wall,
which in summer runs ahead of standard time (``DayType.ahead_h``). The day of a clock change counts as what it is
at noon.
"""

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple

from meterway.core.errors import SetupError

DAY_S: Final = 86_400
HOUR_S: Final = 3_600

FIRST_DAY: Final = 18_262
"""2020-01-01, in days since 1970: where every virtual meter was new and every register 0."""

_LAST_DAY: Final = 2_932_896 - 366
"""A year before the end of year 9999, where ``datetime`` ends."""

_SATURDAY = 5
_NORMAL_TARIFF_H = range(7, 23)


class DayType(NamedTuple):
    """What the load profiles know of a day; days of one type differ by chance only."""

    month: int
    """1 to 12."""
    weekend: bool
    ahead_h: int
    """How far the clock on the wall is ahead of standard time: 1 in summer time."""

    def local_hour(self, hour: int) -> int:
        """Return what the clock on the wall shows in an hour of the profile day."""
        return (hour + self.ahead_h) % 24

    def normal_tariff(self, hour: int) -> bool:
        """Tell whether the second tariff (workdays, 7 to 23 h local) holds in an hour of the profile day."""
        return not self.weekend and self.local_hour(hour) in _NORMAL_TARIFF_H


class Calendar:
    """The days of one time zone; the types of days already asked for are kept (8 bytes a day)."""

    def __init__(self, zone: tzinfo) -> None:
        self.zone = zone
        winter = datetime(2024, 1, 15, 12, tzinfo=zone)
        offset = (winter.utcoffset() or timedelta()) - (winter.dst() or timedelta())
        self._offset_s = int(offset.total_seconds())
        self._types: list[DayType] = []

    def split(self, instant_s: int) -> tuple[int, int]:
        """Return the profile day (days since 1970) of a Unix time, and the second in it.

        Raises:
            SetupError: before 2020, where virtual meters begin, or beyond what ``datetime`` can hold.
        """
        day, second = divmod(instant_s + self._offset_s, DAY_S)
        if not FIRST_DAY <= day <= _LAST_DAY:
            raise SetupError(f"virtual meters exist from 2020-01-01 to the year 9998, not at Unix time {instant_s}")
        return day, second

    def start_s(self, day: int) -> int:
        """Return the Unix time at which a profile day begins."""
        return day * DAY_S - self._offset_s

    def day_types(self, until_day: int) -> list[DayType]:
        """Return the types of all days from ``FIRST_DAY`` up to and without ``until_day``."""
        for day in range(FIRST_DAY + len(self._types), until_day):
            self._types.append(self._day_type(day))
        return self._types[: until_day - FIRST_DAY]

    def day_type(self, day: int) -> DayType:
        index = day - FIRST_DAY
        if index >= len(self._types):
            self.day_types(day + 1)
        return self._types[index]

    def _day_type(self, day: int) -> DayType:
        noon = datetime.fromtimestamp(self.start_s(day) + DAY_S // 2, UTC).astimezone(self.zone)
        ahead = (noon.utcoffset() or timedelta()) - timedelta(seconds=self._offset_s)
        return _shared(DayType(noon.month, noon.weekday() >= _SATURDAY, round(ahead / timedelta(hours=1))))


@lru_cache(maxsize=256)
def _shared(day_type: DayType) -> DayType:
    return day_type


@lru_cache(maxsize=16)
def calendar_of(zone: tzinfo) -> Calendar:
    """Return the calendar that all meters of a zone share."""
    return Calendar(zone)
