"""How many faults of one meter are published: a line that is all noise must not fill spool and store. Pure."""

from typing import Final

FAULT_BURST: Final = 20
FAULT_INTERVAL_S: Final = 10.0


class FaultBudget:
    """``FAULT_BURST`` faults at once, then one every ``FAULT_INTERVAL_S``."""

    def __init__(self, now: float) -> None:
        self._left = float(FAULT_BURST)
        self._time = now

    def spend(self, now: float) -> bool:
        """Return whether one more fault may be published, and count it."""
        self._left = min(FAULT_BURST, self._left + (now - self._time) / FAULT_INTERVAL_S)
        self._time = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
