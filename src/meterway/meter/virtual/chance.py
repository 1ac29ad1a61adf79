"""Seeded chance: the same words give the same bytes, on every machine and in every version of Python."""

from hashlib import shake_128


def chance_bytes(size: int, *words: str | int) -> bytes:
    """Return ``size`` bytes that depend on ``words`` and on nothing else, each value equally likely."""
    return shake_128("/".join(map(str, words)).encode()).digest(size)


def chance(limit: int, *words: str | int) -> int:
    """Return a whole number from 0 to ``limit - 1`` that depends on ``words`` and on nothing else."""
    return int.from_bytes(chance_bytes(8, *words), "big") % limit
