"""DLMS servers in a network, which are asked over the wrapper of TCP."""

from decimal import Decimal
from typing import Final

from meterway.core.obis import Obis
from meterway.meter import axdr_write as write
from meterway.meter.master import Effect
from meterway.meter.virtual.answer_dlms import AnsweringDlmsMeter
from meterway.meter.virtual.dlms_side import DlmsSide
from meterway.meter.virtual.town.shown import Begun, ShownElectricity

_DATA, _REGISTER, _CLOCK = 1, 3, 8
"""Interface classes."""
_W, _WH = 27, 30
_WS_PER_WH: Final = 3600
_LIST_AND_VALUES: Final = 2


def public(shown: ShownElectricity) -> Begun:
    """A meter that shows its registers to the public client: name, number, clock, energies by tariff, power."""
    numbers = {
        "1-0:1.8.0": (shown.import_ws // _WS_PER_WH, _WH),
        "1-0:1.8.1": (shown.import_low_ws // _WS_PER_WH, _WH),
        "1-0:1.8.2": (shown.import_normal_ws // _WS_PER_WH, _WH),
        "1-0:2.8.0": (shown.export_ws // _WS_PER_WH, _WH),
        "1-0:1.7.0": (shown.import_w, _W),
        "1-0:2.7.0": (shown.export_w, _W),
    }
    objects = {
        (_DATA, Obis(0, 0, 42, 0, 0)): {2: write.octets(f"MWY{shown.serial:013d}".encode())},
        (_DATA, Obis(0, 0, 96, 1, 0)): {2: write.octets(f"{shown.serial:08d}".encode())},
        (_CLOCK, Obis(0, 0, 1, 0, 0)): {2: write.octets(write.date_time(shown.time))},
    }
    for code, (value, unit) in numbers.items():
        scale = write.structure(write.int8(0), write.enum(unit))
        objects[_REGISTER, Obis.parse(code)] = {2: write.uint32(value), 3: scale}
    values = {str(Obis.parse(code)): Decimal(value) for code, (value, _) in numbers.items()}
    return Begun(_Association(DlmsSide(objects=objects, transport="wrapper")), values)


class _Association:
    """A session with a client."""

    is_over = False

    def __init__(self, side: DlmsSide) -> None:
        self._meter = AnsweringDlmsMeter(side)

    @property
    def is_told(self) -> bool:
        return len(self._meter.session.requests) >= _LIST_AND_VALUES

    def feed(self, data: bytes) -> list[Effect]:
        return self._meter.feed(data)

    def idle(self) -> list[Effect]:
        return self._meter.idle()
