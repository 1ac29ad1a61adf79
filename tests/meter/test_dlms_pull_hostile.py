"""A DLMS meter that lies, drips, repeats or never ends: bounded memory, no exception, and always an end."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterway.core.errors import SetupError, TransientError
from meterway.meter import axdr_write as write
from meterway.meter.dlms_access import Entries, Objects
from meterway.meter.dlms_apdu import Answer, Get, Got, GotBlock, Request, Unserved, encode_answer
from meterway.meter.dlms_ask import DlmsAsk
from meterway.meter.dlms_client import LIMIT_VALUE_BYTES
from meterway.meter.dlms_hdlc import RR, HdlcLine, client_address, server_address
from meterway.meter.dlms_line import LIMIT_APDU_BYTES, Broken, WrapperLine, wrap
from meterway.meter.dlms_master import DlmsMaster
from meterway.meter.hdlc import encode_frame
from meterway.meter.master import Deadline, Done, Steps
from meterway.meter.virtual.answer_dlms import AnsweringDlmsMeter
from meterway.meter.virtual.dlms_session import ServerSession
from meterway.meter.virtual.dlms_side import DlmsSide, Rows
from support.dlms_wire import COLUMNS, IMPORT, KEYS, LOAD, NOON, SIDE, DlmsWire, ask, master, rows, written
from support.iec_wire import Outcome

SOCKET = replace(SIDE, transport="wrapper")
ASK_SOCKET = DlmsAsk(transport="wrapper")
IMPORT_ONLY = Objects(((IMPORT, 3),))


def lying(answer: Callable[[Request, int], Answer], side: DlmsSide = SOCKET, asked: DlmsAsk = ASK_SOCKET) -> Outcome:
    """Ask for a register of a meter that answers gets, but for that of its name, with what ``answer`` makes up."""
    meter = AnsweringDlmsMeter(side)
    obey = meter.session._obey
    count = 0

    def lie(request: Request) -> Answer:
        nonlocal count
        if isinstance(request, Get) and request.attribute.obis != IMPORT:
            return obey(request)
        count += 1
        return answer(request, count)

    meter.session._obey = lie  # type: ignore[method-assign]
    return DlmsWire(meter, chunk_bytes=1 << 16).run(master(asked, IMPORT_ONLY))


def error(outcome: Outcome, kind: type[Exception]) -> str:
    assert outcome.telegrams == []
    assert outcome.done is not None
    assert isinstance(outcome.done.error, kind), outcome.done
    return str(outcome.done.error)


def test_endless_blocks_end() -> None:
    outcome = lying(lambda request, count: GotBlock(request.invoke, is_last=False, number=count, data=bytes(60_000)))
    assert error(outcome, SetupError).startswith(
        f"an answer is longer than {LIMIT_VALUE_BYTES} bytes; ask for fewer rows"
    )


def test_empty_blocks_end() -> None:
    outcome = lying(lambda request, count: GotBlock(request.invoke, is_last=False, number=count, data=b""))
    assert error(outcome, TransientError) == "block 2 of an answer is empty, and more are to follow (2 attempts)"


@pytest.mark.parametrize("number", [1, 5, 0])
def test_blocks_out_of_order_are_no_value(number: int) -> None:
    outcome = lying(
        lambda request, count: GotBlock(request.invoke, is_last=False, number=1 if count % 2 else number, data=b"\x06")
    )
    assert error(outcome, TransientError).startswith(f"block {number} of an answer came after block 1")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x01\x01" * 2000, "too-deep"),
        (b"\x01\x82\xff\xff\x06", "truncated"),
        (b"\x09\x84\xff\xff\xff\xff", "bad-syntax"),
        (b"\x06\0\0\0\1\0", "bad-syntax"),
        (b"\x13\x02\x03", "bad-syntax"),
        (b"", "bad-syntax"),
    ],
)
def test_values_that_are_none_are_reported(data: bytes, reason: str) -> None:
    outcome = lying(lambda request, _: Got(request.invoke, data), replace(SOCKET, has_lists=False))
    assert error(outcome, SetupError).startswith("none of 1 objects can be read as this client")
    reasons = {each.reason for each in outcome.errors}
    assert reasons & {reason, "bad-syntax"}


def test_a_meter_that_serves_nothing_is_told() -> None:
    outcome = lying(lambda *_: Unserved(1, 2))
    assert error(outcome, SetupError).endswith("service not allowed, service not supported")


def test_answers_to_other_questions_are_passed_over_but_not_for_ever() -> None:
    meter = AnsweringDlmsMeter(SOCKET)
    other = wrap(encode_answer(Got(0xC9, b"\x11\x05")), source=1, destination=16)
    pushed = wrap(b"\x0f\0\0\0\1\0\x11\x01", source=1, destination=16)

    def talk_besides(data: bytes) -> bytes:
        return pushed + other + data

    outcome = DlmsWire(meter, damage=talk_besides).run(master(ASK_SOCKET, IMPORT_ONLY))
    assert written(outcome.telegrams[0]) == [("1-0:1.8.0", "1234567", "Wh")]
    again = DlmsWire(AnsweringDlmsMeter(SOCKET), damage=lambda data: data if data[8] == 0x61 else other * 10).run(
        master(ASK_SOCKET, IMPORT_ONLY)
    )
    assert error(again, TransientError).startswith("the meter answers other questions than the one that was asked")


def test_a_plain_answer_in_a_ciphered_association_is_refused() -> None:
    side = replace(SOCKET, client=1, security="gmac", keys=KEYS, is_ciphered=True)
    asked = DlmsAsk(transport="wrapper", client=1, security="gmac", ciphered=True)
    plain = wrap(encode_answer(Got(0xC2, b"\x11\x05")), source=1, destination=1)

    def downgrade(data: bytes) -> bytes:
        return plain if data[8] == 0xCC else data

    outcome = ask(side, asked, IMPORT_ONLY, wire={"damage": downgrade}, keys=KEYS)
    assert "a plain answer came in a ciphered association" in error(outcome, TransientError)
    assert {each.reason for each in outcome.errors} == {"downgraded"}


def test_a_sealed_answer_that_comes_twice_is_refused() -> None:
    side = replace(SOCKET, client=1, security="gmac", keys=KEYS, is_ciphered=True)
    asked = DlmsAsk(transport="wrapper", client=1, security="gmac", ciphered=True)
    first: list[bytes] = []

    def replay(data: bytes) -> bytes:
        if data[8] == 0xCC:
            first.append(data)
            return first[0]
        return data

    outcome = ask(side, asked, IMPORT_ONLY, wire={"damage": replay}, keys=KEYS, attempts=1)
    assert "a replay, or a meter set back" in error(outcome, TransientError)
    assert {each.reason for each in outcome.errors} == {"replayed"}


def test_a_meter_that_says_our_own_challenge_is_not_believed() -> None:
    side = replace(SIDE, client=1, security="gmac", keys=KEYS, challenge=Random(1).randbytes(16))
    said = error(ask(side, DlmsAsk(client=1, security="gmac"), keys=KEYS), SetupError)
    assert said == "the meter makes no challenge of its own, so it cannot be trusted to have the keys"


def connected_line() -> HdlcLine:
    line = HdlcLine(client_address(16), server_address(1, None, 1))
    line.connect()
    line.feed(frame(0x73))
    line.send(b"request")
    return line


def frame(control: int, information: bytes = b"", *, segmented: bool = False) -> bytes:
    return encode_frame(information, destination=b"\x21", source=b"\x03", control=control, segmented=segmented)


def test_endless_segments_break_the_connection() -> None:
    line = connected_line()
    most = 0
    for number in range(1000):
        events = line.feed(frame(0x10 | (number % 8) << 1 | 1 << 5, bytes(2000), segmented=True))
        most = max(most, line.buffered_bytes)
        if any(isinstance(event, Broken) for event in events):
            break
    else:
        pytest.fail("it goes on for ever")
    assert most < 3 * LIMIT_APDU_BYTES + 4096


@pytest.mark.parametrize("control", [RR | 0 << 5, RR | 1 << 5, 0x10 | 3 << 1 | 1 << 5])
def test_frames_that_bring_nothing_break_the_connection(control: int) -> None:
    line = connected_line()
    data = frame(control, b"stale" if not control & 1 else b"")
    events = [event for _ in range(80) for event in line.feed(data)]
    assert any(isinstance(event, Broken) for event in events)


def drip(asking: DlmsMaster, data: bytes, *, limit: int = 5000) -> Done:
    """Feed one byte a second."""
    steps: Steps = asking.start(0.0)
    for second in range(limit):
        byte = data[second % len(data) : second % len(data) + 1]
        steps = asking.feed(byte, float(second))
        for step in steps:
            if isinstance(step, Done):
                return step
    raise AssertionError("it goes on for ever")


@pytest.mark.parametrize("transport", ["hdlc", "wrapper"])
def test_a_slow_drip_ends_with_the_session(transport: str) -> None:
    asking = master(DlmsAsk(transport=transport), session_s=900.0)  # type: ignore[arg-type]
    begun = b"\x7e\xa7\xff\x21\x03\x73" if transport == "hdlc" else b"\0\1\0\1\0\x10\xff\xff"
    done = drip(asking, begun + bytes(10_000))
    assert str(done.error) == "the session was not over after 900 s"
    assert asking.feed(b"1", 1e6) == []
    assert asking.on_timeout(1e6) == []


def test_noise_does_not_put_the_deadline_off() -> None:
    asking = master()
    asking.start(0.0)
    assert asking.feed(b"\x55" * 1000, 1.0) == []
    assert any(isinstance(step, Deadline) for step in asking.feed(b"\x7e\xa0", 2.0))


@given(
    chunks=st.lists(st.binary(max_size=200), max_size=40),
    transport=st.sampled_from(["hdlc", "wrapper"]),
    optical=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_any_bytes_come_to_an_end(chunks: list[bytes], transport: str, optical: bool) -> None:
    asking = master(DlmsAsk(transport=transport, optical=optical and transport == "hdlc"))  # type: ignore[arg-type]
    now = 0.0
    steps = asking.start(now)
    for chunk in chunks:
        now += 0.1
        steps = asking.feed(chunk, now)
    for _ in range(100):
        if any(isinstance(step, Done) for step in steps):
            return
        now += 10.0
        steps = asking.on_timeout(now)
    raise AssertionError("it goes on for ever")


@given(seed=st.integers(0, 2**32), share=st.floats(0.0005, 0.05))
@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize("transport", ["hdlc", "wrapper"])
def test_turned_bits_come_to_an_end_and_over_hdlc_to_no_wrong_value(transport: str, seed: int, share: float) -> None:
    random = Random(seed)

    def damage(data: bytes) -> bytes:
        return bytes(byte ^ (1 << random.randrange(8) if random.random() < share else 0) for byte in data)

    side = replace(SIDE, transport=transport)  # type: ignore[arg-type]
    outcome = ask(side, DlmsAsk(transport=transport), IMPORT_ONLY, wire={"damage": damage}, session_s=300.0)  # type: ignore[arg-type]
    assert outcome.done is not None
    if transport == "hdlc":
        for telegram in outcome.telegrams:
            assert written(telegram) == [("1-0:1.8.0", "1234567", "Wh")]


@pytest.mark.parametrize("data", [b"\0\1\0\1\0\x10\xff\xff" + bytes(70_000), bytes(300_000), b"\0\1" * 100_000])
def test_the_wrapper_keeps_one_apdu(data: bytes) -> None:
    line = WrapperLine(16, 1)
    for start in range(0, len(data), 1000):
        line.feed(data[start : start + 1000])
        assert line.buffered_bytes <= LIMIT_APDU_BYTES + 8
    line.feed(data)
    assert line.buffered_bytes <= LIMIT_APDU_BYTES + 8


def test_noise_before_an_apdu_is_skipped() -> None:
    line = WrapperLine(16, 1)
    [heard] = line.feed(b"\0\1\0\2noise" + wrap(b"hello", source=1, destination=16))
    assert getattr(heard, "apdu", None) == b"hello"
    [swapped] = line.feed(wrap(b"hello", source=16, destination=1))
    assert getattr(swapped, "apdu", None) == b"hello"


@given(apdu=st.binary(max_size=100))
def test_a_virtual_meter_answers_anything(apdu: bytes) -> None:
    session = ServerSession(SIDE)
    session.begin(16)
    assert session.answer(16, apdu)


def test_rows_that_are_none_are_reported() -> None:
    short = (NOON, (write.uint32(1),))
    profile = Rows(columns=COLUMNS, rows=[short, *rows(2)])
    outcome = ask(replace(SIDE, profiles={LOAD: profile}), task=Entries(1, 0))
    assert len(outcome.telegrams) == 2
    assert [str(each) for each in outcome.errors] == ["row 1 of 1-0:99.1.0*255 does not have 3 columns"]
