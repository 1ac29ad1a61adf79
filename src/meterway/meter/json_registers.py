"""Registers that say themselves what they are: the form in which any program can hand readings to Meterway.

    {"time": "2026-07-14T18:30:05+02:00", "meter": "1MWY0000000042", "registers": [
      {"obis": "1-0:1.8.0", "value": "12345.678", "unit": "kWh"},
      {"obis": "1-0:16.7.0", "value": -412, "unit": "W"},
      {"obis": "0-1:24.2.1", "value": "456.789", "unit": "m3", "time": "2026-07-14T18:30:00+02:00"},
      {"obis": "0-0:96.14.0", "value": "0002"}]}

All on one line, and each line one reading (family ``json-meterway``). ``obis`` is any written form of a code. A number
is a JSON number or, so that no library on the way rounds it, its digits as a text beside a ``unit``; ``"unit": ""``
says that it is a pure number. A text without ``unit`` is a text. ``time`` is ISO 8601, without offset the local time of
the meter; without ``time`` the moment of arrival counts. ``meter`` may be left out, too. An entry of another form is
left out.
"""

from decimal import Decimal
from typing import Final

from meterway.core.errors import BadDataError
from meterway.core.obis import Obis
from meterway.core.units import find_unit
from meterway.meter.json_number import read_number
from meterway.meter.json_time import Clock
from meterway.meter.telegram import Register

LIMIT_REGISTERS: Final = 1000
"""What stands behind so many in one document is left out."""
LIMIT_TEXT_CHARACTERS: Final = 256
_LIMIT_UNIT_CHARACTERS: Final = 16


def read_registers(entries: object, clock: Clock) -> list[Register]:
    """Return the registers in a list of them; empty if it is no list."""
    if not isinstance(entries, list):
        return []
    found = (_register(entry, clock) for entry in entries[:LIMIT_REGISTERS] if isinstance(entry, dict))
    return [register for register in found if register is not None]


def _register(entry: dict[str, object], clock: Clock) -> Register | None:
    code, unit = entry.get("obis"), entry.get("unit")
    value = _value(entry.get("value"), is_number=isinstance(unit, str))
    if not isinstance(code, str) or value is None:
        return None
    try:
        obis = Obis.parse(code)
    except BadDataError:
        return None
    return Register(obis, value, _unit(unit), clock.read(entry.get("time")))


def _value(found: object, *, is_number: bool) -> Decimal | str | None:
    if isinstance(found, str) and not is_number:
        return read_text(found)
    return read_number(found)


def _unit(found: object) -> str | None:
    if not isinstance(found, str) or not found:
        return None
    unit = find_unit(found)
    return unit.name if unit else found[:_LIMIT_UNIT_CHARACTERS]


def read_text(found: object) -> str | None:
    """Return a member of a document as a text; None if it is none, too long or not printable."""
    if isinstance(found, int) and not isinstance(found, bool):
        number = read_number(found)
        return None if number is None else str(number)
    if isinstance(found, str) and found.isprintable() and len(found) <= LIMIT_TEXT_CHARACTERS:
        return found
    return None
