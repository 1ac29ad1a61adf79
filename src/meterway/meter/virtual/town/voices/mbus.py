"""Answers of wired M-Bus meters."""

from datetime import datetime
from decimal import Decimal

from meterway.meter.virtual.encode_mbus import BCD8, INT16, INT32, bcd, integer, minute
from meterway.meter.virtual.town.shown import Answer, ShownElectricity, ShownHeat, ShownVolume

_MAKER = "MWY"
_ELECTRICITY, _GAS, _HEAT, _WATER = 2, 3, 4, 7
"""Device types of EN 13757-7."""
_WS_PER_WH, _WS_PER_KWH, _ML_PER_L = 3600, 3_600_000, 1000
_LITRES, _WH, _KWH, _W, _L_PER_H = b"\x13", b"\x03", b"\x06", b"\x2b", b"\x3b"
_FLOW_DC, _RETURN_DC, _DIFFERENCE_DK, _TIME = b"\x5a", b"\x5e", b"\x62", b"\x6d"


def heat(shown: ShownHeat) -> Answer:
    """Energy in kWh, volume, power, flow, and the temperatures before and after."""
    energy_kwh = shown.energy_ws // _WS_PER_KWH
    litres, flow_l_per_h = shown.volume_ml // _ML_PER_L, shown.flow_ml_per_s * 3600 // _ML_PER_L
    records = (
        bcd(_KWH, BCD8, energy_kwh),
        bcd(_LITRES, BCD8, litres),
        integer(_W, INT32, shown.power_w),
        integer(_L_PER_H, INT32, flow_l_per_h),
        integer(_FLOW_DC, INT16, shown.forward_dc),
        integer(_RETURN_DC, INT16, shown.return_dc),
        integer(_DIFFERENCE_DK, INT16, shown.forward_dc - shown.return_dc),
        _clock(shown.time),
    )
    values = {
        "6-0:1.0.0*255": Decimal(energy_kwh * 1000),
        "6-0:2.0.0*255": _exact(litres, 3),
        "6-0:8.0.0*255": Decimal(shown.power_w),
        "6-0:9.0.0*255": _exact(flow_l_per_h, 3),
        "6-0:10.0.0*255": _exact(shown.forward_dc, 1),
        "6-0:11.0.0*255": _exact(shown.return_dc, 1),
        "6-0:12.0.0*255": _exact(shown.forward_dc - shown.return_dc, 1),
    }
    return Answer(_MAKER, 1, _HEAT, records, values)


def water(shown: ShownVolume) -> Answer:
    """Volume and flow."""
    return _volume(shown, _WATER, ("8-0:1.0.0*255", "8-0:2.0.0*255"))


def gas(shown: ShownVolume) -> Answer:
    """The same of gas."""
    return _volume(shown, _GAS, ("7-0:3.0.0*255", "7-0:43.0.0*255"))


def electricity(shown: ShownElectricity) -> Answer:
    """The register of what was taken, in Wh, and the power, below 0 to the grid."""
    energy_wh = shown.import_ws // _WS_PER_WH
    records = (integer(_WH, INT32, energy_wh), integer(_W, INT32, shown.net_w))
    return Answer(
        _MAKER,
        1,
        _ELECTRICITY,
        records,
        {"1-0:1.8.0*255": Decimal(energy_wh), "1-0:16.7.0*255": Decimal(shown.net_w)},
    )


def _volume(shown: ShownVolume, device_type: int, codes: tuple[str, str]) -> Answer:
    litres, flow_l_per_h = shown.volume_ml // _ML_PER_L, shown.flow_ml_per_s * 3600 // _ML_PER_L
    records = (bcd(_LITRES, BCD8, litres), integer(_L_PER_H, INT32, flow_l_per_h), _clock(shown.time))
    values = (_exact(litres, 3), _exact(flow_l_per_h, 3))
    return Answer(_MAKER, 1, device_type, records, dict(zip(codes, values, strict=True)))


def _clock(time: datetime) -> bytes:
    return minute(_TIME, time)


def _exact(units: int, decimals: int) -> Decimal:
    return Decimal(units).scaleb(-decimals)
