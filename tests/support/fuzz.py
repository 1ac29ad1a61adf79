"""How much ``tests/fuzz`` tries: little and always the same in a suite, much and ever new in ``make fuzz``."""

import os
from random import Random
from typing import Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

MINUTES: Final = float(os.environ.get("METERWAY_FUZZ_MINUTES", "0"))
"""0 in a suite."""

SEED: Final = Random().getrandbits(32) if MINUTES else 4

fuzzing = settings(
    max_examples=round(20_000 * MINUTES) if MINUTES else 60,
    derandomize=not MINUTES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

_PLACES = st.integers(0, 2**16)
_EDITS = st.tuples(st.sampled_from(("put", "insert", "cut", "repeat")), _PLACES, st.binary(min_size=1, max_size=8))
_NASTY: Final = (
    b"[" * 2_000,
    b'{"a":' * 2_000,
    b'"\\ud800"',
    b'"\\u0000"',
    b"\xed\xa0\x80",
    b"1e999999999",
    b"-0",
    b"9" * 400,
    b"NaN",
    b'{"a":1,"a":2}',
    b"null",
    b'"' + b"x" * 5_000 + b'"',
)


def damaged(*seeds: bytes) -> st.SearchStrategy[bytes]:
    """Return bytes that were good once: changed here and there, cut, repeated, with something nasty put in a place."""
    good = st.sampled_from(seeds)
    return st.one_of(
        st.builds(_edited, good, st.lists(_EDITS, min_size=1, max_size=4)),
        st.builds(_replaced, good, _PLACES, st.sampled_from(_NASTY)),
        st.binary(max_size=200),
        good,
    )


def damaged_text(*seeds: str) -> st.SearchStrategy[str]:
    """Return text that was good once, or anything; what is no UTF-8 was replaced where it was decoded."""
    return st.one_of(
        damaged(*(seed.encode() for seed in seeds)).map(lambda data: data.decode(errors="replace")),
        st.text(max_size=200),
    )


def _edited(data: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    for how, place, piece in edits:
        at = place % (len(data) + 1)
        if how == "put":
            data = data[:at] + piece + data[at + len(piece) :]
        elif how == "insert":
            data = data[:at] + piece + data[at:]
        elif how == "cut":
            data = data[:at] + data[at + len(piece) :]
        else:
            data = data[:at] + data[at : at + len(piece)] * 3 + data[at:]
    return data


def _replaced(data: bytes, place: int, nasty: bytes) -> bytes:
    """Put something nasty in place of one value of a JSON text."""
    starts = [at + 1 for at, byte in enumerate(data) if byte in b":,["] or [0]
    start = starts[place % len(starts)]
    ends = [at for at, byte in enumerate(data) if byte in b",}]" and at >= start] or [len(data)]
    return data[:start] + nasty + data[ends[0] :]
