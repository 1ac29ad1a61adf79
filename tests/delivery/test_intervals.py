from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterway.core.errors import BadDataError
from meterway.delivery.intervals import Intervals, decode

Pairs = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda pair: (pair[0], pair[0] + pair[1])))


def filled(pairs: list[tuple[int, int]]) -> Intervals:
    intervals = Intervals()
    for start, end in pairs:
        intervals.add(start, end)
    return intervals


@given(Pairs)
def test_intervals_are_a_set_of_numbers(pairs: list[tuple[int, int]]) -> None:
    intervals, model = Intervals(), set[int]()
    for start, end in pairs:
        assert intervals.add(start, end) == len(set(range(start, end)) - model)
        model |= set(range(start, end))
        kept = list(intervals)
        assert {number for low, high in kept for number in range(low, high)} == model
        assert all(a[1] < b[0] for a, b in pairwise(kept))
    assert intervals.end == max(model, default=-1) + 1
    for number in range(75):
        assert (number in intervals) == (number in model)
        assert intervals.first_missing(number) == next(n for n in range(number, 200) if n not in model)
        assert intervals.covers(number, number + 3) == ({number, number + 1, number + 2} <= model)


@given(Pairs)
def test_intervals_survive_the_round_trip(pairs: list[tuple[int, int]]) -> None:
    intervals = filled(pairs)
    assert list(decode(intervals.encode(1000))) == list(intervals) == list(intervals.copy())


def test_only_the_first_intervals_are_encoded_at_the_bound() -> None:
    assert list(decode(filled([(0, 1), (2, 3), (4, 5)]).encode(2))) == [(0, 1), (2, 3)]


def test_the_oldest_intervals_are_forgotten_at_the_bound() -> None:
    intervals = filled([(0, 1), (2, 3), (4, 5)])
    assert intervals.keep_last(2) == 1
    assert list(intervals) == [(2, 3), (4, 5)]
    assert intervals.keep_last(2) == 0


def test_cut_or_altered_bytes_are_refused() -> None:
    data = filled([(0, 5), (7, 9)]).encode(10)
    for cut in range(len(data)):
        with pytest.raises(BadDataError, match="the record of what is done is cut or altered"):
            decode(data[:cut])
    for at in range(len(data)):
        with pytest.raises(BadDataError):
            decode(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
