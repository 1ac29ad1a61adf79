"""Radio meters (wireless M-Bus, OMS), as an iM871A receiver hands them on."""

from collections.abc import Callable

from meterway.meter.virtual.encode_mbus import Header
from meterway.meter.virtual.encode_wmbus import im871a, linked, mode_5, mode_7
from meterway.meter.virtual.town.shown import Answer, Said, ShownHeat, ShownVolume
from meterway.meter.virtual.town.voices import mbus


def water(shown: ShownVolume) -> Said:
    """What the same meter says on a wire, encrypted with its key."""
    return _old(shown, mbus.water)


def gas(shown: ShownVolume) -> Said:
    """The same of gas."""
    return _old(shown, mbus.gas)


def heat(shown: ShownHeat) -> Said:
    """The same of heat, authenticated as well."""
    answer = mbus.heat(shown)
    header = Header(f"{shown.serial:08d}", answer.maker, answer.version, answer.device_type)
    counter, access = shown.running_s, shown.running_s & 0xFF
    part = mode_7(header, answer.records, key=shown.keys.encryption or b"", counter=counter, access=access)
    return Said(im871a(linked(header, part)), answer.values)


def _old(shown: ShownVolume, say: Callable[[ShownVolume], Answer]) -> Said:
    """Return it in security mode 5."""
    answer = say(shown)
    header = Header(f"{shown.serial:08d}", answer.maker, answer.version, answer.device_type)
    part = mode_5(header, answer.records, key=shown.keys.encryption or b"", access=shown.running_s & 0xFF)
    return Said(im871a(linked(header, part)), answer.values)
