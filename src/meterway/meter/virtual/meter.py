"""Virtual meters: what one says at an instant, as bytes, and which numbers these bytes state."""

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Final, Protocol
from uuid import UUID, uuid5

import msgspec

from meterway.core.obis import Obis
from meterway.meter.virtual.electrical import Phase, Phases
from meterway.meter.virtual.encode_p1 import P1Line, encode_p1, p1_number, p1_text, p1_time
from meterway.meter.virtual.encode_sml import (
    UNIT_A,
    UNIT_HZ,
    UNIT_V,
    UNIT_W,
    UNIT_WH,
    SmlEntry,
    encode_sml,
)
from meterway.meter.virtual.profile import Household
from meterway.meter.virtual.statement import Spoken, Statement

_NAMESPACE = UUID("7c0a3f52-5d0e-4b0a-9c53-2f6f3a1d8e11")
_WS_PER_WH: Final = 3600
_WS_PER_TENTH_WH: Final = 360
_ML_PER_L: Final = 1000
GAS_CHANNEL: Final = 1
WATER_CHANNEL: Final = 2
_GAS, _WATER = 3, 7
"""Device types of EN 13757-3."""
_INSTALLED_S = 1_577_836_800
"""2020-01-01: the counter of seconds of an SML meter began there."""


class Kind(StrEnum):
    """The protocol that a virtual meter speaks."""

    P1 = "p1"
    SML = "sml"


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """How a virtual meter is equipped."""

    phases: int = 3
    """1 or 3."""
    gas: bool = True
    """P1 only: a gas meter on M-Bus channel 1, read every ``gas_interval_s``."""
    water: bool = True
    """P1 only: a water meter on M-Bus channel 2, read every ``water_interval_s``."""
    gas_interval_s: int = 300
    water_interval_s: int = 3600
    pv: bool | None = None
    """Whether the household has PV; None leaves it to the seed."""


DEFAULT_BUILD = Build()


def meter_id(seed: str, index: int) -> str:
    """Return the meter id (a UUID) of the ``index``-th virtual meter of a seed: always the same."""
    return str(uuid5(_NAMESPACE, f"{seed}/{index}"))


def channel_meter_id(seed: str, index: int, channel: int) -> str:
    """Return the id of the meter behind the ``index``-th: the gas meter (channel 1) or the water meter (2)."""
    return str(uuid5(_NAMESPACE, f"{seed}/{index}/channel/{channel}"))


class _Voice(Protocol):
    """What differs between the protocols."""

    def speak(self, instant_s: int) -> tuple[bytes, dict[str, Decimal]]: ...


class VirtualMeter:
    """One meter of one household. Not thread-safe; cheapest when instants rise.

    The same seed, index and build give the same bytes at the same instant, so that a meter may be stopped and
    started again at any time and its registers go on exactly.
    """

    interval_s = 1
    """Both kinds send every second: DSMR 5, and most German meters."""

    def __init__(self, kind: Kind, seed: str, index: int, *, zone: tzinfo = UTC, build: Build = DEFAULT_BUILD) -> None:
        self.kind = kind
        self.channels: dict[int, str] = {}
        """The meters behind this one: M-Bus channel to meter id."""
        if kind is Kind.P1:
            present = ((GAS_CHANNEL, build.gas), (WATER_CHANNEL, build.water))
            self.channels = {number: channel_meter_id(seed, index, number) for number, there in present if there}
        self.meter_id = meter_id(seed, index)
        self.serial = index + 1
        """Part of the equipment identifiers that the meter sends."""
        self.household = Household(f"{seed}/{index}", zone, pv=build.pv)
        self._phases = Phases(f"{seed}/{index}", build.phases)
        self._n = 0
        self._voice: _Voice = (
            _P1Voice(self.household, self._phases, self.serial, zone, build)
            if kind is Kind.P1
            else _SmlVoice(self.household, self._phases, self.serial)
        )

    def tick(self, instant_s: int) -> Spoken:
        """Return the telegram at a Unix time, and what it states.

        Raises:
            SetupError: before 2020, or after the year 9998.
        """
        telegram, values = self._voice.speak(instant_s)
        self._n += 1
        return Spoken(telegram, Statement(self.meter_id, self.kind, self._n, instant_s, values))


class _P1Voice:
    """A DSMR 5 meter, with gas and water behind it."""

    def __init__(self, household: Household, phases: Phases, serial: int, zone: tzinfo, build: Build) -> None:
        self._household = household
        self._phases = phases
        self._zone = zone
        self._build = build
        self._identification = f"MWY5\\2VIRTUAL-{build.phases}PH"
        self._equipment = p1_text("0-0:96.1.1", f"MWYE{serial:012d}")
        self._gas_head = _channel_head(GAS_CHANNEL, _GAS, f"MWYG{serial:012d}")
        self._water_head = _channel_head(WATER_CHANNEL, _WATER, f"MWYW{serial:012d}")
        self._channels: tuple[tuple[int, int], list[P1Line]] = ((-1, -1), [])

    def speak(self, instant_s: int) -> tuple[bytes, dict[str, Decimal]]:
        lines = list(self._lines(instant_s))
        values = {_canonical(line.code): line.number for line in lines if line.number is not None}
        return encode_p1(self._identification, lines), values

    def _lines(self, instant_s: int) -> Iterator[P1Line]:
        now = self._household.electricity(instant_s)
        yield P1Line("1-3:0.2.8", "(50)")
        yield P1Line("0-0:1.0.0", f"({self._time(instant_s)})")
        yield self._equipment
        yield p1_number("1-0:1.8.1", now.import_low_ws // _WS_PER_WH, 9, 3, "kWh")
        yield p1_number("1-0:1.8.2", now.import_normal_ws // _WS_PER_WH, 9, 3, "kWh")
        yield p1_number("1-0:2.8.1", now.export_low_ws // _WS_PER_WH, 9, 3, "kWh")
        yield p1_number("1-0:2.8.2", now.export_normal_ws // _WS_PER_WH, 9, 3, "kWh")
        yield P1Line("0-0:96.14.0", "(0002)" if self._household.normal_tariff(instant_s) else "(0001)")
        yield p1_number("1-0:1.7.0", now.import_w, 5, 3, "kW")
        yield p1_number("1-0:2.7.0", now.export_w, 5, 3, "kW")
        yield from _QUIET_LINES
        phases = self._phases.at(instant_s, now.import_w - now.export_w)
        for group, phase in zip((32, 52, 72), phases, strict=False):
            yield p1_number(f"1-0:{group}.7.0", phase.voltage_dv, 4, 1, "V")
        for group, phase in zip((31, 51, 71), phases, strict=False):
            yield p1_number(f"1-0:{group}.7.0", phase.current_ma // 10, 5, 2, "A")
        for group, phase in zip((21, 41, 61), phases, strict=False):
            yield p1_number(f"1-0:{group}.7.0", max(phase.power_w, 0), 5, 3, "kW")
        for group, phase in zip((22, 42, 62), phases, strict=False):
            yield p1_number(f"1-0:{group}.7.0", max(-phase.power_w, 0), 5, 3, "kW")
        yield from self._channel_lines(instant_s)

    def _channel_lines(self, instant_s: int) -> list[P1Line]:
        build = self._build
        read_s = (instant_s - instant_s % build.gas_interval_s, instant_s - instant_s % build.water_interval_s)
        if self._channels[0] != read_s:
            lines: list[P1Line] = []
            if build.gas:
                lines += [*self._gas_head, self._volume(GAS_CHANNEL, read_s[0], self._household.gas_ml(read_s[0]))]
            if build.water:
                lines += [
                    *self._water_head,
                    self._volume(WATER_CHANNEL, read_s[1], self._household.water_ml(read_s[1])),
                ]
            self._channels = (read_s, lines)
        return self._channels[1]

    def _volume(self, channel: int, read_s: int, volume_ml: int) -> P1Line:
        time = f"({self._time(read_s)})"
        return p1_number(f"0-{channel}:24.2.1", volume_ml // _ML_PER_L, 8, 3, "m3", time=time)

    def _time(self, instant_s: int) -> str:
        return p1_time(datetime.fromtimestamp(instant_s, self._zone))


_QUIET_LINES = (
    P1Line("0-0:96.7.21", "(00000)"),
    P1Line("0-0:96.7.9", "(00000)"),
    P1Line("1-0:99.97.0", "(0)(0-0:96.7.19)"),
    P1Line("0-0:96.13.0", "()"),
)
"""What a meter says of power failures and messages: none."""


def _channel_head(channel: int, device_type: int, equipment: str) -> tuple[P1Line, P1Line]:
    return (
        P1Line(f"0-{channel}:24.1.0", f"({device_type:03d})"),
        p1_text(f"0-{channel}:96.1.0", equipment),
    )


class _SmlVoice:
    """A German electronic household meter (eHZ) with its PIN entered, so that it sends powers and phases."""

    def __init__(self, household: Household, phases: Phases, serial: int) -> None:
        self._household = household
        self._phases = phases
        self._server_id = b"\x0a\x01MWY\x00" + serial.to_bytes(4, "big")
        self._head = (
            SmlEntry(bytes((1, 0, 96, 50, 1, 1)), b"MWY"),
            SmlEntry(bytes((1, 0, 96, 1, 0, 255)), self._server_id),
        )

    def speak(self, instant_s: int) -> tuple[bytes, dict[str, Decimal]]:
        entries = [*self._head, *self._entries(instant_s)]
        values = {
            _canonical_bytes(entry.code): Decimal(entry.value).scaleb(entry.scaler or 0)
            for entry in entries
            if isinstance(entry.value, int)
        }
        running_s = instant_s - _INSTALLED_S
        return encode_sml(self._server_id, entries, file_number=running_s, running_s=running_s), values

    def _entries(self, instant_s: int) -> Iterator[SmlEntry]:
        now = self._household.electricity(instant_s)
        net_w = now.import_w - now.export_w
        phases = self._phases.at(instant_s, net_w)
        status = 0x001C_0104 if net_w >= 0 else 0x001C_0124
        yield SmlEntry(_IMPORT, now.import_ws // _WS_PER_TENTH_WH, UNIT_WH, -1, status, 8)
        yield SmlEntry(_EXPORT, now.export_ws // _WS_PER_TENTH_WH, UNIT_WH, -1, None, 8)
        yield SmlEntry(_POWER, net_w, UNIT_W, 0)
        for code, phase in zip(_PHASE_POWERS, phases, strict=False):
            yield SmlEntry(code, phase.power_w, UNIT_W, 0)
        for code, phase in zip(_PHASE_VOLTAGES, phases, strict=False):
            yield SmlEntry(code, phase.voltage_dv, UNIT_V, -1)
        for code, phase in zip(_PHASE_CURRENTS, phases, strict=False):
            yield SmlEntry(code, phase.current_ma // 10, UNIT_A, -2)
        yield SmlEntry(_FREQUENCY, _frequency_dhz(phases), UNIT_HZ, -1)


def _frequency_dhz(phases: tuple[Phase, ...]) -> int:
    """Return the frequency in tenths of a hertz: 49.9 to 50.1, moving with the grid's voltage."""
    return 499 + phases[0].voltage_dv % 3


def _register(c: int, d: int) -> bytes:
    return bytes((1, 0, c, d, 0, 255))


_IMPORT, _EXPORT, _POWER, _FREQUENCY = _register(1, 8), _register(2, 8), _register(16, 7), _register(14, 7)
_PHASE_POWERS = tuple(_register(c, 7) for c in (36, 56, 76))
_PHASE_VOLTAGES = tuple(_register(c, 7) for c in (32, 52, 72))
_PHASE_CURRENTS = tuple(_register(c, 7) for c in (31, 51, 71))


@lru_cache(maxsize=256)
def _canonical(code: str) -> str:
    return str(Obis.parse(code))


@lru_cache(maxsize=256)
def _canonical_bytes(code: bytes) -> str:
    return str(Obis.from_bytes(code))
