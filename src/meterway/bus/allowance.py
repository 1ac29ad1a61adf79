"""How much each user may publish: a token bucket for each, which is empty after a flood and fills with time."""

import math
from collections import OrderedDict

LIMIT_USERS = 65_536
"""Remembered at a time; the one that published nothing for longest is forgotten, and is then full again."""
BURST_S = 10.0
"""A full bucket holds what the user may publish in this time."""
MESSAGE_BYTES = 8192
"""A longer message costs as much as several."""


class Allowance:
    """What is left to each user. ``now_s`` is any clock that goes forward."""

    def __init__(self) -> None:
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def spend(self, user: str, per_s: float, messages: int, size_bytes: int, now_s: float) -> bool:
        """Take what ``user`` published; False if that was more than it had."""
        left = self._now(user, per_s, now_s) - messages - size_bytes / MESSAGE_BYTES
        self._left[user] = (max(left, -BURST_S * per_s), now_s)
        self._left.move_to_end(user)
        if len(self._left) > LIMIT_USERS:
            self._left.popitem(last=False)
        return left >= 0

    def wait_s(self, user: str, per_s: float, now_s: float) -> int:
        """Return after how long a user who had spent everything is let in again; 0: now.

        Not before half of a bucket is there, else it would be thrown out every second.
        """
        left, since_s = self._left.get(user, (math.inf, now_s))
        if left >= 0:
            return 0
        missing = BURST_S * per_s / 2 - (left + (now_s - since_s) * per_s)
        return max(0, math.ceil(missing / per_s))

    def _now(self, user: str, per_s: float, now_s: float) -> float:
        left, since_s = self._left.get(user, (math.inf, now_s))
        return min(BURST_S * per_s, left + (now_s - since_s) * per_s)
