"""The protocol of delivery, checked by hypothesis: adapter, concentrator, cloud and brokers die between any two steps.

Promised, whatever happens before (docs/delivery.md): once kills end, all that was acknowledged to the meter is stored
once and unaltered; numbers have no gap and are never used twice; spools delete only what is confirmed; all is bounded.

`METERWAY_MODEL_EXAMPLES=5000` looks longer, and elsewhere each time.
"""

import os
import tempfile
from collections import Counter
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from meterway.core import receipts, wire
from meterway.core.topics import receipt_topic
from support.protocol import (
    CONCENTRATOR_ID,
    METERS,
    RELAY,
    SPOOL,
    Adapter,
    Breakage,
    Broker,
    Cloud,
    Concentrator,
    Process,
    Receiver,
)

EXAMPLES = int(os.environ.get("METERWAY_MODEL_EXAMPLES", "0"))
SETTINGS = settings(
    max_examples=EXAMPLES or 40,
    stateful_step_count=40,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
ROUNDS = 300
"""So many turns are enough for all that can wait in two spools."""

MEMORY = Path("/dev/shm")  # noqa: S108 - only where to make a folder of the test's own

HOPS = st.sampled_from(["edge", "cloud"])
FATES = st.sampled_from(["once", "twice", "later", "lost"])
NAMES = ["adapter", "concentrator", "ingest", "edge", "cloud"]
VICTIMS = st.sampled_from([*({name} for name in NAMES), {"concentrator", "edge"}, {"ingest", "cloud"}, set(NAMES)])
"""Processes, and the brokers of the hops; one, both on a machine, or all."""
COUNTS = st.integers(1, 12)
PLACES = st.integers(0, 30)
TORN = st.sampled_from([b"", b"\x00", b"torn", b"\xff" * 700])


class Chain(RuleBasedStateMachine):
    """Meter → adapter → broker → concentrator → broker → cloud."""

    breakage = Breakage()

    def __init__(self) -> None:
        super().__init__()
        place = MEMORY if MEMORY.is_dir() else None
        self.folder = tempfile.TemporaryDirectory(dir=place, prefix="meterway-model-")
        directory = Path(self.folder.name)
        self.brokers = {"edge": Broker(), "cloud": Broker()}
        self.adapter = Adapter(directory / "adapter", self.brokers["edge"], self.breakage)
        self.concentrator = Concentrator(
            directory / "concentrator", self.brokers["edge"], self.brokers["cloud"], self.breakage
        )
        self.cloud = Cloud(self.brokers["cloud"], self.breakage)

    def sender(self, hop: str) -> Process:
        return self.adapter if hop == "edge" else self.concentrator.process

    def receiver(self, hop: str) -> Receiver:
        return self.concentrator if hop == "edge" else self.cloud

    @initialize()
    def begin(self) -> None:
        self.read(METERS[0], 4, committed=True)

    @rule(meter_id=st.sampled_from(METERS), count=COUNTS, committed=st.booleans())
    def read(self, meter_id: str, count: int, *, committed: bool) -> None:
        for _ in range(count):
            self.adapter.read(meter_id)
        if committed:
            self.adapter.commit()

    @rule(hop=HOPS)
    def broker_acknowledges(self, hop: str) -> None:
        self.sender(hop).bus.acknowledge()

    @rule(hop=HOPS, first=PLACES, count=st.integers(0, 8), steps=st.integers(0, 3))
    def receive(self, hop: str, first: int, count: int, steps: int) -> None:
        """In any order, and again what was not acknowledged; then as many steps as there is time for."""
        receiver, waiting = self.receiver(hop), self.brokers[hop].waiting
        for place in range(first, first + count) if waiting else ():
            receiver.take(waiting[place % len(waiting)])
        for step in (receiver.commit, receiver.acknowledge, receiver.confirm)[:steps]:
            step()

    @rule(hop=HOPS, fates=st.lists(FATES, max_size=6), after_s=st.sampled_from([None, 0.0, 1.1, 31.0, 700.0]))
    def send(self, hop: str, fates: list[str], after_s: float | None) -> None:
        """Receipts come; after some time, if any is left, the relay has its turn."""
        waiting = self.brokers[hop].receipts
        for fate in fates[: len(waiting)]:
            receipt = waiting.pop(0)
            if fate == "later":
                waiting.append(receipt)
            for _ in range({"once": 1, "twice": 2}.get(fate, 0)):
                self.take_receipt(hop, receipt.payload)
        if after_s is not None:
            self.sender(hop).send(after_s)

    def take_receipt(self, hop: str, payload: bytes) -> None:
        assert set(receipts.decode(payload)) <= self.receiver(hop).durable, "confirmed, and not committed"
        self.sender(hop).relay.on_receipt(payload)

    @rule(victims=VICTIMS, torn=TORN, kept=st.sets(PLACES))
    def kill(self, victims: set[str], torn: bytes, kept: set[int]) -> None:
        """One or several at once; a write of a spool may be torn, a broker keeps some of what it has acknowledged."""
        for hop in victims & self.brokers.keys():
            self.brokers[hop].kill(kept.__contains__)
        if "adapter" in victims:
            self.adapter.kill(torn)
        if "concentrator" in victims:
            self.concentrator.kill(torn)
        if "ingest" in victims:
            self.cloud.forget()

    @invariant()
    def everything_is_bounded(self) -> None:
        for hop in self.brokers:
            stored, sent = self.sender(hop).spool.stats(), self.sender(hop).relay.stats()
            assert sent.in_flight <= RELAY.in_flight
            assert sent.in_flight_bytes <= RELAY.in_flight_bytes + 1024
            assert stored.size_bytes <= SPOOL.limit_bytes + SPOOL.segment_bytes

    @invariant()
    def nothing_is_stored_twice_or_kept_aside(self) -> None:
        numbers = self.cloud.stored.numbers
        assert max(Counter(numbers).values(), default=1) == 1
        assert self.cloud.stored.aside == 0

    def teardown(self) -> None:
        try:
            self.end_well()
        finally:
            for hop in self.brokers:
                self.sender(hop).stop()
                self.receiver(hop).stop()
            self.folder.cleanup()

    def end_well(self) -> None:
        """All die once more, the brokers with all they had; then meters go on and nothing fails any more."""
        if not self.adapter.waits_for_disk:
            self.adapter.send(1.1)
        self.adapter.kill()
        self.concentrator.kill()
        self.cloud.forget()
        for broker in self.brokers.values():
            broker.kill(lambda _place: False)
        for meter_id in METERS:
            self.adapter.read(meter_id)
        self.adapter.commit()
        for _ in range(ROUNDS):
            for hop in self.brokers:
                self.pass_on(hop)
            if not any(self.sender(hop).spool.pending for hop in self.brokers):
                break
        else:
            pytest.fail("the spools are not empty, though nothing fails any more")
        self.check_what_is_stored()

    @rule(hop=HOPS)
    def pass_on(self, hop: str) -> None:
        """All of a hop in good order: so that what comes after many steps is looked at too."""
        sender, receiver, broker = self.sender(hop), self.receiver(hop), self.brokers[hop]
        sender.send(1.1)
        sender.bus.acknowledge()
        for message in list(broker.waiting):
            receiver.take(message)
        receiver.commit()
        receiver.acknowledge()
        receiver.confirm()
        for topic, payload in broker.receipts:
            assert hop == "edge" or topic == receipt_topic(CONCENTRATOR_ID)
            self.take_receipt(hop, payload)
        broker.receipts.clear()

    def check_what_is_stored(self) -> None:
        stored = self.cloud.stored
        for reading in self.adapter.acknowledged:
            payload = stored.readings.get((reading.meter_id, reading.reading_time, reading.identifier))
            assert payload == wire.encode(reading), "acknowledged, and lost or altered"
        self.nothing_is_stored_twice_or_kept_aside()
        for meter_id, group in groupby(sorted(stored.numbers), key=lambda pair: pair[0]):
            numbers = [number for _, number in group]
            assert numbers == list(range(1, len(numbers) + 1)), f"the numbers of {meter_id} have a gap"


@pytest.mark.timeout(0 if EXAMPLES else 120)
def test_nothing_is_lost_doubled_or_altered_whatever_dies_between_any_two_steps() -> None:
    run_state_machine_as_test(Chain, settings=SETTINGS)


@pytest.mark.parametrize("name", Breakage.__dataclass_fields__)
def test_the_model_finds_what_is_broken_on_purpose(name: str) -> None:
    class Broken(Chain):
        breakage = Breakage(**{name: True})

    enough = settings(SETTINGS, max_examples=300, phases=[Phase.generate], derandomize=True)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Broken, settings=enough)
