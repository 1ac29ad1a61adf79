"""DLMS pushes: the same registers in the layouts of five makers, plain and sealed."""

from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple

from meterway.core.obis import Obis
from meterway.meter.dlms_mbus import encode_frames
from meterway.meter.dlms_security import seal
from meterway.meter.virtual.encode_dlms import (
    Scale,
    coded,
    date_time,
    described,
    encode_blocks,
    encode_hdlc,
    encode_notification,
    flat,
    int16,
    octets,
    structure,
    uint16,
    uint32,
    visible,
)
from meterway.meter.virtual.town.shown import Said, ShownElectricity

_WS_PER_WH: Final = 3600
_CLOCK: Final = Obis(0, 0, 1, 0, 0)
_LIST: Final = Obis(1, 1, 0, 2, 129)
_W, _WH, _A, _V = 27, 30, 33, 35
_DATA, _REGISTER = 1, 3
"""Interface classes."""


class _Number(NamedTuple):
    obis: Obis
    encoded: bytes
    value: Decimal
    """As a reader finds it."""
    scale: Scale
    """Scaler and unit, where they are sent."""


def aidon(shown: ShownElectricity) -> Said:
    """Norway: code, value, scaler and unit of each."""
    numbers = _numbers(shown, currents_scaler=-1, voltages_scaler=-1, signed_currents=True)
    values = [
        (_LIST, visible("AIDON_V0001"), None),
        (Obis(0, 0, 96, 1, 0), visible(f"73000000{shown.serial:08d}"), None),
        (_CLOCK, octets(date_time(shown.time)), None),
        *((each.obis, each.encoded, each.scale) for each in numbers),
    ]
    return Said(encode_hdlc(encode_notification(shown.running_s, structure(*coded(values)))), _values(numbers))


def kaifa_norway(shown: ShownElectricity) -> Said:
    """List 3 of meters with three phases: values in their places, none with a code."""
    power = [_power(1, shown.import_w), _power(2, shown.export_w), _power(3, 0), _power(4, 0)]
    currents, voltages = _currents(shown, scaler=-3, as_long=True), _voltages(shown, scaler=-1, as_long=True)
    energy = [_energy(1, shown.import_ws), _energy(2, shown.export_ws), _energy(3, 0), _energy(4, 0)]
    time = date_time(shown.time)
    elements = [
        octets(b"KFM_001"),
        octets(f"69706310{shown.serial:08d}".encode()),
        octets(b"MA304H3E"),
        *(each.encoded for each in (*power, *currents, *voltages)),
        octets(time),
        *(each.encoded for each in energy),
    ]
    apdu = encode_notification(shown.running_s, structure(*elements), time)
    return Said(
        encode_hdlc(apdu, destination=b"\x01", source=b"\x02\x01"), _values(power + currents + voltages + energy)
    )


def kamstrup(shown: ShownElectricity) -> Said:
    """Denmark and Norway: code and value side by side, no units, energies of 10 Wh."""
    numbers = [
        *_numbers(shown, currents_scaler=-2, voltages_scaler=0, b=1, long_currents=True, ten_wh=True),
    ]
    values = [
        (Obis(1, 1, 0, 0, 5), visible(f"57065670{shown.serial:08d}"), None),
        *((each.obis, each.encoded, None) for each in numbers),
        (Obis(0, 1, 1, 0, 0), octets(date_time(shown.time)), None),
    ]
    data = structure(visible("Kamstrup_V0001"), *flat(values))
    apdu = encode_notification(0, data, date_time(shown.time))
    return Said(encode_hdlc(apdu, destination=b"\x2b", source=b"\x21"), _values(numbers))


def kaifa_austria(shown: ShownElectricity) -> Said:
    """Austria: coded structures, sealed, in the segments of M-Bus frames."""
    numbers = _numbers(shown, currents_scaler=-2, voltages_scaler=-1)
    values = [
        (_CLOCK, octets(date_time(shown.time)), None),
        *((each.obis, each.encoded, each.scale) for each in numbers),
        (Obis(0, 0, 96, 1, 0), octets(f"1812{shown.serial:08d}".encode()), None),
    ]
    apdu = encode_notification(shown.running_s, structure(*coded(values)), date_time(shown.time))
    title = b"KFMg" + shown.serial.to_bytes(4, "big")
    sealed = seal(apdu, title=title, counter=shown.running_s, keys=shown.keys, control=0x20)
    return Said(encode_frames(sealed), _values(numbers))


def landis_gyr(shown: ShownElectricity) -> Said:
    """Switzerland: a list of objects and their values, in the blocks of a general block transfer."""
    numbers = _numbers(shown, currents_scaler=-2, voltages_scaler=0)
    number = f"LGZ1030{shown.serial:09d}".encode()
    objects = [
        (40, Obis(0, 8, 25, 9, 0), b""),
        (_DATA, Obis(0, 0, 42, 0, 0), octets(number)),
        *((_REGISTER, each.obis, each.encoded) for each in numbers),
    ]
    apdu = encode_notification(shown.running_s, structure(*described(objects)), date_time(shown.time))
    data = b"".join(
        encode_hdlc(block, destination=b"\xce\xff", source=b"\x03") for block in encode_blocks(apdu, most_bytes=120)
    )
    return Said(data, _values(numbers))


def _numbers(
    shown: ShownElectricity,
    *,
    currents_scaler: int,
    voltages_scaler: int,
    b: int = 0,
    signed_currents: bool = False,
    long_currents: bool = False,
    ten_wh: bool = False,
) -> list[_Number]:
    return [
        _energy(1, shown.import_ws, b=b, ten_wh=ten_wh),
        _energy(2, shown.export_ws, b=b, ten_wh=ten_wh),
        _power(1, shown.import_w, b=b),
        _power(2, shown.export_w, b=b),
        *_voltages(shown, scaler=voltages_scaler, b=b),
        *_currents(shown, scaler=currents_scaler, b=b, as_long=long_currents, signed=signed_currents),
    ]


def _energy(c: int, energy_ws: int, *, b: int = 0, ten_wh: bool = False) -> _Number:
    energy_wh = energy_ws // _WS_PER_WH
    obis = _obis(b, c, 8)
    if ten_wh:
        return _Number(obis, uint32(energy_wh // 10), Decimal(energy_wh // 10 * 10), (1, _WH))
    return _Number(obis, uint32(energy_wh), Decimal(energy_wh), (0, _WH))


def _power(c: int, power_w: int, *, b: int = 0) -> _Number:
    return _Number(_obis(b, c, 7), uint32(power_w), Decimal(power_w), (0, _W))


def _voltages(shown: ShownElectricity, *, scaler: int, b: int = 0, as_long: bool = False) -> list[_Number]:
    made = []
    for c, phase in zip((32, 52, 72), shown.phases, strict=False):
        sent = phase.voltage_dv if scaler else phase.voltage_dv // 10
        encoded = uint32(sent) if as_long else uint16(sent)
        made.append(_Number(_obis(b, c, 7), encoded, Decimal(sent).scaleb(scaler), (scaler, _V)))
    return made


def _currents(
    shown: ShownElectricity, *, scaler: int, b: int = 0, as_long: bool = False, signed: bool = False
) -> list[_Number]:
    made = []
    for c, phase in zip((31, 51, 71), shown.phases, strict=False):
        sent = phase.current_ma // 10 ** (3 + scaler)
        encoded = uint32(sent) if as_long else int16(sent) if signed else uint16(sent)
        made.append(_Number(_obis(b, c, 7), encoded, Decimal(sent).scaleb(scaler), (scaler, _A)))
    return made


@lru_cache(maxsize=64)
def _obis(b: int, c: int, d: int) -> Obis:
    return Obis(1, b, c, d, 0)


def _values(numbers: Sequence[_Number]) -> dict[str, Decimal]:
    return {str(each.obis): each.value for each in numbers}
