"""How often somebody may try to sign in: after some free tries each failure doubles the pause. Pure.

Bounds: ``LIMIT_KEYS`` accounts and addresses are remembered; beyond, the one whose last failure is longest ago is
forgotten. What failed longer than ``FORGET_S`` ago is forgotten too. An IPv6 address counts as its network of 64 bits:
whoever has one address there has them all.
"""

from dataclasses import dataclass
from ipaddress import IPv6Network, ip_address

LIMIT_KEYS = 20_000
FORGET_S = 3600.0


@dataclass(slots=True)
class _Failures:
    count: int
    last_s: float


class Tries:
    """Of accounts, or of addresses."""

    def __init__(self, *, free: int, longest_s: float) -> None:
        """``free`` tries cost no pause; no pause is longer than ``longest_s``."""
        self._free = free
        self._longest_s = longest_s
        self._failures: dict[str, _Failures] = {}

    def pause_s(self, key: str, now_s: float) -> float:
        """Return how long ``key`` must still wait, in seconds; 0 for not at all."""
        known = self._failures.get(_source(key))
        if known is None or known.count < self._free:
            return 0.0
        pause_s = min(self._longest_s, 2.0 ** min(30, known.count - self._free))
        return max(0.0, known.last_s + pause_s - now_s)

    def failed(self, key: str, now_s: float) -> None:
        """Count a try. Called before the password is checked, so that tries at the same time count as well."""
        key = _source(key)
        known = self._failures.pop(key, None)
        count = 1 if known is None or now_s - known.last_s > FORGET_S else known.count + 1
        self._failures[key] = _Failures(count, now_s)
        if len(self._failures) > LIMIT_KEYS:
            del self._failures[next(iter(self._failures))]

    def succeeded(self, key: str) -> None:
        """Forget the failures."""
        self._failures.pop(_source(key), None)


def _source(key: str) -> str:
    try:
        address = ip_address(key)
    except ValueError:
        return key
    if address.version == 4 or address.ipv4_mapped is not None:  # noqa: PLR2004
        return key
    return str(IPv6Network((int(address), 64), strict=False))
