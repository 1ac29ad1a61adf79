"""The pulses of a load, and the bytes by which they show on a line.

for instant_s in pulse_instants(lambda s: household.electricity(s).import_ws, WS_PER_KWH // 1000, begin_s, end_s):
    feed(encode_burst(bounces=2), instant_s)
"""

from collections.abc import Callable, Iterator
from typing import Final

WS_PER_KWH: Final = 3_600_000
_NOISE: Final = b"\x00\x80\xfc\xff\xf0"


def pulse_instants(register: Callable[[int], int], per_pulse: int, begin_s: int, end_s: int) -> Iterator[float]:
    """Yield when ``register`` (of whole Ws or ml, at a Unix time) passes a multiple of ``per_pulse``.

    From ``begin_s`` up to ``end_s``; in a second the register rises evenly.
    """
    before = register(begin_s)
    for second in range(begin_s, end_s):
        after = register(second + 1)
        for pulse in range(before // per_pulse + 1, after // per_pulse + 1):
            yield second + (pulse * per_pulse - before) / (after - before)
        before = after


def encode_burst(*, bounces: int = 0) -> bytes:
    """Return what a pulse leaves at a serial port: a break, and the bytes that a bouncing contact adds."""
    return b"\x00" + bytes(_NOISE[index % len(_NOISE)] for index in range(bounces))


def encode_count(count: int) -> bytes:
    """Return the line in which a microcontroller says how many pulses it has counted."""
    return b"%d\r\n" % count
