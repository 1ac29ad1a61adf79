"""Meters in the home network that answer a poll over HTTP with a JSON document."""

from decimal import Decimal
from functools import lru_cache

from meterway.core.errors import SetupError
from meterway.core.obis import Obis
from meterway.meter.family import load_family
from meterway.meter.json_map import JsonMap
from meterway.meter.master import Effect, Send
from meterway.meter.telegram import Register
from meterway.meter.virtual.encode_json import encode_json
from meterway.meter.virtual.town.shown import Begun, ShownElectricity

_HOMEWIZARD = "json-homewizard-p1"
_WS_PER_WH = 3600
_END_OF_HEAD = b"\r\n\r\n"
_LIMIT_BYTES = 16_384
"""The longest request that is heard."""


def homewizard(shown: ShownElectricity) -> Begun:
    """HomeWizard P1 meter: totals and by tariff, power, and all phases; it states no time."""
    numbers = [
        ("1-0:1.8.0", _exact(shown.import_ws // _WS_PER_WH, 3), "kWh"),
        ("1-0:1.8.1", _exact(shown.import_low_ws // _WS_PER_WH, 3), "kWh"),
        ("1-0:1.8.2", _exact(shown.import_normal_ws // _WS_PER_WH, 3), "kWh"),
        ("1-0:2.8.0", _exact(shown.export_ws // _WS_PER_WH, 3), "kWh"),
        ("1-0:16.7.0", Decimal(shown.net_w), "W"),
    ]
    for (voltage, power), phase in zip(((32, 36), (52, 56), (72, 76)), shown.phases, strict=True):
        numbers.append((f"1-0:{voltage}.7.0", _exact(phase.voltage_dv, 1), "V"))
        numbers.append((f"1-0:{power}.7.0", Decimal(phase.power_w), "W"))
    registers = [Register(Obis.parse(code), value, unit) for code, value, unit in numbers]
    zone = shown.time.tzinfo
    assert zone is not None  # noqa: S101 - the meter's own clock has a zone
    (message,) = encode_json(_map(_HOMEWIZARD), registers, zone=zone, meter=f"MWY{shown.serial:08d}")
    return Begun(_Poll(message.payload), {str(Obis.parse(code)): value for code, value, _ in numbers})


class _Poll:
    """One request and its answer, whatever is asked for."""

    def __init__(self, body: bytes) -> None:
        self.is_told = self.is_over = False
        self._body = body
        self._head = bytearray()

    def feed(self, data: bytes) -> list[Effect]:
        self._head += data[-_LIMIT_BYTES:]
        if _END_OF_HEAD not in self._head or self.is_over:
            return []
        self.is_told = self.is_over = True
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(self._body)}\r\n\r\n"
        return [Send(head.encode("ascii") + self._body)]

    def idle(self) -> list[Effect]:
        return []


@lru_cache(maxsize=8)
def _map(family: str) -> JsonMap:
    found = load_family(family).json
    if found is None:
        raise SetupError(f"family {family} does not say where values stand")
    return found


def _exact(units: int, decimals: int) -> Decimal:
    return Decimal(units).scaleb(-decimals)
