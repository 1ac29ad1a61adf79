"""SML frames: where they begin and end, what survives damage, and what hostile streams cost."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from meterway.meter.codec import CodecError
from meterway.meter.crc import crc16_x25
from meterway.meter.sml import LIMIT_BYTES, SmlDecoder
from meterway.meter.telegram import Telegram
from meterway.testing import check_codec
from support.sml import (
    ABSENT,
    ENERGY,
    ESCAPE,
    FRAME,
    IMPORT,
    LIST,
    MAKER,
    OTHER,
    POWER,
    START,
    WH,
    decode,
    entry,
    frame,
    get_list,
    integer,
    kinds,
    message,
    octets,
    one,
    sequence,
)


def test_bytes_arrive_one_by_one() -> None:
    decoder = SmlDecoder()
    items = [item for byte in FRAME + OTHER for item in decoder.feed(bytes((byte,)), 0.0)]
    assert kinds(items) == ["1234567.8", "1234568.0"]
    assert (decoder.skipped_bytes, decoder.buffered_bytes) == (0, 0)


def test_noise_between_frames_is_counted() -> None:
    decoder = SmlDecoder()
    items = decoder.feed(b"\x76\x00noise" + FRAME + b"\xff\x76" + OTHER + b"end", 0.0)
    assert kinds(items) == ["1234567.8", "1234568.0"]
    decoder.idle(1.0)
    assert decoder.skipped_bytes == 7 + 2 + 3


@pytest.mark.parametrize("run", range(1, 20))
def test_run_of_1b_before_a_start_does_not_hide_it(run: int) -> None:
    assert kinds(decode(b"\x1b" * run + FRAME)) == ["1234567.8"]
    assert kinds(decode(FRAME[:40] + b"\x1b" * run + FRAME))[-1] == "1234567.8"


def test_cut_frame_does_not_hide_the_next() -> None:
    items = decode(FRAME[:60] + OTHER)
    assert kinds(items) == ["truncated", "1234568.0"]
    [error, _] = items
    assert str(error) == "the SML frame of 60 bytes is cut by the start of the next"
    assert isinstance(error, CodecError)
    assert error.data == FRAME[:60]


def test_bad_checksum_does_not_hide_the_next_frame() -> None:
    bad = bytearray(FRAME)
    bad[FRAME.index(integer(12345678, 8)) + 5] ^= 0x10
    assert kinds(decode(bytes(bad) + OTHER)) == ["bad-checksum", "1234568.0"]


def test_four_bytes_1b_in_a_value_are_doubled_on_the_line() -> None:
    value = int.from_bytes(ESCAPE)
    data = frame(get_list(entry(IMPORT, integer(value, 8), unit=WH)))
    assert data.count(ESCAPE + ESCAPE) == 1
    assert one(data).registers[0].value == value


def test_doubled_1b_before_four_01_is_no_start() -> None:
    data = frame(get_list(entry(IMPORT, integer(int.from_bytes(ESCAPE), 4), unit=WH), entry(POWER, ABSENT)))
    inside = frame(get_list(entry(MAKER, octets(ESCAPE + b"\x01" * 4))))
    assert kinds(decode(data + inside + OTHER)) == ["454761243", "1B1B1B1B01010101", "1234568.0"]


def test_1b_that_was_not_doubled_is_data_if_the_checksum_agrees() -> None:
    content = get_list(entry(MAKER, octets(b"\x1b" * 5 + b"M")))
    data = START + content + bytes(-len(content) % 4) + ESCAPE + bytes((0x1A, -len(content) % 4))
    assert one(data + crc16_x25(data).to_bytes(2, "little")).registers[0].value == "1B1B1B1B1B4D"


@pytest.mark.parametrize("padding", range(8))
def test_padding_of_any_length_is_passed_over(padding: int) -> None:
    assert one(frame(LIST, padding=padding)).registers[0].value == Decimal("1234567.8")


def test_wrong_checksum_of_a_message_does_not_matter_in_a_good_frame() -> None:
    wrong = LIST[:-3] + b"\x00\x00\x00"
    assert one(frame(wrong)).registers[0].value == Decimal("1234567.8")


def test_list_with_a_good_checksum_counts_in_a_frame_without() -> None:
    items = decode(FRAME[:-1] + b"\x00" + OTHER)
    assert kinds(items) == ["bad-checksum", "1234567.8", "1234568.0"]
    assert isinstance(items[1], Telegram)
    assert items[1].raw == LIST
    assert items[1].checked


def test_list_counts_in_a_frame_that_lost_its_end() -> None:
    assert kinds(decode(FRAME[:-9])) == ["truncated", "1234567.8"]


def test_messages_without_frame_are_telegrams() -> None:
    decoder = SmlDecoder()
    items = decoder.feed(b"\x00" + LIST + message(0x0201, sequence(ABSENT)), 0.0) + decoder.idle(1.0)
    assert kinds(items) == ["1234567.8"]
    assert decoder.skipped_bytes == 1 + len(message(0x0201, sequence(ABSENT)))


def test_message_without_frame_needs_its_checksum() -> None:
    assert decode(LIST[:-3] + b"\x00\x00\x00") == []


def test_kermit_checksums_are_understood_if_both_agree() -> None:
    good = frame(get_list(ENERGY, kermit=True), kermit=True)
    assert one(good).registers[0].value == Decimal("1234567.8")
    bad = frame(LIST[:-3] + b"\x00\x00\x00", kermit=True)
    [error] = decode(bad)
    assert isinstance(error, CodecError)
    assert error.reason == "bad-checksum"


def test_endless_frame_costs_bounded_memory() -> None:
    decoder = SmlDecoder()
    items = decoder.feed(START, 0.0)
    for _ in range(40):
        items += decoder.feed(b"\x02" * 700, 0.0)
        assert decoder.buffered_bytes <= LIMIT_BYTES
    assert kinds(items) == ["too-long"]
    assert kinds(decoder.feed(OTHER, 0.0)) == ["1234568.0"]


@pytest.mark.parametrize("size", [64, 1000, 100_000])
def test_frame_beyond_the_limit_is_refused_however_it_is_fed(size: int) -> None:
    long = frame(*[LIST] * (LIMIT_BYTES // len(LIST) + 1)) + OTHER
    decoder = SmlDecoder()
    items = [item for at in range(0, len(long), size) for item in decoder.feed(long[at : at + size], 0.0)]
    errors = [item for item in items if isinstance(item, CodecError)]
    assert [error.reason for error in errors] == ["too-long"]
    assert str(errors[0]) == f"the SML frame of {LIMIT_BYTES} bytes and more is too long"
    assert kinds(items)[-1] == "1234568.0"


@pytest.mark.parametrize(
    "hostile",
    [
        (START + ESCAPE + ESCAPE + b"\x01" * 4) * 3000,
        (b"\x76\x02\x01\x62\x00\x62\x00\x72\x63\x07\x01\x77\x01\x01\x01\x01\xf1\x00" + b"\x77" * 20) * 1500,
        (START + b"\x76" * 40 + ESCAPE + b"\x1a\x00\x00\x00") * 1000,
        START * 8000,
        (ESCAPE + ESCAPE + b"\x01" * 4) * 5000,
    ],
    ids=["literals", "heads", "nested", "starts", "false-starts"],
)
def test_hostile_streams_stay_bounded_and_do_not_hide_a_frame(hostile: bytes) -> None:
    decoder = SmlDecoder()
    for at in range(0, len(hostile), 64):
        decoder.feed(hostile[at : at + 64], 0.0)
        assert decoder.buffered_bytes <= LIMIT_BYTES
    decoder.idle(1.0)
    assert kinds(decoder.feed(FRAME, 2.0)) == ["1234567.8"]


def test_own_telegrams_pass_the_gate() -> None:
    capture = FRAME + b"\x00\x1b" + OTHER + frame(get_list(entry(MAKER, octets(ESCAPE * 3)), ENERGY))
    report = check_codec(SmlDecoder, capture, limit_bytes=LIMIT_BYTES)
    assert (report.telegrams, report.errors, report.checked) == (3, 0, True)


PIECES: SearchStrategy[bytes] = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [START, ESCAPE, b"\x1b", LIST, FRAME, OTHER, FRAME[:50], LIST[:30], b"\x1a\x00", b"\x76" * 40, b"\x76"]
    ),
)


@given(st.lists(PIECES, max_size=30), st.integers(1, 300))
def test_any_bytes_are_taken_without_an_exception_and_within_bounds(pieces: list[bytes], size: int) -> None:
    data = b"".join(pieces)
    decoder = SmlDecoder()
    for at in range(0, len(data), size):
        for item in decoder.feed(data[at : at + size], 0.0):
            assert not isinstance(item, Telegram) or item.registers[0].value in VALUES
        assert decoder.buffered_bytes <= LIMIT_BYTES
    decoder.idle(1.0)
    assert decoder.buffered_bytes == 0
    assert decoder.skipped_bytes <= len(data)
    assert kinds(decoder.feed(FRAME, 2.0)) == ["1234567.8"]


VALUES = (Decimal("1234567.8"), Decimal("1234568.0"))


@given(st.binary(max_size=400))
def test_any_content_of_a_good_frame_is_taken_without_an_exception(content: bytes) -> None:
    items = decode(frame(content) + OTHER)
    assert kinds(items)[-1] == "1234568.0"


@given(st.integers(0, len(LIST) * 8 - 1), st.integers(0, 255))
def test_any_change_of_a_list_in_a_good_frame_is_taken_without_an_exception(bit: int, byte: int) -> None:
    changed = bytearray(LIST)
    changed[bit >> 3] = byte
    assert kinds(decode(frame(bytes(changed)) + OTHER))[-1] == "1234568.0"
