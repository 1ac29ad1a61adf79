"""Ciphered pushes: keys, tags, wrong keys told from damage, replays, downgrades; and the files that keys come in."""

from pathlib import Path

import pytest
from dlms_cosem import security as oracle
from hypothesis import given
from hypothesis import strategies as st

from meterway.core.errors import SetupError
from meterway.meter.codec import CodecError
from meterway.meter.dlms import LIMIT_BYTES
from meterway.meter.dlms_mbus import encode_frames
from meterway.meter.dlms_security import Opener, SealedError, read_sealed, seal
from meterway.meter.keys import NO_KEYS, Keys, load_keys, parse_keys
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.encode_dlms import encode_hdlc
from meterway.testing import check_codec
from support.dlms import KEYS, TITLE, decode, decoder, kinds, one, push, sealed

ENCRYPTION_ONLY = Keys(KEYS.encryption)
OTHER = Keys(bytes(16), KEYS.authentication)


@pytest.mark.parametrize("control", [0x30, 0x31])
@pytest.mark.parametrize("general", [0xDB, 0xDC])
def test_tag_that_holds_makes_a_telegram_verified(control: int, general: int) -> None:
    telegram = one(encode_hdlc(sealed(1, control=control, general=general)), KEYS)
    assert (telegram.checked, telegram.verified, telegram.meter) == (True, True, "1MWY0000000042")


def test_tag_is_a_checksum_where_the_frame_has_a_weak_one_or_none() -> None:
    for data in (encode_frames(sealed(1)), sealed(1)):
        telegram = one(data, KEYS)
        assert (telegram.checked, telegram.verified) == (True, True)


@pytest.mark.parametrize("control", [0x20, 0x21])
def test_telegram_without_a_tag_is_not_verified(control: int) -> None:
    telegram = one(encode_hdlc(sealed(1, keys=ENCRYPTION_ONLY, control=control)), KEYS)
    assert (telegram.checked, telegram.verified) == (True, False)
    assert not one(encode_frames(sealed(1, control=control)), KEYS).checked


def test_without_the_authentication_key_a_telegram_is_read_and_not_verified() -> None:
    telegram = one(encode_hdlc(sealed(1)), ENCRYPTION_ONLY)
    assert (telegram.checked, telegram.verified) == (True, False)


def test_tag_over_the_ciphertext_alone_is_understood() -> None:
    assert one(encode_hdlc(sealed(1, keys=ENCRYPTION_ONLY)), ENCRYPTION_ONLY).verified


def test_authenticated_only_is_read() -> None:
    assert one(encode_hdlc(sealed(1, control=0x10)), KEYS).verified
    assert not one(encode_hdlc(sealed(1, control=0x10)), ENCRYPTION_ONLY).verified


def test_service_specific_ciphering_takes_the_title_that_was_named_before() -> None:
    general = sealed(2)
    service = b"\xca" + general[10:]
    assert kinds(decode(encode_hdlc(service), KEYS)) == ["encrypted"]
    assert kinds(decode(encode_hdlc(sealed(1)) + encode_hdlc(service), KEYS)) == ["12345678"] * 2


@pytest.mark.parametrize(
    ("keys", "reason", "message"),
    [
        (NO_KEYS, "encrypted", "ask the grid operator for the key of this meter"),
        (OTHER, "bad-key", "the key does not fit"),
        (Keys(OTHER.encryption), "bad-key", "the key does not fit"),
        (Keys(KEYS.encryption, bytes(16)), "bad-key", "the encryption key fits, but not the authentication key"),
    ],
)
def test_keys_that_do_not_fit_say_which(keys: Keys, reason: str, message: str) -> None:
    data = encode_hdlc(sealed(1))
    [error] = decode(data, keys)
    assert isinstance(error, CodecError)
    assert error.reason == reason
    assert message in str(error)
    assert error.data == data[:-1]


def test_damage_is_told_from_a_wrong_key_once_the_key_has_fitted() -> None:
    damaged = bytearray(sealed(2))
    damaged[40] ^= 1
    frames = encode_frames(sealed(1)) + encode_frames(bytes(damaged)) + encode_frames(sealed(3))
    assert kinds(decode(frames, KEYS)) == ["12345678", "bad-checksum", "12345678"]


@pytest.mark.parametrize("control", [0x22, 0x00, 0xB0])
def test_ciphering_that_is_not_known_is_named(control: int) -> None:
    data = bytearray(sealed(1))
    length_at = data.index(TITLE) + len(TITLE)
    data[length_at + (1 if data[length_at] < 0x80 else 2)] = control
    [error] = decode(encode_hdlc(bytes(data)), KEYS)
    assert isinstance(error, CodecError)
    assert str(error) == f"security control byte {control:02x} names no known ciphering"


def test_counter_must_rise() -> None:
    made = decoder(KEYS)
    got = [kinds(made.feed(encode_hdlc(sealed(counter)), 0.0))[0] for counter in (5, 6, 6, 5, 7, 1 << 31, 8)]
    assert got == ["12345678", "12345678", "replayed", "replayed", "12345678", "12345678", "replayed"]


def test_counter_is_each_meters_own() -> None:
    other = seal(push(), title=b"MWY\0\0\0\0\1", counter=1, keys=KEYS)
    assert kinds(decode(encode_hdlc(sealed(5)) + encode_hdlc(other), KEYS)) == ["12345678"] * 2


def test_what_makes_no_sense_does_not_move_the_counter() -> None:
    nonsense = seal(push()[:20] + b"\xff" * 30, title=TITLE, counter=1 << 31, keys=KEYS)
    assert kinds(decode(encode_hdlc(nonsense) + encode_hdlc(sealed(1)), KEYS)) == ["bad-syntax", "12345678"]


def test_meters_that_are_remembered_are_bounded() -> None:
    made = decoder(KEYS)
    got = [
        kinds(made.feed(encode_hdlc(seal(push(), title=number.to_bytes(8, "big"), counter=1, keys=KEYS)), 0.0))[0]
        for number in range(66)
    ]
    assert got == ["12345678"] * 64 + ["replayed"] * 2


def test_plain_telegram_after_an_encrypted_one_is_refused() -> None:
    assert kinds(decode(encode_hdlc(push()) + encode_hdlc(sealed(1)) + encode_hdlc(push()), KEYS)) == [
        "12345678",
        "12345678",
        "downgraded",
    ]


def test_plain_telegram_proves_nothing_where_there_is_a_key() -> None:
    """Not even before the first encrypted one: after a restart nothing is remembered."""
    for keys, verified in ((KEYS, False), (ENCRYPTION_ONLY, False), (NO_KEYS, True)):
        [telegram] = decode(encode_hdlc(push()), keys)
        assert isinstance(telegram, Telegram)
        assert telegram.verified is verified


def test_telegram_without_tag_after_a_verified_one_is_refused() -> None:
    frames = encode_hdlc(sealed(1)) + encode_hdlc(sealed(2, control=0x20)) + encode_hdlc(sealed(3))
    assert kinds(decode(frames, KEYS)) == ["12345678", "downgraded", "12345678"]


def test_what_anybody_can_write_is_refused_after_an_encrypted_telegram() -> None:
    """Authenticated only, with a tag that cannot be tested without the authentication key: no key is needed for it."""
    forged = encode_hdlc(seal(push(), title=TITLE, counter=2, keys=Keys(bytes(16), bytes(16)), control=0x10))
    frames = encode_hdlc(sealed(1)) + forged + encode_hdlc(sealed(3))
    assert kinds(decode(frames, ENCRYPTION_ONLY)) == ["12345678", "downgraded", "12345678"]


def test_a_forged_counter_does_not_lock_the_meter_out() -> None:
    forged = seal(push(), title=TITLE, counter=0xFFFFFFFF, keys=Keys(bytes(16), bytes(16)), control=0x10)
    frames = encode_hdlc(forged) + encode_hdlc(sealed(1)) + encode_hdlc(sealed(2))
    assert kinds(decode(frames, ENCRYPTION_ONLY)) == ["12345678"] * 3


@pytest.mark.parametrize("keys", [KEYS, ENCRYPTION_ONLY])
def test_ciphered_push_passes_the_gate(keys: Keys) -> None:
    for data, checked in ((encode_hdlc(sealed(1), most_bytes=60), True), (encode_frames(sealed(1)), keys is KEYS)):
        report = check_codec(lambda: decoder(keys, accept_repeats=True), data, limit_bytes=LIMIT_BYTES, rounds=40)
        assert (report.telegrams, report.checked) == (1, checked)


def test_every_cut_of_a_ciphered_apdu_is_an_error() -> None:
    whole = sealed(1)
    for end in range(1, len(whole)):
        assert all(isinstance(item, CodecError) for item in decode(encode_hdlc(whole[:end]), KEYS))


@given(st.binary(max_size=60), st.integers(0, 2**32 - 1), st.sampled_from([0x10, 0x20, 0x30, 0x31]))
def test_what_is_sealed_is_opened(plaintext: bytes, counter: int, control: int) -> None:
    apdu = seal(plaintext, title=TITLE, counter=counter, keys=KEYS, control=control)
    opened = Opener(KEYS).open(read_sealed(apdu), lambda _: True)
    assert opened == (plaintext, bool(control & 0x10))


@given(st.binary(min_size=1, max_size=60), st.integers(0, 2**32 - 1))
def test_dlms_cosem_opens_what_is_sealed(plaintext: bytes, counter: int) -> None:
    found = read_sealed(seal(plaintext, title=TITLE, counter=counter, keys=KEYS))
    control = oracle.SecurityControlField.from_bytes(bytes((found.control,)))
    assert KEYS.encryption is not None
    assert KEYS.authentication is not None
    theirs = oracle.decrypt(control, TITLE, counter, KEYS.encryption, found.content, KEYS.authentication)
    assert theirs == plaintext


@given(st.binary(min_size=16, max_size=16))
def test_any_other_key_is_a_bad_key(key: bytes) -> None:
    if key == KEYS.encryption:
        return
    for keys in (Keys(key), Keys(key, KEYS.authentication)):
        assert not [item for item in decode(encode_hdlc(sealed(1)), keys) if isinstance(item, Telegram)]


def test_a_meter_that_seals_needs_a_key() -> None:
    with pytest.raises(ValueError, match="a meter seals with an encryption key"):
        seal(b"", title=TITLE, counter=1, keys=NO_KEYS)
    with pytest.raises(SealedError, match="ask the grid operator"):
        Opener(NO_KEYS).open(read_sealed(sealed(1)), lambda _: True)


HEX = "000102030405060708090a0b0c0d0e0f"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEX, Keys(bytes(range(16)))),
        (f"# from the operator\n{HEX.upper()}\n\n{HEX}  # authentication\n", Keys(bytes(range(16)), bytes(range(16)))),
        (" ".join(HEX[place : place + 2] for place in range(0, 32, 2)) + "\r\n", Keys(bytes(range(16)))),
        ("00010203-04050607-08090a0b-0c0d0e0f", Keys(bytes(range(16)))),
    ],
)
def test_key_file_is_read_in_the_forms_that_operators_write(text: str, expected: Keys) -> None:
    assert parse_keys(text, where="k") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "k: has 0 keys"),
        (f"{HEX}\n" * 3, "k: has 3 keys"),
        (HEX[:-1], "k: key 1 has 31 characters; a key is 32 hexadecimal digits"),
        (f"{HEX}\nsecret", "k: key 2 has 6 characters; a key is 32 hexadecimal digits"),
    ],
)
def test_wrong_key_file_says_what_is_wrong_and_quotes_nothing(text: str, message: str) -> None:
    with pytest.raises(SetupError) as caught:
        parse_keys(text, where="k")
    assert str(caught.value).startswith(message)
    assert "secret" not in str(caught.value)
    assert HEX[:8] not in str(caught.value)


def test_keys_are_never_shown() -> None:
    assert repr(KEYS) == str(KEYS) == "Keys()"


def test_keys_come_from_one_file_or_two(tmp_path: Path) -> None:
    both, first, second = tmp_path / "both", tmp_path / "first", tmp_path / "second"
    both.write_text(f"{HEX}\n{'00' * 16}\n")
    first.write_text(HEX)
    second.write_text("11" * 16)
    assert load_keys(None) == NO_KEYS
    assert load_keys(both) == Keys(bytes(range(16)), bytes(16))
    assert load_keys(first, second) == Keys(bytes(range(16)), b"\x11" * 16)
    with pytest.raises(SetupError, match="the key file cannot be read: No such file"):
        load_keys(tmp_path / "none")
    with pytest.raises(SetupError, match="of no use without an encryption key"):
        load_keys(None, second)
