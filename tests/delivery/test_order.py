"""Each message leaves the spool once, whatever overtakes; a disk and a memory of the test's own stand behind it."""

from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meterway.delivery import fresh, order
from meterway.delivery.order import Order
from meterway.delivery.record import Record

STEPS = st.lists(
    st.tuples(st.sampled_from(["store", "fail", "take", "newest"]), st.integers(min_value=1, max_value=8)), max_size=60
)
LIMIT_BYTES = 10_000


def record(number: int) -> Record:
    return Record(number, "status" if number % 5 == 0 else "readings", b"." * 100, 0, b"", 0)


def may_overtake(topic: str) -> bool:
    return topic == "readings"


class Line:
    """An ``Order`` with its disk."""

    def __init__(self) -> None:
        self.order = Order()
        self.disk: list[int] = []
        self.next = 0
        self.given: list[int] = []
        self.in_line: list[int] = []

    def store(self, count: int) -> None:
        numbers = range(self.next, self.next + count)
        self.next += count
        self.disk += numbers
        self.order.extend([record(number) for number in numbers])

    def fail(self, count: int) -> None:
        self.next += count
        self.order.skip(self.next)

    def take(self, count: int) -> None:
        if self.order.has_backlog:
            skip = self.order.overtaken()
            found = [number for number in self.disk if number >= self.order.cursor and number not in skip][:count]
            self.order.read_up_to(found[-1] + 1 if found else self.next)
        else:
            found = numbers(self.order.take(count, LIMIT_BYTES))
        self.given += found
        self.in_line += found

    def newest(self, count: int) -> None:
        self.given += numbers(self.order.take_newest(count, LIMIT_BYTES, may_overtake))


def numbers(records: Iterable[Record]) -> list[int]:
    return [each.number for each in records]


@given(STEPS)
@example(
    [("store", 1), ("store", 1), ("store", 1), ("store", 8), ("newest", 5), ("store", 1), ("store", 5), ("newest", 4)]
)
def test_each_message_is_given_out_once_and_those_in_line_oldest_first(steps: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fresh, "LIMIT_FRESH_BYTES", 900)
        patch.setattr(order, "LIMIT_OVERTAKEN", 3)
        line = Line()
        for name, count in steps:
            getattr(line, name)(count)
            assert len(line.order.overtaken()) <= 3
            assert line.order._fresh._size_bytes <= 900
        while len(line.given) < len(line.disk):
            line.take(4)
        assert sorted(line.given) == line.disk
        assert line.in_line == sorted(line.in_line)


def test_only_what_may_overtake_does_and_only_where_there_is_a_backlog() -> None:
    line = Line()
    line.store(20)
    line.newest(5)
    assert line.given == []
    line.order = Order(cursor=0, end=20)
    line.store(8)
    line.newest(5)
    assert line.given == [21, 22, 23, 24]
    line.take(40)
    assert line.in_line == [*range(21), 25, 26, 27]
