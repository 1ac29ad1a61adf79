"""What a meter shows beside its registers: powers, voltages and currents of the phases, from the power that flows."""

from dataclasses import dataclass

from meterway.meter.virtual.chance import chance, chance_bytes

_VOLTAGE_S = 300
"""The voltage of the grid changes so often; in between it falls only with the power drawn."""

_MIDDLE_DV = 2330
_W_PER_DV = 300
"""A line of about 2 ohms: 300 W more lower the voltage by 0.1 V."""


@dataclass(frozen=True, slots=True)
class Phase:
    power_w: int
    """Above 0 taken from the grid, below 0 given to it."""
    voltage_dv: int
    """In tenths of a volt."""
    current_ma: int
    """Never negative: a meter's current has no direction."""


class Phases:
    """How the power of a house spreads over its phases; the powers of the phases add up exactly."""

    def __init__(self, seed: str, count: int) -> None:
        self._seed = seed
        self._count = count
        weights = [20 + chance(60, seed, "phase", number) for number in range(count)]
        self._shares_permille = [1000 * weight // sum(weights) for weight in weights]
        self._grid: tuple[int, bytes] = (-1, b"")

    def at(self, instant_s: int, power_w: int) -> tuple[Phase, ...]:
        """Return the phases at a Unix time at which ``power_w`` flows in all (below 0 to the grid)."""
        number = instant_s // _VOLTAGE_S
        if self._grid[0] != number:
            self._grid = (number, chance_bytes(self._count, self._seed, "voltage", number))
        phases: list[Phase] = []
        left_w = power_w
        sign = 1 if power_w >= 0 else -1
        for share, drawn in zip(self._shares_permille, self._grid[1], strict=True):
            part_w = left_w if len(phases) == self._count - 1 else sign * (abs(power_w) * share // 1000)
            left_w -= part_w
            voltage_dv = _MIDDLE_DV + (drawn - 128) // 4 - part_w // _W_PER_DV
            phases.append(Phase(part_w, voltage_dv, abs(part_w) * 10_000 // voltage_dv))
        return tuple(phases)
