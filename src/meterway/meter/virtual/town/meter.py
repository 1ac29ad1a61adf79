"""A meter of the town: what its household did, as the meter shows it, with whatever is wrong with the meter."""

from datetime import datetime, tzinfo
from functools import cached_property
from typing import Final, Literal
from uuid import UUID, uuid5

from meterway.meter.keys import KEY_BYTES, NO_KEYS, Keys
from meterway.meter.virtual.chance import chance, chance_bytes
from meterway.meter.virtual.electrical import Phases
from meterway.meter.virtual.town.dwelling import Dwelling
from meterway.meter.virtual.town.faults import Fault, FaultKind
from meterway.meter.virtual.town.shown import AnyShown, ShownElectricity, ShownHeat, ShownVolume
from meterway.meter.virtual.town.voices.catalogue import THROUGH, VOICES, Push, Voice

Medium = Literal["electricity", "gas", "water", "heat"]

_NAMESPACE: Final = UUID("3b0c9d7e-58f1-5c57-9f5b-8d1f6a6e2c40")
_NEW_S: Final = 1_577_836_800
"""2020-01-01, when all meters were new."""
_WS_PER_KWH: Final = 3_600_000
_ENERGY_LIMIT_WS: Final = 10**6 * _WS_PER_KWH
_HEAT_LIMIT_WS: Final = 10**7 * _WS_PER_KWH
_VOLUME_LIMIT_ML: Final = 10**11
"""Where registers begin again: at a million kWh, ten million of heat, a hundred thousand cubic metres."""
_LEAK_ML_PER_S: Final = 11
_DRIFT_S_PER_S: Final = 60
"""So many seconds until a drifting clock has gained one."""
_FORWARD_DC, _SPREAD_DK = 680, 300
_READ_THROUGH_S: Final[dict[str, int]] = {"gas": 300, "water": 3600}
"""How often a meter behind another is read."""

_EVERYWHERE: Final = {FaultKind.SWAP, FaultKind.ROLLOVER, FaultKind.ZERO}
_ON_A_LINE: Final = {FaultKind.LOSS, FaultKind.SILENCE}


class TownMeter:
    """One meter. Exact and repeatable: what it shows depends on seed, faults and instant alone."""

    def __init__(self, dwelling: Dwelling, medium: Medium, family: str, *, zone: tzinfo) -> None:
        self.dwelling = dwelling
        self.medium: Medium = medium
        self.family = family
        """``through`` for a meter behind another."""
        self.meter_id = str(uuid5(_NAMESPACE, f"{dwelling.seed}/{medium}"))
        self.behind: dict[int, TownMeter] = {}
        """Gas (channel 1) and water (2) meters that speak through this one."""
        self.faults: tuple[Fault, ...] = ()
        self._seed = f"{dwelling.seed}/{medium}"
        self._zone = zone
        self._phases = Phases(self._seed, 3)
        self._bases: dict[Fault, tuple[int, ...]] = {}

    @property
    def voice(self) -> Voice | None:
        """How it speaks; None: through another meter."""
        return None if self.family == THROUGH else VOICES[self.family]

    @property
    def classes(self) -> frozenset[str]:
        """Medium, protocol, family."""
        return frozenset((self.medium, self.family, self.voice.protocol if self.voice else THROUGH))

    @property
    def interval_s(self) -> int:
        """Seconds of its own time between two readings."""
        return self.voice.interval_s if self.voice else _READ_THROUGH_S[self.medium]

    @property
    def is_sealed(self) -> bool:
        """Whether its telegrams are encrypted."""
        return isinstance(self.voice, Push) and self.voice.sealed

    @cached_property
    def keys(self) -> Keys:
        """What its owner was given."""
        return Keys(chance_bytes(KEY_BYTES, self._seed, "key")) if self.is_sealed else NO_KEYS

    @property
    def can_have(self) -> frozenset[FaultKind]:
        """The faults that make sense in it."""
        kinds = set(_EVERYWHERE)
        if self.medium == "water":
            kinds.add(FaultKind.LEAK)
        if self.voice is not None:
            kinds |= _ON_A_LINE
            if isinstance(self.voice, Push):
                kinds.add(FaultKind.NOISE)
                if self.voice.radio:  # a receiver's configuration names the meter, and would not know the new one
                    kinds.remove(FaultKind.SWAP)
            if self.voice.has_clock:
                kinds |= {FaultKind.DRIFT, FaultKind.DST}
        if self.is_sealed:
            kinds.add(FaultKind.WRONG_KEY)
        return frozenset(kinds)

    def serial(self, instant_s: int) -> int:
        """Return the number on its label: another one after a swap."""
        swaps = sum(fault.kind is FaultKind.SWAP and fault.holds(instant_s) for fault in self.faults)
        return 10_000_000 + chance(89_999_999, self._seed, "serial", swaps)

    def has(self, kind: FaultKind, instant_s: int) -> bool:
        """Return whether it has a fault now."""
        return any(fault.kind is kind and fault.holds(instant_s) for fault in self.faults)

    def truth(self, instant_s: int) -> dict[str, int]:
        """Return what really went through it since 2020, whatever it shows: whole watt-seconds or millilitres."""
        match self.medium:
            case "electricity":
                now = self.dwelling.electricity(instant_s)
                true = {"import_ws": now.import_ws, "export_ws": now.export_ws}
            case "heat":
                heat = self.dwelling.heat(instant_s)
                true = {"energy_ws": heat.energy_ws, "volume_ml": heat.volume_ml}
            case _:
                true = {"volume_ml": self.volume_ml(instant_s)}
        for meter in self.behind.values():
            read_s = instant_s - instant_s % meter.interval_s
            true[f"{meter.medium}_ml"] = meter.volume_ml(read_s)
        return true

    def shown(self, instant_s: int) -> AnyShown:
        """Return what it shows at a Unix time."""
        match self.medium:
            case "electricity":
                return self._electricity(instant_s)
            case "heat":
                return self._heat(instant_s)
            case _:
                return self.volume(instant_s)

    def time(self, instant_s: int) -> datetime:
        """Return what its own clock says."""
        gained_s = sum(
            (instant_s - fault.begin_s) // _DRIFT_S_PER_S
            for fault in self.faults
            if fault.kind is FaultKind.DRIFT and fault.holds(instant_s)
        )
        return datetime.fromtimestamp(instant_s + gained_s, self._zone)

    def _electricity(self, instant_s: int) -> ShownElectricity:
        now = self.dwelling.electricity(instant_s)
        zero = self.has(FaultKind.ZERO, instant_s)
        registers = self._registers(instant_s)
        import_w, export_w = (0, 0) if zero else (now.import_w, now.export_w)
        total, low, normal, total_export, low_export, normal_export = registers
        gas, water = (self.behind[each].volume(instant_s) if each in self.behind else None for each in (1, 2))
        return ShownElectricity(
            time=self.time(instant_s),
            serial=self.serial(instant_s),
            running_s=instant_s - _NEW_S,
            import_ws=total,
            import_low_ws=low,
            import_normal_ws=normal,
            export_ws=total_export,
            export_low_ws=low_export,
            export_normal_ws=normal_export,
            normal_tariff=self.dwelling.normal_tariff(instant_s),
            import_w=import_w,
            export_w=export_w,
            phases=self._phases.at(instant_s, import_w - export_w),
            gas=gas,
            water=water,
            keys=self._sealing_keys(instant_s),
        )

    def _sealing_keys(self, instant_s: int) -> Keys:
        if not self.has(FaultKind.WRONG_KEY, instant_s):
            return self.keys
        return Keys(chance_bytes(KEY_BYTES, self._seed, "another key"))

    def _heat(self, instant_s: int) -> ShownHeat:
        now = self.dwelling.heat(instant_s)
        zero = self.has(FaultKind.ZERO, instant_s)
        energy_ws, volume_ml = self._registers(instant_s)
        forward_dc = _FORWARD_DC + chance(60, self._seed, "forward", instant_s // 900)
        return ShownHeat(
            time=self.time(instant_s),
            serial=self.serial(instant_s),
            running_s=instant_s - _NEW_S,
            energy_ws=energy_ws,
            volume_ml=volume_ml,
            power_w=0 if zero else now.power_w,
            flow_ml_per_s=0 if zero else now.flow_ml_per_s,
            forward_dc=forward_dc,
            return_dc=forward_dc - _SPREAD_DK,
            keys=self._sealing_keys(instant_s),
        )

    def volume(self, instant_s: int) -> ShownVolume:
        """Return a gas or water meter; one behind another shows what was read of it last."""
        read_s = instant_s if self.voice else instant_s - instant_s % self.interval_s
        flow_ml = self.volume_ml(read_s) - self.volume_ml(read_s - 1) if self.voice else 0
        return ShownVolume(
            time=self.time(read_s),
            serial=self.serial(instant_s),
            running_s=instant_s - _NEW_S,
            volume_ml=self._registers(read_s)[0],
            flow_ml_per_s=0 if self.has(FaultKind.ZERO, read_s) else flow_ml,
            keys=self._sealing_keys(instant_s),
        )

    def volume_ml(self, instant_s: int) -> int:
        """Return what really ran through a gas or water meter, leaks included."""
        counted = self.dwelling.gas_ml if self.medium == "gas" else self.dwelling.water_ml
        leaked_s = sum(
            min(instant_s, instant_s if fault.end_s is None else fault.end_s) - fault.begin_s
            for fault in self.faults
            if fault.kind is FaultKind.LEAK and instant_s > fault.begin_s
        )
        return counted(instant_s) + leaked_s * _LEAK_ML_PER_S

    def _true_registers(self, instant_s: int) -> tuple[int, ...]:
        match self.medium:
            case "electricity":
                now = self.dwelling.electricity(instant_s)
                taken = (now.import_ws, now.import_low_ws, now.import_normal_ws)
                return (*taken, now.export_ws, now.export_low_ws, now.export_normal_ws)
            case "heat":
                heat = self.dwelling.heat(instant_s)
                return heat.energy_ws, heat.volume_ml
            case _:
                return (self.volume_ml(instant_s),)

    @property
    def _limit(self) -> int:
        return {"electricity": _ENERGY_LIMIT_WS, "heat": _HEAT_LIMIT_WS}.get(self.medium, _VOLUME_LIMIT_ML)

    def _registers(self, instant_s: int) -> tuple[int, ...]:
        """Return its registers as it shows them, with what a swap, a rollover or a zero reading makes of them."""
        registers = self._true_registers(instant_s)
        for fault in self.faults:  # a meter has one of swap and rollover, see ``plan_faults``
            if fault.kind is FaultKind.ROLLOVER:
                turning = self._turning(fault)
                bases = self._base(fault)
                registers = tuple(
                    (each - base) % self._limit if place in turning else each
                    for place, (each, base) in enumerate(zip(registers, bases, strict=True))
                )
            elif fault.kind is FaultKind.SWAP and fault.holds(instant_s):
                registers = tuple(each - base for each, base in zip(registers, self._base(fault), strict=True))
            elif fault.kind is FaultKind.ZERO and fault.holds(instant_s):
                return (0,) * len(registers)
        return registers

    def _base(self, fault: Fault) -> tuple[int, ...]:
        """Return what the registers had truly counted when a fault began."""
        if fault not in self._bases:
            self._bases[fault] = self._true_registers(fault.begin_s)
        return self._bases[fault]

    def _turning(self, fault: Fault) -> tuple[int, ...]:
        """Return the places of the registers that turn: the total, and the one of the tariff that holds then."""
        if self.medium != "electricity":
            return (0,)
        return 0, 2 if self.dwelling.normal_tariff(fault.begin_s) else 1
