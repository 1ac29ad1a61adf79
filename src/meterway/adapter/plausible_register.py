"""Is this value of a register plausible after the one before? Pure.

A register counts for ever, so it only rises, and not faster than the connection allows. A value that breaks this is
doubted and does not become the level that later ones are held against. If the next value agrees with the level, the
doubted one was a single damaged value and is forgotten. If it agrees with the doubted one instead, that is the new
level: a meter was swapped, reset, or rolled over, and it is said once.

Two values of zero are not enough: meters say zero for minutes while they start. Zero becomes the level when the
register has counted on from it, or after ``ZERO_PROVEN``.

What is no fall: the same value with fewer digits (a German meter without its PIN cuts to whole kWh).
"""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from meterway.adapter.memory import Level, RegisterMemory

REGISTER_FELL: Final = "register-fell"
REGISTER_ROLLED_OVER: Final = "register-rolled-over"
REGISTER_ZERO: Final = "register-zero"
RISE_TOO_FAST: Final = "rise-too-fast"
SCALE_CHANGED: Final = "scale-changed"
UNCONFIRMED: Final = "unconfirmed"

ZERO_PROVEN: Final = timedelta(days=1)
UNKNOWN_SINCE: Final = timedelta(hours=1)
"""So old the first value may be when it is seen: some meters renew their registers every quarter of an hour only."""
CLOCK_TOLERANCE: Final = timedelta(seconds=60)
"""Telegrams wait in gateways, and clocks are set, by so much."""

_LEAST_SCALED: Final = 100
"""Below this a thousandfold value is a young meter's."""
_SCALES: Final = (Decimal(1000), Decimal(1_000_000))
_LEAST_SCALE: Final = Decimal(980)
"""What is less than this many times as much is in the same unit; spares most values a closer look."""
_SCALED_RISE: Final = Decimal("1.01")
"""What may have been used since, a hundredth; and what may have been cut off, a thousandth."""
_SCALED_CUT: Final = Decimal("1.001")
_NEAR_LIMIT: Final = Decimal("0.01")
"""How near its limit a register was that rolled over, where no greatest rise is known: a hundredth."""
_SECONDS_PER_HOUR: Final = 3600
_ALWAYS_PER_HOUR: Final = _SECONDS_PER_HOUR // int(CLOCK_TOLERANCE.total_seconds())
"""What rises by a part of the greatest hourly rise that ``CLOCK_TOLERANCE`` takes is never too fast."""


class Seen(NamedTuple):
    """One value of a register, and when."""

    value: Decimal
    arrival: datetime
    clock: datetime | None
    """The time of the value by the meter's clock, in UTC."""


class Rules(NamedTuple):
    """What is known of a register."""

    most_per_hour: Decimal | None = None
    """How much it can rise in an hour, in its unit; None: not known."""
    is_net: bool = False
    """Whether it is a difference of two registers, and may fall."""
    may_be_cut: bool = True
    """Whether the same value with fewer digits may be said."""


def doubt(level: Level, seen: Seen, rules: Rules) -> str | None:
    """Return the fault code of a value that does not follow from ``level``; None if it does."""
    old, new = level.value, seen.value
    rise = abs(new - old) if rules.is_net else new - old
    if rise >= 0:
        return _doubt_rise(level, seen, rules, rise)
    if rules.may_be_cut and is_coarser(old, new):
        return None
    if new and _is_scaled(new, old, falls=True):
        return SCALE_CHANGED
    if _has_rolled_over(old, new, _most_rise(level, seen, rules)):
        return REGISTER_ROLLED_OVER
    return REGISTER_FELL if new else REGISTER_ZERO


def _doubt_rise(level: Level, seen: Seen, rules: Rules, rise: Decimal) -> str | None:
    if not rise:
        return None
    if level.value and not rules.is_net and _is_scaled(level.value, seen.value):
        return SCALE_CHANGED
    if rules.most_per_hour is None or rise * _ALWAYS_PER_HOUR <= rules.most_per_hour:
        return None
    most = _most_rise(level, seen, rules)
    return RISE_TOO_FAST if most is not None and rise > most else None


def take(memory: RegisterMemory, seen: Seen, rules: Rules) -> str | None:
    """Judge a value and remember it; return its fault code, None if it is trusted."""
    if memory.level is None:
        memory.level, memory.candidate = first(seen), None
        return None
    code = doubt(memory.level, seen, rules)
    if code is None:
        _follow(memory, memory.level, seen)
        return None
    candidate = memory.candidate
    if candidate is None or doubt(candidate, seen, rules) is not None:
        memory.candidate = first(seen)
        return code
    if seen.value == candidate.value == 0 and seen.arrival - candidate.seen < ZERO_PROVEN:
        return code
    _follow(memory, candidate, seen)
    return None


def take_unchecked(memory: RegisterMemory, seen: Seen, after: Seen | None, rules: Rules) -> str | None:
    """Judge a value that no checksum protects, as ``take``; ``after`` is the next value, None if there was none."""
    here, level = first(seen), memory.level
    is_followed = after is not None and doubt(here, after, rules) is None
    if level is None:
        waited, memory.candidate = memory.candidate, here
        is_confirmed = is_followed or (waited is not None and doubt(waited, seen, rules) is None)
        return take(memory, seen, rules) if is_confirmed else UNCONFIRMED
    is_outlier = (
        after is not None
        and not is_followed
        and doubt(level, seen, rules) is None
        and doubt(level, after, rules) is None
    )
    return UNCONFIRMED if is_outlier else take(memory, seen, rules)


def is_coarser(old: Decimal, new: Decimal) -> bool:
    """Return whether ``new`` is ``old`` with decimals cut off."""
    return new == old.to_integral_value(rounding="ROUND_DOWN") or (
        _exponent(new) > _exponent(old) and new == old.quantize(new, rounding="ROUND_DOWN")
    )


def first(seen: Seen) -> Level:
    """Return the level of a value that nothing came before."""
    return Level(seen.value, seen.arrival, seen.clock, is_first=True)


def _follow(memory: RegisterMemory, level: Level, seen: Seen) -> None:
    if seen.value > level.value or (seen.value < level.value and not is_coarser(level.value, seen.value)):
        level = Level(seen.value, seen.arrival, seen.clock)
    memory.level, memory.candidate = level, None


def _most_rise(level: Level, seen: Seen, rules: Rules) -> Decimal | None:
    """Return how much the register can have risen; None if that is not known, as when the clock was set back."""
    if rules.most_per_hour is None:
        return None
    passed = seen.arrival - level.seen
    if seen.clock is not None and level.seen_clock is not None:
        passed = max(passed, seen.clock - level.seen_clock)
    if passed < timedelta():
        return None
    if level.is_first:
        passed += UNKNOWN_SINCE
    hours = Decimal(int((passed + CLOCK_TOLERANCE).total_seconds()) + 1) / _SECONDS_PER_HOUR
    return rules.most_per_hour * hours + max(_grain(level.value), _grain(seen.value))


def _grain(value: Decimal) -> Decimal:
    """Return how coarse a value may be: the place of its last digit that is not 0, at most 1."""
    if value == value.to_integral_value():
        return Decimal(1)
    return Decimal(1).scaleb(_exponent(value.normalize()))


def _is_scaled(small: Decimal, large: Decimal, *, falls: bool = False) -> bool:
    """Return whether one is the other in a unit of a thousandth or a millionth, give or take what was used since."""
    if large < small * _LEAST_SCALE or min(small, large) * (_SCALES[0] if falls else 1) < _LEAST_SCALED:
        return False
    for scale in _SCALES:
        ratio = large / (small * scale)
        if falls:
            ratio = 1 / ratio
        if 1 / _SCALED_CUT <= ratio <= _SCALED_RISE:
            return True
    return False


def _has_rolled_over(old: Decimal, new: Decimal, most: Decimal | None) -> bool:
    limit = Decimal(1).scaleb(old.adjusted() + 1)
    if old < _LEAST_SCALED or old < limit * (1 - 10 * _NEAR_LIMIT):
        return False
    wrapped = limit - old + new
    return wrapped <= limit * _NEAR_LIMIT if most is None else wrapped <= most


def _exponent(value: Decimal) -> int:
    return int(value.as_tuple().exponent)
