"""Points in time in JSON documents, in the forms that devices write them.

iso            2026-07-14T18:30:05+02:00, ...Z, or without a zone: then local time of the meter (Tasmota, gPlug)
iso-local      the same, and always local time of the meter, whatever zone it claims (whatwatt's Z)
unix-s         seconds since 1970, a number or its digits
unix-ms        milliseconds
yymmddhhmmss   260714183005, a number or its digits, local time of the meter (HomeWizard)
"""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Final, Literal

from meterway.core.checks import LAST_YEAR
from meterway.meter.json_number import read_number

TimeForm = Literal["iso", "iso-local", "unix-s", "unix-ms", "yymmddhhmmss"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST: Final = datetime(2010, 1, 1, tzinfo=UTC)
"""What is before is a clock that was never set: devices begin in 1970, 2000 or at their firmware's date."""
_LATEST: Final = datetime(LAST_YEAR, 1, 1, tzinfo=UTC)
_CENTURY: Final = 2000
_LIMIT_CHARACTERS: Final = 40
_SHORTEST_ISO: Final = len("2026-07-14T18:30")
_DIGITS: Final = re.compile(r"[0-9]{12}")
_MICROSECONDS: Final = {"unix-s": Decimal(1_000_000), "unix-ms": Decimal(1000)}
_STEP_BACK: Final = timedelta(minutes=30)


class Clock:
    """One clock of one device.

    In the hour that comes twice when summer time ends, a clock without zone is in the second pass once it has stepped
    back by half an hour or more, until the hour is over. One that is first heard in the second pass is taken for the
    first.
    """

    def __init__(self, form: TimeForm, zone: tzinfo) -> None:
        self._form = form
        self._zone = zone
        self._last: datetime | None = None
        self._is_second_pass = False

    def read(self, found: object) -> datetime | None:
        """Return the instant, aware; None if ``found`` is none of this form, or a clock that was never set."""
        try:
            time = self._read(found)
        except (ValueError, OverflowError):
            return None
        if time is None or not _EARLIEST <= time <= _LATEST:
            return None
        self._last = time
        return time

    def _read(self, found: object) -> datetime | None:
        microseconds = _MICROSECONDS.get(self._form)
        if microseconds is not None:
            number = read_number(found)
            return None if number is None else _EPOCH + timedelta(microseconds=int(number * microseconds))
        if self._form == "yymmddhhmmss":
            return self._digits(str(found)) if isinstance(found, str | int) else None
        if not isinstance(found, str) or not _SHORTEST_ISO <= len(found) <= _LIMIT_CHARACTERS:
            return None
        time = datetime.fromisoformat(found)
        if time.tzinfo is None or self._form == "iso-local":
            return self._local(time.replace(tzinfo=None))
        return time

    def _digits(self, text: str) -> datetime | None:
        if not _DIGITS.fullmatch(text):
            return None
        year, month, day, hour, minute, second = (int(text[at : at + 2]) for at in range(0, len(text), 2))
        return self._local(datetime(_CENTURY + year, month, day, hour, minute, second))  # noqa: DTZ001 - made aware there

    def _local(self, naive: datetime) -> datetime:
        first, second = (_fixed(naive.replace(tzinfo=self._zone, fold=fold)) for fold in (0, 1))
        if second <= first:
            self._is_second_pass = False
        elif self._last is not None and self._last - first >= _STEP_BACK:
            self._is_second_pass = True
        return second if self._is_second_pass else first


def write_time(time: datetime, form: TimeForm, zone: tzinfo) -> str | int:
    """Return an instant as ``Clock`` reads it again, to the second; what virtual meters write."""
    local = time.astimezone(zone)
    match form:
        case "iso":
            return f"{local:%Y-%m-%dT%H:%M:%S}"
        case "iso-local":
            return f"{local:%Y-%m-%dT%H:%M:%S}Z"
        case "yymmddhhmmss":
            return int(f"{local:%y%m%d%H%M%S}")
    seconds = (time - _EPOCH) // timedelta(seconds=1)
    return seconds if form == "unix-s" else seconds * 1000


def _fixed(time: datetime) -> datetime:
    """Return the same instant with its offset instead of its zone, so that comparing compares instants."""
    return time.astimezone(timezone(time.utcoffset() or timedelta()))
