"""HDLC frames: header, checksums, addresses, and the M-Bus frames that stand beside them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterway.meter import dlms_mbus, hdlc
from meterway.meter.codec import CodecError
from meterway.meter.dlms_transport import LIMIT_FRAME_BYTES, Framed, Framer
from meterway.meter.hdlc import HdlcFrame, Problem, encode_frame, read_frame, read_header

FRAME = encode_frame(b"\xe6\xe7\x00\x0fmeterway", destination=b"\xcf", source=b"\x02\x23")
OTHER = encode_frame(b"\xe6\xe7\x00\x0fanother", destination=b"\x00\x02\x00\x23", source=b"\x13")


def pieces(data: bytes, *, size: int | None = None) -> list[Framed | bytes | CodecError]:
    framer = Framer()
    size = size or len(data) or 1
    found = [piece for at in range(0, len(data), size) for piece in framer.feed(data[at : at + size])]
    return [*found, *framer.flush()]


def frames(data: bytes) -> list[bytes]:
    return [piece.raw for piece in pieces(data) if isinstance(piece, Framed)]


def reasons(data: bytes) -> list[str]:
    return [piece.reason for piece in pieces(data) if isinstance(piece, CodecError)]


def test_frame_has_addresses_control_and_information() -> None:
    frame = read_frame(FRAME, 0)
    assert isinstance(frame, HdlcFrame)
    assert frame.header.destination == b"\xcf"
    assert frame.header.source == b"\x02\x23"
    assert frame.header.control == hdlc.UI
    assert not frame.header.segmented
    assert frame.information == b"\xe6\xe7\x00\x0fmeterway"
    assert frame.header.end == len(FRAME) - 1


@given(
    st.binary(max_size=2030),
    st.sampled_from([b"\x01", b"\x02\x03", b"\x00\x02\x00\x23"]),
    st.booleans(),
    st.integers(0, 255),
)
def test_what_is_encoded_is_read(information: bytes, address: bytes, segmented: bool, control: int) -> None:
    data = encode_frame(information, destination=address, source=b"\x21", control=control, segmented=segmented)
    frame = read_frame(data, 0)
    assert isinstance(frame, HdlcFrame)
    assert frame.information == information
    assert frame.header[:4] == (address, b"\x21", control, segmented)


def test_every_prefix_needs_more() -> None:
    for end in range(1, len(FRAME) - 1):
        assert read_frame(FRAME[:end], 0) is Problem.CUT


def test_wrong_header_is_no_frame_and_wrong_content_is_damage() -> None:
    assert read_header(FRAME.replace(b"\xcf", b"\xcd"), 0) is Problem.NONE
    assert read_frame(FRAME.replace(b"way", b"wax"), 0) is Problem.DAMAGED
    assert read_frame(b"\x7e\x90" + FRAME[2:], 0) is Problem.NONE
    assert read_frame(b"\x7e\xa0\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00", 0) is Problem.NONE


def test_too_much_information_is_refused() -> None:
    with pytest.raises(ValueError, match="2048 bytes do not fit into one HDLC frame"):
        encode_frame(bytes(2048), destination=b"\x01", source=b"\x01")


def test_one_flag_may_close_a_frame_and_open_the_next() -> None:
    assert frames(FRAME[:-1] + OTHER) == frames(FRAME + OTHER) == [FRAME[:-1], OTHER[:-1]]


def test_frame_is_out_before_its_closing_flag_came() -> None:
    assert [piece.raw for piece in Framer().feed(FRAME[:-1]) if isinstance(piece, Framed)] == [FRAME[:-1]]


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_pieces_are_the_same_however_the_bytes_come(size: int) -> None:
    data = b"noise\x7e\x7e" + FRAME + b"\x7e\xa0\x68" + OTHER[:20] + dlms_mbus.encode_frames(b"\x0f" * 300) + OTHER
    assert frames(data) == [piece.raw for piece in pieces(data, size=size) if isinstance(piece, Framed)]
    assert len(frames(data)) == 4


def test_nothing_is_lost() -> None:
    data = b"noise" + FRAME + b"more"
    joined = b"".join(
        piece.raw if isinstance(piece, Framed) else bytes(piece)
        for piece in pieces(data)
        if not isinstance(piece, CodecError)
    )
    assert joined == data


def test_damaged_frame_is_an_error_and_the_next_is_read() -> None:
    damaged = FRAME.replace(b"way", b"wax")
    assert reasons(damaged + OTHER) == ["bad-checksum"]
    assert frames(damaged + OTHER) == [OTHER[:-1]]


def test_cut_frame_is_an_error_at_the_end_and_hides_nothing() -> None:
    assert reasons(FRAME[:-4]) == ["truncated"]
    assert reasons(dlms_mbus.encode_frames(b"\x0f" * 20)[:-3]) == ["truncated"]
    assert frames(FRAME[:12] + OTHER) == [OTHER[:-1]]


@pytest.mark.parametrize("length", [0, 1, 2])
def test_m_bus_length_that_wrapped_at_256_is_understood(length: int) -> None:
    data = dlms_mbus.encode_frames(bytes(range(256 + length - 5)), most_bytes=258)
    assert data[:4] == bytes((0x68, length, length, 0x68))
    frame = dlms_mbus.read_frame(data, 0)
    assert isinstance(frame, dlms_mbus.MbusFrame)
    assert frame.data == bytes(range(256 + length - 5))
    assert (frame.number, frame.last, frame.end) == (0, True, len(data))


def test_m_bus_frame_with_a_wrong_sum_or_without_its_stop_is_damage() -> None:
    data = dlms_mbus.encode_frames(b"\x0f" * 20)
    assert dlms_mbus.read_frame(data[:-2] + bytes((data[-2] ^ 1, 0x16)), 0) is Problem.DAMAGED
    assert dlms_mbus.read_frame(data[:-1] + b"\x17", 0) is Problem.DAMAGED
    assert dlms_mbus.read_frame(b"\x68\x05\x05\x68\x08\x00\x72", 0) is Problem.NONE


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40), st.sampled_from([FRAME, OTHER, b"\x7e\xa7\xff", b"\x68\xff\xff\x68\x53\xff\x00"])
        ),
        max_size=12,
    )
)
def test_hostile_bytes_raise_nothing_and_stay_bounded(parts: list[bytes]) -> None:
    framer = Framer()
    for part in parts:
        list(framer.feed(part))
        assert framer.buffered_bytes <= LIMIT_FRAME_BYTES
    list(framer.flush())
    assert framer.buffered_bytes == 0
