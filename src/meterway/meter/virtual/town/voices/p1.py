"""P1 telegrams in the dialects of countries."""

from collections.abc import Iterable, Iterator
from functools import lru_cache

from meterway.core.obis import Obis
from meterway.meter.dlms_security import seal
from meterway.meter.keys import Keys
from meterway.meter.p1_encrypted import SMARTY_AUTHENTICATION_KEY
from meterway.meter.virtual.encode_p1 import P1Line, encode_p1, p1_number, p1_text, p1_time
from meterway.meter.virtual.town.shown import Said, ShownElectricity, ShownVolume

_WS_PER_WH = 3600
_ML_PER_L = 1000
_CHANNELS = ((1, "gas", 3), (2, "water", 7))
"""M-Bus channel, medium and device type."""


def netherlands(shown: ShownElectricity) -> Said:
    """DSMR 5: registers by tariff, gas and water with the time of their own reading."""
    return _said("MWY5\\2TOWN-NL", [P1Line("1-3:0.2.8", "(50)"), *_head(shown), *_by_tariff(shown), *_rest(shown)])


def belgium(shown: ShownElectricity) -> Said:
    """e-MUCS: the same, with the gas volume as the meter converted it (24.2.3)."""
    lines = [P1Line("0-0:96.1.4", "(50221)"), *_head(shown), *_by_tariff(shown), *_rest(shown, gas_code="24.2.3")]
    return _said("MWY5\\2TOWN-BE", lines)


def sweden(shown: ShownElectricity) -> Said:
    """One register a direction, more digits, no meter behind."""
    lines = [
        _clock(shown),
        p1_number("1-0:1.8.0", shown.import_ws // _WS_PER_WH, 11, 3, "kWh"),
        p1_number("1-0:2.8.0", shown.export_ws // _WS_PER_WH, 11, 3, "kWh"),
        p1_number("1-0:1.7.0", shown.import_w, 7, 3, "kW"),
        p1_number("1-0:2.7.0", shown.export_w, 7, 3, "kW"),
        *_phases(shown),
    ]
    return _said("MWY5\\2TOWN_SE", lines)


def version_2(shown: ShownElectricity) -> Said:
    """DSMR 2: no clock, no checksum, powers of 10 W."""
    lines = [
        p1_text("0-0:96.1.1", f"MWYE{shown.serial:012d}"),
        p1_number("1-0:1.8.1", shown.import_low_ws // _WS_PER_WH, 9, 3, "kWh"),
        p1_number("1-0:1.8.2", shown.import_normal_ws // _WS_PER_WH, 9, 3, "kWh"),
        p1_number("1-0:2.8.1", shown.export_low_ws // _WS_PER_WH, 9, 3, "kWh"),
        p1_number("1-0:2.8.2", shown.export_normal_ws // _WS_PER_WH, 9, 3, "kWh"),
        p1_number("1-0:1.7.0", shown.import_w // 10, 6, 2, "kW"),
        p1_number("1-0:2.7.0", shown.export_w // 10, 6, 2, "kW"),
    ]
    said = _said("MWY2\\2TOWN-V2", lines)
    return Said(said.data[:-6] + b"\r\n", said.values)


def luxembourg(shown: ShownElectricity) -> Said:
    """Sealed with the meter's key and the one authentication key of the whole country."""
    plain = _said(
        "MWY5\\2TOWN-LU",
        [
            P1Line("1-3:0.2.8", "(42)"),
            _clock(shown),
            p1_text("0-0:42.0.0", f"MWY{shown.serial:013d}"),
            p1_number("1-0:1.8.0", shown.import_ws // _WS_PER_WH, 9, 3, "kWh"),
            p1_number("1-0:2.8.0", shown.export_ws // _WS_PER_WH, 9, 3, "kWh"),
            p1_number("1-0:1.7.0", shown.import_w, 5, 3, "kW"),
            p1_number("1-0:2.7.0", shown.export_w, 5, 3, "kW"),
            *_phases(shown),
            *_behind(shown),
        ],
    )
    keys = Keys(shown.keys.encryption, SMARTY_AUTHENTICATION_KEY)
    title = b"MWYp" + shown.serial.to_bytes(4, "big")
    return Said(seal(plain.data, title=title, counter=shown.running_s, keys=keys), plain.values)


def _said(identification: str, lines: Iterable[P1Line]) -> Said:
    lines = list(lines)
    values = {_canonical(line.code): line.number for line in lines if line.number is not None}
    return Said(encode_p1(identification, lines), values)


def _clock(shown: ShownElectricity) -> P1Line:
    return P1Line("0-0:1.0.0", f"({p1_time(shown.time)})")


def _head(shown: ShownElectricity) -> tuple[P1Line, P1Line]:
    return _clock(shown), p1_text("0-0:96.1.1", f"MWYE{shown.serial:012d}")


def _by_tariff(shown: ShownElectricity) -> Iterator[P1Line]:
    yield p1_number("1-0:1.8.1", shown.import_low_ws // _WS_PER_WH, 9, 3, "kWh")
    yield p1_number("1-0:1.8.2", shown.import_normal_ws // _WS_PER_WH, 9, 3, "kWh")
    yield p1_number("1-0:2.8.1", shown.export_low_ws // _WS_PER_WH, 9, 3, "kWh")
    yield p1_number("1-0:2.8.2", shown.export_normal_ws // _WS_PER_WH, 9, 3, "kWh")
    yield P1Line("0-0:96.14.0", "(0002)" if shown.normal_tariff else "(0001)")
    yield p1_number("1-0:1.7.0", shown.import_w, 5, 3, "kW")
    yield p1_number("1-0:2.7.0", shown.export_w, 5, 3, "kW")


def _rest(shown: ShownElectricity, *, gas_code: str = "24.2.1") -> Iterator[P1Line]:
    yield P1Line("0-0:96.13.0", "()")
    yield from _phases(shown)
    yield from _behind(shown, gas_code=gas_code)


def _phases(shown: ShownElectricity) -> Iterator[P1Line]:
    for group, phase in zip((32, 52, 72), shown.phases, strict=False):
        yield p1_number(f"1-0:{group}.7.0", phase.voltage_dv, 4, 1, "V")
    for group, phase in zip((31, 51, 71), shown.phases, strict=False):
        yield p1_number(f"1-0:{group}.7.0", phase.current_ma // 10, 5, 2, "A")
    for group, phase in zip((21, 41, 61), shown.phases, strict=False):
        yield p1_number(f"1-0:{group}.7.0", max(phase.power_w, 0), 5, 3, "kW")
    for group, phase in zip((22, 42, 62), shown.phases, strict=False):
        yield p1_number(f"1-0:{group}.7.0", max(-phase.power_w, 0), 5, 3, "kW")


def _behind(shown: ShownElectricity, *, gas_code: str = "24.2.1") -> Iterator[P1Line]:
    for (channel, _, device_type), meter in zip(_CHANNELS, (shown.gas, shown.water), strict=True):
        if meter is None:
            continue
        yield P1Line(f"0-{channel}:24.1.0", f"({device_type:03d})")
        yield p1_text(f"0-{channel}:96.1.0", f"MWYB{meter.serial:012d}")
        yield _volume(f"0-{channel}:{gas_code if channel == 1 else '24.2.1'}", meter)


def _volume(code: str, meter: ShownVolume) -> P1Line:
    return p1_number(code, meter.volume_ml // _ML_PER_L, 8, 3, "m3", time=f"({p1_time(meter.time)})")


@lru_cache(maxsize=256)
def _canonical(code: str) -> str:
    return str(Obis.parse(code))
