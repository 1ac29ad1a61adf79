"""How often the same thing is logged: what comes from outside must not fill a disk."""

import time

BURST = 20
INTERVAL_S = 10.0


class Throttle:
    """Lets ``BURST`` through at once, then one every ``INTERVAL_S``."""

    def __init__(self) -> None:
        self._left = float(BURST)
        self._time = time.monotonic()
        self.held_back = 0
        """How many were not let through so far."""

    def allow(self) -> bool:
        now = time.monotonic()
        self._left = min(BURST, self._left + (now - self._time) / INTERVAL_S)
        self._time = now
        if self._left < 1:
            self.held_back += 1
            return False
        self._left -= 1
        return True
