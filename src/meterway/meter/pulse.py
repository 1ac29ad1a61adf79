"""Pulses: a meter that says nothing but "one more", at an S0 output (EN 62053-31) or a reed contact.

Two ways in:

    burst    the output pulls the receive line of a serial port low: each pulse is seen as a break, which arrives as
             one or several bytes of any value. Bytes after a silence of ``debounce_s`` are a new pulse; those that
             follow nearer are the same pulse bouncing.
    lines    a microcontroller counts, and sends its count as a line of digits, as often as it likes:
             ``1234`` LF. A count is used when the next one confirms it (not less, and no more than pulses can come in
             between), so a damaged digit counts nothing. A smaller confirmed count means that the microcontroller was
             started anew; then all of it is new.

What is lost: pulses nearer to each other than the reader looks (bursts that pile up in a gateway are one); pulses
while nobody reads (``burst``), or before the microcontroller was started anew (``lines``). What is counted too much:
interference. So the register is worth what the wiring is worth; hold it against the meter's dial now and then.

The decoder makes a telegram every ``interval_s``, with the register and, where the family names one, the power or flow
between the last pulses. It knows no disk: ``adapter.pulse_counter`` keeps the count.
"""

from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from typing import Final

from meterway.core.obis import Obis
from meterway.meter.codec import CodecError
from meterway.meter.pulse_input import PulseInput
from meterway.meter.telegram import Register, Telegram

PROTOCOL: Final = "pulse"

LIMIT_BYTES: Final = 32
"""The longest line; more bytes without a line end are noise."""
_LIMIT_DIGITS: Final = 15
_MOST_DECIMALS: Final = 6
_RATE_STEP: Final = Decimal("0.001")
_SECONDS_PER_HOUR: Final = 3600

Items = list[Telegram | CodecError]


@dataclass(frozen=True, slots=True)
class PulseState:
    """What must survive a restart."""

    count: int = 0
    """Pulses since the start value was read off the meter."""
    line_count: int | None = None
    """What the microcontroller said last; None if there is none."""


class PulseDecoder:
    """Bytes in, telegrams with a register out (see ``Decoder``).

    Its telegrams are ``checked``: the register is our own, and no bit of it came over the line.
    """

    def __init__(self, pulse: PulseInput, *, interval_s: float, start: Decimal = Decimal(0)) -> None:
        """``start`` is what the meter's dial showed when the count was 0."""
        self.skipped_bytes = 0
        self.state = PulseState()
        """May be set before the first byte."""
        self._pulse = pulse
        self._interval_s = interval_s
        self._start = start
        self._per_unit = Decimal(pulse.pulses_per_unit)
        self._step = _step(self._per_unit)
        self._due: float | None = None
        self._last_byte = float("-inf")
        self._line = bytearray()
        self._is_noise = False
        """Whether what comes up to the next line end is the rest of a line that was too long."""
        self._waiting: tuple[int, float] | None = None
        """A count that is not confirmed yet, and when it came."""
        self._rate = _Rate()

    @property
    def buffered_bytes(self) -> int:
        """See ``Decoder``; never more than ``LIMIT_BYTES``."""
        return len(self._line)

    def feed(self, data: bytes, now: float) -> Items:
        """Take the next bytes, which arrived at ``now`` (monotonic, in seconds); return what they completed."""
        errors: Items = []
        if self._pulse.signal == "lines":
            errors += self._lines(data, now)
        elif data:
            if now - self._last_byte >= self._pulse.debounce_s:
                self._count(1, now)
            else:
                self.skipped_bytes += len(data)
            self._last_byte = now
        return [*errors, *self.idle(now)]

    def idle(self, now: float) -> Items:
        """Tell the time; return a telegram if one is due."""
        if self._due is None:
            self._due = now + self._interval_s
        if now < self._due:
            return []
        self._due += self._interval_s * ((now - self._due) // self._interval_s + 1)
        return [Telegram(PROTOCOL, tuple(self._registers(now)), b"")]

    def _registers(self, now: float) -> list[Register]:
        counted = (self.state.count / self._per_unit).quantize(self._step, rounding=ROUND_DOWN)
        found = [Register(Obis.parse(self._pulse.obis), self._start + counted, self._pulse.unit)]
        if self._pulse.rate_obis and (per_s := self._rate.per_s(now)) is not None:
            rate = (Decimal(per_s) * _SECONDS_PER_HOUR / self._per_unit).quantize(_RATE_STEP)
            found.append(Register(Obis.parse(self._pulse.rate_obis), rate, self._pulse.rate_unit))
        return found

    def _count(self, pulses: int, now: float) -> None:
        self.state = PulseState(self.state.count + pulses, self.state.line_count)
        self._rate.add(pulses, now)

    def _lines(self, data: bytes, now: float) -> Items:
        errors: Items = []
        self._line += data
        *lines, rest = bytes(self._line).split(b"\n")
        for line in lines:
            digits = line.strip()
            if self._is_noise:
                self.skipped_bytes += len(line)
                self._is_noise = False
            elif digits.isdigit() and len(digits) <= _LIMIT_DIGITS:
                errors += self._said(int(digits), now)
            elif digits:
                self.skipped_bytes += len(line)
        if len(rest) > LIMIT_BYTES:
            self.skipped_bytes += len(rest)
            self._is_noise, rest = True, b""
        self._line[:] = rest
        return errors

    def _said(self, count: int, now: float) -> Items:
        """Take a count of the microcontroller; the one before it is used if this one confirms it."""
        waiting, self._waiting = self._waiting, (count, now)
        if waiting is None:
            return []
        earlier, then = waiting
        most = int((now - then) / self._pulse.debounce_s) + 1
        if not 0 <= count - earlier <= most:
            text = f"a count of {earlier} pulses is followed by {count} after {now - then:.1f} s; it is not used"
            return [CodecError(text, reason="bad-syntax", data=b"%d\n%d\n" % (earlier, count))]
        last = self.state.line_count
        new = 0 if last is None else earlier - last if earlier >= last else earlier
        self.state = PulseState(self.state.count, earlier)
        if new:
            self._count(new, then)
        return []


@dataclass(slots=True)
class _Rate:
    """How many pulses come in a second, from the distance between them."""

    first: float | None = None
    """The pulse from which it is measured."""
    last: float = 0.0
    pulses: int = 0
    """Since ``first``."""
    distance_s: float | None = None
    """The mean distance when it was asked for last."""

    def add(self, pulses: int, now: float) -> None:
        if self.first is None:
            self.first = self.last = now
        else:
            self.last = now
            self.pulses += pulses

    def per_s(self, now: float) -> float | None:
        """Return the rate since it was asked for last; while none comes it falls. None before the second pulse."""
        if self.first is None:
            return None
        if self.pulses and self.last > self.first:
            self.distance_s = (self.last - self.first) / self.pulses
            self.first, self.pulses = self.last, 0
        return None if self.distance_s is None else 1 / max(self.distance_s, now - self.last)


def _step(per_unit: Decimal) -> Decimal:
    """Return the place to which the register is stated: exact where a pulse has few decimals."""
    for decimals in range(_MOST_DECIMALS):
        if (10**decimals / per_unit) % 1 == 0:
            return Decimal(1).scaleb(-decimals)
    return Decimal(1).scaleb(-_MOST_DECIMALS)
