"""What the pulses of a family of meters are worth: a part of the family's file.

[pulse]
obis = "1-0:1.8.0"
unit = "kWh"
pulses_per_unit = "1000"
rate_obis = "1-0:1.7.0"
rate_unit = "kW"
"""

from decimal import Decimal, InvalidOperation
from typing import Annotated, Literal

import msgspec

from meterway.core.config import Table
from meterway.core.obis import Obis
from meterway.core.units import find_unit


class PulseInput(Table, frozen=True):
    """How pulses arrive, and what one of them means."""

    obis: str
    """The register that is counted."""
    unit: str
    pulses_per_unit: str
    """As printed on the meter (imp/kWh), a decimal number as a text: exact. 0.01 m3 a pulse are "100"."""
    rate_obis: str = ""
    """The power or flow that follows from the distance of pulses; empty: pulses are too far apart to say it."""
    rate_unit: str = ""
    """Its unit: that of the register in an hour (kW, m3/h)."""
    signal: Literal["burst", "lines"] = "burst"
    """How a pulse shows on the line: any bytes between two silences, or lines with the count of a microcontroller."""
    debounce_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 0.03
    """Pulses are no nearer to each other: the silence before a burst, or the time for a count of one."""

    def __post_init__(self) -> None:
        for code in filter(None, (self.obis, self.rate_obis)):
            Obis.parse(code)
        for unit in (self.unit, *filter(None, (self.rate_unit,))):
            if find_unit(unit) is None:
                raise ValueError(f"unit {unit!r} is none that Meterway knows")
        if bool(self.rate_obis) != bool(self.rate_unit):
            raise ValueError("`rate_obis` and `rate_unit` are given both or neither")
        check_pulses_per_unit(self.pulses_per_unit)


def check_pulses_per_unit(text: str) -> None:
    """See whether a text is a number of pulses.

    Raises:
        ValueError: it is not.
    """
    try:
        usable = Decimal(text).is_finite() and Decimal("0.000001") <= Decimal(text) <= 10**9
    except InvalidOperation:
        usable = False
    if not usable:
        raise ValueError(f'pulses_per_unit {text!r} is not a decimal number such as "1000"')
