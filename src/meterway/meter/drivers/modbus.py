"""Modbus meters, which are asked."""

from typing import Final

from meterway.core.errors import SetupError
from meterway.meter.driver import Driver, MeterSetup
from meterway.meter.master import Master
from meterway.meter.modbus_map import Framing
from meterway.meter.modbus_master import ModbusMaster

_FRAMINGS: Final[dict[str, Framing | None]] = {"": None, "rtu": "rtu", "tcp": "tcp"}


def _master(setup: MeterSetup) -> Master:
    """Return the master; ``/tcp`` or ``/rtu`` behind the unit id says that the link's framing is not the family's."""
    modbus = setup.family.modbus
    if modbus is None:
        raise SetupError(f"family {setup.family.name!r} has no register map: its file has no [modbus] table")
    unit, _, suffix = setup.address.partition("/")
    if suffix not in _FRAMINGS:
        raise SetupError(f"address {setup.address[:40]!r}: behind the unit id comes nothing, /rtu or /tcp")
    framing = _FRAMINGS[suffix] or modbus.framing
    return ModbusMaster(modbus, unit_id=modbus.unit(unit, framing), framing=framing, line=setup.family.line)


DRIVER: Final = Driver(protocol="modbus", title="Modbus RTU and TCP", master=_master)
