"""SML pushes of German meters."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import lru_cache

from meterway.core.obis import Obis
from meterway.meter.virtual.encode_sml import UNIT_A, UNIT_V, UNIT_W, UNIT_WH, SmlEntry, encode_sml
from meterway.meter.virtual.town.shown import Said, ShownElectricity

_WS_PER_TENTH_WH = 360
_EXPORTS = 0x20
"""Bit of the status word: power flows to the grid."""
_STATUS = 0x0000_0182
_MME_STATUS = 0x001C_0104


def with_phases(shown: ShownElectricity) -> Said:
    """A meter with its PIN entered: registers, power, and all phases."""
    server_id = _server_id(b"\x0a\x01MWY\x00", shown)
    entries = [
        *_head(server_id),
        *_registers(shown, _MME_STATUS),
        _entry(16, 7, shown.net_w, UNIT_W, 0),
        *(_entry(c, 7, p.power_w, UNIT_W, 0) for c, p in zip((36, 56, 76), shown.phases, strict=False)),
        *(_entry(c, 7, p.voltage_dv, UNIT_V, -1) for c, p in zip((32, 52, 72), shown.phases, strict=False)),
        *(_entry(c, 7, p.current_ma // 10, UNIT_A, -2) for c, p in zip((31, 51, 71), shown.phases, strict=False)),
    ]
    return _said(server_id, entries, shown)


def modern(shown: ShownElectricity) -> Said:
    """A modern meter (mME): registers and power."""
    server_id = _server_id(b"\x0a\x01MWY\x00", shown)
    entries = [*_head(server_id), *_registers(shown, _MME_STATUS), _entry(16, 7, shown.net_w, UNIT_W, 0)]
    return _said(server_id, entries, shown)


def emh(shown: ShownElectricity) -> Said:
    """EMH ED300L of 2010: a power without sign, whose direction stands in the status of the register."""
    server_id = _server_id(b"\x06MWY\x01\x02", shown)
    entries = [
        SmlEntry(bytes((129, 129, 199, 130, 3, 255)), b"MWY"),
        SmlEntry(_code(0, 0, 9), server_id),
        *_registers(shown, _STATUS),
        _entry(15, 7, abs(shown.net_w) * 10, UNIT_W, -1),
    ]
    said = _said(server_id, entries, shown)
    signed = Decimal(shown.net_w * 10).scaleb(-1)
    return Said(said.data, {**said.values, str(Obis(1, 0, 15, 7, 0)): signed})


def _said(server_id: bytes, entries: Sequence[SmlEntry], shown: ShownElectricity) -> Said:
    values = {
        _canonical(entry.code): Decimal(entry.value).scaleb(entry.scaler or 0)
        for entry in entries
        if isinstance(entry.value, int)
    }
    running_s = shown.running_s
    return Said(encode_sml(server_id, entries, file_number=running_s, running_s=running_s), values)


def _server_id(head: bytes, shown: ShownElectricity) -> bytes:
    return head + shown.serial.to_bytes(4, "big")


def _head(server_id: bytes) -> tuple[SmlEntry, SmlEntry]:
    return SmlEntry(bytes((1, 0, 96, 50, 1, 1)), b"MWY"), SmlEntry(_code(96, 1, 0), server_id)


def _registers(shown: ShownElectricity, status: int) -> Iterable[SmlEntry]:
    if shown.net_w < 0:
        status |= _EXPORTS
    yield SmlEntry(_code(1, 8, 0), shown.import_ws // _WS_PER_TENTH_WH, UNIT_WH, -1, status, 8)
    yield SmlEntry(_code(2, 8, 0), shown.export_ws // _WS_PER_TENTH_WH, UNIT_WH, -1, None, 8)


def _entry(c: int, d: int, value: int, unit: int, scaler: int) -> SmlEntry:
    return SmlEntry(_code(c, d, 0), value, unit, scaler)


@lru_cache(maxsize=64)
def _code(c: int, d: int, e: int) -> bytes:
    return bytes((1, 0, c, d, e, 255))


@lru_cache(maxsize=256)
def _canonical(code: bytes) -> str:
    return str(Obis.from_bytes(code))
