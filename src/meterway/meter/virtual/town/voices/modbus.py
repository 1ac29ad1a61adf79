"""Modbus meters behind a TCP gateway."""

from decimal import Decimal
from functools import lru_cache

from meterway.core.errors import SetupError
from meterway.meter.family import load_family
from meterway.meter.master import Effect, Send
from meterway.meter.modbus_map import ModbusMap
from meterway.meter.virtual.modbus_slave import ModbusBus, ModbusSlave
from meterway.meter.virtual.town.shown import Begun, ShownElectricity

_EM340 = "modbus-carlo-gavazzi-em340"
_TENTH_KWH_WS = 360_000


def em340(shown: ShownElectricity) -> Begun:
    """Carlo Gavazzi EM340: energies of 100 Wh, voltages, currents and powers of all phases."""
    values = {
        "1-0:1.8.0": _exact(shown.import_ws // _TENTH_KWH_WS, 1),
        "1-0:2.8.0": _exact(shown.export_ws // _TENTH_KWH_WS, 1),
        "1-0:16.7.0": Decimal(shown.net_w),
    }
    for (voltage, current, power), phase in zip(((32, 31, 36), (52, 51, 56), (72, 71, 76)), shown.phases, strict=True):
        values[f"1-0:{voltage}.7.0"] = _exact(phase.voltage_dv, 1)
        values[f"1-0:{current}.7.0"] = _exact(phase.current_ma, 3)
        values[f"1-0:{power}.7.0"] = Decimal(phase.power_w)
    slave = ModbusSlave(_map(_EM340), lambda: values, maker="MWY", model="340", serial=f"{shown.serial:08d}"[-7:])
    return Begun(_Unit(slave), {f"{code}*255": value for code, value in values.items()})


class _Unit:
    """A session with the only unit behind an address of TCP."""

    is_over = False

    def __init__(self, slave: ModbusSlave) -> None:
        self._slave = slave
        self._bus = ModbusBus([slave], framing="tcp")

    @property
    def is_told(self) -> bool:
        return self._slave.questions > 0

    def feed(self, data: bytes) -> list[Effect]:
        answer = self._bus.feed(data)
        return [Send(answer)] if answer else []

    def idle(self) -> list[Effect]:
        self._bus.idle()
        return []


@lru_cache(maxsize=8)
def _map(family: str) -> ModbusMap:
    found = load_family(family).modbus
    if found is None:
        raise SetupError(f"family {family} has no register map")
    return found


def _exact(units: int, decimals: int) -> Decimal:
    return Decimal(units).scaleb(-decimals)
