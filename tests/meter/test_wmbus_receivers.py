"""What receivers of wireless M-Bus put around frames: found, checked, damaged, and how they are told to listen."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterway.core.errors import SetupError
from meterway.meter.codec import CodecError
from meterway.meter.crc import crc16_x25
from meterway.meter.recognise import recognise
from meterway.meter.virtual import encode_wmbus as radio
from meterway.meter.wmbus import LIMIT_BYTES
from meterway.meter.wmbus_frames import FRAME_BYTES, crc16_en13757, open_checked, open_stripped, size_a
from meterway.meter.wmbus_receivers import RECEIVERS, Framer, Heard, start_bytes
from meterway.testing import check_codec
from support.wmbus import KEY, RECORDS, WATER, decoder, kinds

CONTENT = radio.linked(WATER, radio.mode_5(WATER, RECORDS, key=KEY, access=7))
FRAMINGS = {
    "im871a": radio.im871a(CONTENT, time_ms=1_000_000, rssi=0x6B),
    "im871a-short": radio.im871a(CONTENT),
    "amber": radio.amber(CONTENT),
    "amber-rssi": radio.amber(CONTENT, rssi=0x8F),
    "cul-a": radio.cul(radio.format_a(CONTENT)),
    "cul-b": radio.cul(radio.format_b(CONTENT), is_b=True),
    "cul-rssi": radio.cul(radio.format_a(CONTENT), quality=b"\x30\x6b"),
    "rtl_wmbus": radio.rtl_wmbus(CONTENT),
    "hex": radio.hex_line(CONTENT),
    "bare": radio.bare(CONTENT),
    "bare-a": radio.format_a(CONTENT),
    "bare-b": radio.format_b(CONTENT),
}
UNCHECKED = {"hex", "bare"}
WEAK = {"amber", "amber-rssi", "rtl_wmbus"}
"""Eight bits of checksum, or none on the line though the radio's held."""
BARE = {"bare", "bare-a", "bare-b"}


def heard(data: bytes, quirks: tuple[str, ...] = ()) -> list[Heard | CodecError]:
    framer = Framer(quirks)
    return [*framer.feed(data), *framer.flush()]


def test_checksum_is_that_of_the_catalogue() -> None:
    assert crc16_en13757(b"123456789") == 0xC2B7


@pytest.mark.parametrize("name", FRAMINGS)
def test_framing_is_found_without_being_named(name: str) -> None:
    data = FRAMINGS[name]
    for size in (1, 7, len(data)):
        made = decoder()
        items = [item for at in range(0, len(data), size) for item in made.feed(data[at : at + size], 0.0)]
        [telegram] = items + made.idle(0.0)
        assert not isinstance(telegram, CodecError), telegram
        assert str(telegram.registers[0].value) == "1234.567"
        assert telegram.raw == data.rstrip(b"\r\n")
        assert telegram.checked == (name not in UNCHECKED)
        assert made.skipped_bytes == 0


@pytest.mark.parametrize("name", FRAMINGS)
def test_framing_is_recognised_as_wireless_mbus(name: str) -> None:
    found = recognise(FRAMINGS[name])
    assert found is not None
    assert found.protocol == "wmbus"


@pytest.mark.parametrize("name", FRAMINGS)
def test_other_framings_are_not_looked_for_where_a_quirk_names_one(name: str) -> None:
    named = name.split("-", maxsplit=1)[0]
    assert [type(item) for item in heard(FRAMINGS[name], (named,))] == [Heard]
    other = "cul" if named != "cul" else "im871a"
    assert heard(FRAMINGS[name], (other,)) == []


@pytest.mark.parametrize("name", sorted(FRAMINGS.keys() - BARE))
def test_framing_passes_the_gate(name: str) -> None:
    report = check_codec(
        lambda: decoder(accept_repeats=True),
        FRAMINGS[name],
        limit_bytes=LIMIT_BYTES,
        rounds=20,
        weak_checksum=name in WEAK,
    )
    assert (report.telegrams, report.errors) == (1, 0)


@pytest.mark.parametrize("name", sorted(BARE))
def test_bare_frames_one_after_the_other_are_all_read(name: str) -> None:
    frame = FRAMINGS[name]
    assert kinds(decoder().feed(frame * 5, 0.0)) == ["1234.567"] * 5
    made = decoder()
    items = [*made.feed(frame[:20], 0.0), *made.idle(0.1), *made.feed(frame * 2, 0.2)]
    assert kinds(items) == ["truncated", "1234.567", "1234.567"]


@pytest.mark.parametrize("name", sorted(BARE))
def test_bare_frames_after_noise_are_found_after_a_pause_or_by_the_quirk(name: str) -> None:
    frame, noise = FRAMINGS[name], b"\x00\x11\x22\x33" * 3
    made = decoder()
    assert kinds(made.feed(noise, 0.0) + made.idle(0.1) + made.feed(frame, 0.2)) == ["1234.567"]
    assert kinds(decoder(quirk="bare").feed(noise + frame + b"\x8f" + frame, 0.0)) == ["1234.567"] * 2


def test_damage_to_one_bit_is_noticed_where_there_is_a_checksum() -> None:
    for name in FRAMINGS.keys() - UNCHECKED - BARE - {"rtl_wmbus"}:
        data = FRAMINGS[name]
        for place in range(8 * len(data.rstrip(b"\r\n"))):
            spoilt = bytearray(data)
            spoilt[place // 8] ^= 1 << place % 8
            good = [item for item in heard(bytes(spoilt)) if isinstance(item, Heard)]
            assert all(item.content[: len(CONTENT)] == CONTENT for item in good), (name, place)


@pytest.mark.parametrize(
    ("data", "reason", "message"),
    [
        (FRAMINGS["im871a"][:-1] + b"\x00", "bad-checksum", "the iM871A's message of 41 bytes fails its checksum"),
        (FRAMINGS["amber"][:-1] + b"\x00\x00", "bad-checksum", "the Amber's message of 34 bytes fails its checksum"),
        (FRAMINGS["cul-a"][:-4] + b"00\r\n", "bad-checksum", "the CUL's frame of 37 bytes fails a checksum"),
        (FRAMINGS["cul-a"][:61] + b"\r\n", "truncated", "the CUL's line has 30 bytes, which is no frame"),
        (
            radio.rtl_wmbus(CONTENT, holds=False),
            "bad-checksum",
            "rtl_wmbus heard a frame that fails its checksum",
        ),
        (
            FRAMINGS["rtl_wmbus"][:-3] + b"\n",
            "truncated",
            "rtl_wmbus wrote 60 hexadecimal digits, which is no frame",
        ),
        (FRAMINGS["im871a"][:30], "truncated", "a receiver's message of 41 bytes broke off after 30"),
    ],
)
def test_what_cannot_be_used_says_why(data: bytes, reason: str, message: str) -> None:
    [item] = heard(data)
    assert isinstance(item, CodecError)
    assert (item.reason, str(item)) == (reason, message)


@settings(max_examples=60)
@given(st.binary(min_size=10, max_size=255))
def test_both_formats_give_back_what_was_put_in(content: bytes) -> None:
    frame = radio.format_a(content)
    assert len(frame) == size_a(len(content)) <= FRAME_BYTES
    assert open_checked(frame) == content
    assert open_checked(frame + b"\x01\x02") == content
    assert open_stripped(radio.bare(content)) == content
    if len(content) <= 251:
        assert open_checked(radio.format_b(content)) == content


def test_long_frame_of_format_b_has_two_checksums() -> None:
    for size in (124, 125, 126, 251):
        frame = radio.format_b(bytes(size))
        assert frame[0] == len(frame) - 1
        assert len(frame) - size - 1 == (2 if size <= 125 else 4)
        assert open_checked(frame) == bytes(size)
    with pytest.raises(OverflowError):
        radio.format_b(bytes(252))


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from([*FRAMINGS.values(), b"\xa5\x82\x03\xff\x44", b"\xff\x03\xff\x44", b"bFF44", b"0" * 700]),
        ),
        max_size=12,
    )
)
def test_any_bytes_raise_nothing_and_stay_bounded(parts: list[bytes]) -> None:
    for quirk in ("", "bare", "hex"):
        made = decoder(quirk=quirk)
        for part in parts:
            made.feed(part, 0.0)
            assert made.buffered_bytes <= LIMIT_BYTES
        made.idle(0.0)
        assert made.buffered_bytes == 0


def test_line_without_end_stays_bounded() -> None:
    made = decoder()
    for _ in range(300):
        made.feed(b"b2C44" + b"0123456789ABCDEF" * 4, 0.0)
        assert made.buffered_bytes <= LIMIT_BYTES
    assert kinds(made.feed(b"\r\n" + FRAMINGS["cul-a"], 0.0))[-1] == "1234.567"


def test_quirks_are_names_of_framings_and_one_at_a_time() -> None:
    with pytest.raises(SetupError, match="knows no quirk `cull`; known are amber, bare, cul"):
        Framer(("cull",))
    with pytest.raises(SetupError, match="name one quirk, or none"):
        Framer(("cul", "bare"))


def test_receivers_are_told_to_listen() -> None:
    assert start_bytes("cul", "T") == b"X21\r\nbrt\r\n"
    assert start_bytes("cul", "C") == b"X21\r\nbrc\r\n"
    assert start_bytes("amber", "CT") == bytes.fromhex("ff040109f3")
    message = start_bytes("im871a", "C")
    assert message[:-2] == bytes.fromhex("a581030600020630 0100".replace(" ", ""))
    assert crc16_x25(message[1:-2]) == int.from_bytes(message[-2:], "little")
    assert start_bytes("rc1180") == start_bytes("rtl_wmbus", "C") == b""
    with pytest.raises(SetupError, match="no receiver `stick` is known; there are cul, im871a, amber"):
        start_bytes("stick")
    with pytest.raises(SetupError, match="IMST iM871A-USB has no mode `CT`; it has T, C, S"):
        start_bytes("im871a", "CT")
    assert all(receiver.baud > 0 and receiver.title for receiver in RECEIVERS.values())
