"""Readouts of IEC 62056-21: pushed at an optical head (mode D), or given when asked (modes A to C)."""

from collections.abc import Iterable
from decimal import Decimal

from meterway.core.obis import Obis
from meterway.meter.master import Effect, Send
from meterway.meter.virtual.answer_iec62056_21 import AnsweringMeter, MeterSide
from meterway.meter.virtual.encode_iec62056_21 import encode_push
from meterway.meter.virtual.town.shown import Begun, Said, ShownElectricity, ShownHeat

_STX = b"\x02"
_WS_PER_KWH = 3_600_000
_TENTH_WH_WS = 360
_ML_PER_10_L = 10_000
_IMPORT, _EXPORT, _POWER = "1-0:1.8.0*255", "1-0:2.8.0*255", "1-0:16.7.0*255"


def pushed(shown: ShownElectricity) -> Said:
    """A meter at whose head a readout comes every two seconds."""
    numbers = [
        (_IMPORT, _exact(shown.import_ws // _TENTH_WH_WS, 4), "010.4f", "kWh"),
        (_EXPORT, _exact(shown.export_ws // _TENTH_WH_WS, 4), "010.4f", "kWh"),
        (_POWER, _exact(shown.net_w * 100, 2), "010.2f", "W"),
    ]
    return _pushed("MWY5PUSH", f"1-0:0.0.0*255(1MWY{shown.serial:010d})", numbers)


def easymeter(shown: ShownElectricity) -> Said:
    """EasyMeter Q3D: energy to a tenth of a milliwatt-hour, powers of phases that are never negative."""
    phases = zip(("21", "41", "61"), shown.phases, strict=False)
    numbers = [
        (_IMPORT, _exact(shown.import_ws * 10**7 // _WS_PER_KWH, 7), "016.7f", "kWh"),
        *((f"1-0:{c}.7.0*255", _exact(max(p.power_w, 0) * 100, 2), "09.2f", "W") for c, p in phases),
        ("1-0:1.7.0*255", _exact(shown.import_w * 100, 2), "09.2f", "W"),
    ]
    return _pushed("MWY5Q3DA1004 V3.04", f"1-0:0.0.0*255({shown.serial:010d})", numbers)


def iskra(shown: ShownElectricity) -> Begun:
    """Iskraemeco MT174, mode C: date, time, registers in all and by tariff."""
    numbers = [
        (_IMPORT, _exact(shown.import_ws // 3600, 3), "011.3f", "kWh"),
        ("1-0:1.8.1*255", _exact(shown.import_low_ws // 3600, 3), "011.3f", "kWh"),
        ("1-0:1.8.2*255", _exact(shown.import_normal_ws // 3600, 3), "011.3f", "kWh"),
        (_EXPORT, _exact(shown.export_ws // 3600, 3), "011.3f", "kWh"),
    ]
    lines = (
        f"1-0:0.9.2*255({int(bool(shown.time.dst()))}{shown.time:%y%m%d})",
        f"1-0:0.9.1*255({shown.time:%H%M%S})",
        f"1-0:0.0.0*255({shown.serial:08d})",
        *_lines(numbers),
    )
    return Begun(_Head("MWy0MT174-0001", lines), _values(numbers))


def uh50(shown: ShownHeat) -> Begun:
    """Landis+Gyr Ultraheat UH50: several data sets on a line."""
    energy = _exact(shown.energy_ws // _WS_PER_KWH, 3)
    volume = _exact(shown.volume_ml // _ML_PER_10_L, 2)
    power = _exact(shown.power_w // 100, 1)
    lines = (
        f"6.8({energy:08.3f}*MWh)6.26({volume:08.2f}*m3)9.21({shown.serial:08d})",
        f"F(0)9.20({shown.serial:08d})6.35(60*m)",
        f"6.6({power:06.1f}*kW)",
        f"9.36({shown.time:%Y-%m-%d&%H:%M:%S})",
    )
    values = {"6-0:6.8.0*255": energy, "6-0:6.26.0*255": volume, "6-0:6.6.0*255": power}
    return Begun(_Head("MWYCUH50", lines), values)


class _Head:
    """A session at an optical head."""

    is_over = False

    def __init__(self, identification: str, lines: tuple[str, ...]) -> None:
        self.is_told = False
        self._meter = AnsweringMeter(MeterSide(identification=identification, lines=lines))

    def feed(self, data: bytes) -> list[Effect]:
        effects = self._meter.feed(data)
        self.is_told = self.is_told or any(isinstance(each, Send) and each.data.startswith(_STX) for each in effects)
        return effects

    def idle(self) -> list[Effect]:
        return self._meter.idle()


Number = tuple[str, Decimal, str, str]
"""Code, value, how it is written, unit."""


def _exact(units: int, decimals: int) -> Decimal:
    return Decimal(units).scaleb(-decimals)


def _lines(numbers: Iterable[Number]) -> Iterable[str]:
    return (f"{code}({value:{form}}*{unit})" for code, value, form, unit in numbers)


def _values(numbers: Iterable[Number]) -> dict[str, Decimal]:
    return {str(Obis.parse(code)): value for code, value, _, _ in numbers}


def _pushed(identification: str, name: str, numbers: list[Number]) -> Said:
    return Said(encode_push(identification, [name, *_lines(numbers)]), _values(numbers))
