"""The relay's bookkeeping against a model, with a broker that loses and a sender that crashes between any two steps."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from meterway.core.receipts import digest
from meterway.delivery.flight import PROBE_ITEMS, Flight
from meterway.delivery.record import Record

RETRY_S = 10.0
LIMIT_ITEMS = 8


def flight(limit_items: int = 1000, limit_bytes: int = 10**6) -> Flight:
    return Flight(limit_items=limit_items, limit_bytes=limit_bytes, retry_s=RETRY_S, retry_limit_s=40.0)


def add(target: Flight, number: int, payload: bytes = b"") -> bytes:
    record = Record(number, "t", payload or b"%d" % number, 0)
    target.add(record, digest(record.topic, record.payload))
    return digest(record.topic, record.payload)


def send_all(target: Flight, now_s: float) -> list[int]:
    sent = []
    while (flying := target.next()) is not None:
        sent.append(flying.record.number)
        target.sent(flying, now_s)
    return sent


def test_messages_are_sent_oldest_first_and_once() -> None:
    target = flight()
    for number in range(5):
        add(target, number)
    assert send_all(target, 0) == [0, 1, 2, 3, 4]
    assert target.retry(RETRY_S - 0.1) == 0
    assert send_all(target, 1) == []


def test_what_is_not_confirmed_in_time_is_sent_again_with_growing_pauses() -> None:
    target = flight()
    add(target, 0)
    send_all(target, 0)
    sent_at = []
    for second in range(150):
        if target.retry(second):
            send_all(target, second)
            sent_at.append(second)
    assert sent_at == [10, 30, 70, 110]


def test_while_the_receiver_is_away_only_a_few_are_repeated_and_all_have_time_again_when_it_is_back() -> None:
    target = flight()
    digests = [add(target, number) for number in range(100)]
    send_all(target, 0)
    assert target.retry(10) == PROBE_ITEMS
    assert send_all(target, 10) == list(range(PROBE_ITEMS))
    assert target.confirm(digests[50], 12) == 50
    assert target.retry(21.9) == 0
    assert target.retry(22) == 99 - PROBE_ITEMS
    send_all(target, 22)
    assert target.retry(29) == 0
    assert target.retry(30) == PROBE_ITEMS


def test_after_a_reconnect_everything_unconfirmed_is_sent_at_once_in_order() -> None:
    target = flight()
    digests = [add(target, number) for number in range(6)]
    send_all(target, 0)
    target.confirm(digests[2], 1)
    add(target, 6)
    target.retry_all()
    assert send_all(target, 2) == [0, 1, 3, 4, 5, 6]


def test_a_receipt_finishes_the_oldest_sent_of_identical_messages() -> None:
    target = flight()
    same = add(target, 0, b"same")
    add(target, 1, b"same")
    add(target, 2, b"same")
    assert target.confirm(same, 0) is None, "nothing was sent yet"
    send_all(target, 0)
    assert [target.confirm(same, 0) for _ in range(4)] == [0, 1, 2, None]
    assert len(target) == target.size_bytes == 0


def test_a_message_confirmed_while_it_waits_to_be_repeated_is_not_repeated() -> None:
    target = flight()
    first, _ = add(target, 0), add(target, 1)
    send_all(target, 0)
    target.retry_all()
    assert target.confirm(first, 1) == 0
    assert send_all(target, 1) == [1]


def test_a_message_that_no_broker_takes_is_forgotten() -> None:
    target = flight()
    add(target, 0)
    add(target, 1)
    flying = target.next()
    assert flying is not None
    target.drop(flying)
    assert send_all(target, 0) == [1]


class Hop(RuleBasedStateMachine):
    """A sender with a durable spool, a wire that loses and repeats, a receiver that confirms what it has."""

    @initialize(limit_bytes=st.integers(1, 40))
    def begin(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.now_s = 0.0
        self.pending: dict[int, bytes] = {}
        self.received: list[bytes] = []
        self.receipts: list[bytes] = []
        self.wire: list[bytes] = []
        self.next_number = 0
        self.appended: list[bytes] = []
        self.crash()

    @rule()
    def crash(self) -> None:
        """The sender starts anew: of its memory nothing is left but the spool."""
        self.flight = Flight(
            limit_items=LIMIT_ITEMS, limit_bytes=self.limit_bytes, retry_s=RETRY_S, retry_limit_s=4 * RETRY_S
        )
        self.cursor = 0

    @rule(payload=st.sampled_from([b"a", b"b", b"long payload"]))
    def append(self, payload: bytes) -> None:
        self.pending[self.next_number] = payload
        self.appended.append(payload)
        self.next_number += 1

    @rule()
    def load(self) -> None:
        for number in sorted(self.pending):
            if number >= self.cursor and self.flight.room_items and self.flight.room_bytes:
                self.flight.add(Record(number, "t", self.pending[number], 0), digest("t", self.pending[number]))
                self.cursor = number + 1

    @rule(arrives=st.booleans())
    def send(self, arrives: bool) -> None:
        flying = self.flight.next()
        if flying is not None:
            self.flight.sent(flying, self.now_s)
            if arrives:
                self.wire.append(flying.record.payload)

    @precondition(lambda self: self.wire)
    @rule(data=st.data(), again=st.booleans(), confirms=st.booleans())
    def receive(self, data: st.DataObject, again: bool, confirms: bool) -> None:
        at = data.draw(st.integers(0, len(self.wire) - 1))
        payload = self.wire[at] if again else self.wire.pop(at)
        self.received.append(payload)
        if confirms:
            self.receipts.append(digest("t", payload))

    @precondition(lambda self: self.receipts)
    @rule(data=st.data(), again=st.booleans())
    def confirm(self, data: st.DataObject, again: bool) -> None:
        at = data.draw(st.integers(0, len(self.receipts) - 1))
        position = self.flight.confirm(self.receipts[at], self.now_s)
        if not again:
            del self.receipts[at]
        if position is not None:
            del self.pending[position]

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.flight.retry(self.now_s)

    @rule()
    def reconnect(self) -> None:
        self.wire.clear()
        self.flight.retry_all()

    @invariant()
    def nothing_is_done_that_did_not_arrive(self) -> None:
        for payload in set(self.appended):
            waiting = sum(each == payload for each in self.pending.values())
            assert waiting == self.appended.count(payload) or payload in self.received

    @invariant()
    def bounds_hold(self) -> None:
        assert len(self.flight) <= LIMIT_ITEMS
        assert self.flight.size_bytes < self.limit_bytes + len(b"long payload")
        assert set(self.flight._by_position) <= set(self.pending)

    def teardown(self) -> None:
        """Once nothing is lost any more, everything is finished within a few rounds."""
        for _ in range(2 * len(self.pending) + 2):
            self.load()
            self.now_s += 1000
            self.flight.retry(self.now_s)
            while (flying := self.flight.next()) is not None:
                self.flight.sent(flying, self.now_s)
                self.received.append(flying.record.payload)
                self.receipts.append(digest("t", flying.record.payload))
            for each in self.receipts:
                position = self.flight.confirm(each, self.now_s)
                if position is not None:
                    del self.pending[position]
            self.receipts.clear()
        assert not self.pending
        assert set(self.appended) <= set(self.received)


TestHop = Hop.TestCase
TestHop.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
