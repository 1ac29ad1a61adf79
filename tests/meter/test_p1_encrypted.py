"""Encrypted P1: telegrams of our own, the capture of the corpus, keys, replays, damage."""

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterway.meter.codec import CodecError
from meterway.meter.crc import crc16_arc
from meterway.meter.dlms_security import seal
from meterway.meter.family import load_family
from meterway.meter.keys import NO_KEYS, Keys
from meterway.meter.p1_encrypted import LIMIT_BYTES, SMARTY_AUTHENTICATION_KEY, EncryptedP1Decoder
from meterway.meter.telegram import Telegram
from meterway.testing import check_codec
from support.corpus import Capture, capture_parameters

VILNIUS = ZoneInfo("Europe/Vilnius")
KEYS = Keys(bytes(range(16)), bytes(range(16, 32)))
EK = Keys(KEYS.encryption)
SMARTY = Keys(KEYS.encryption, SMARTY_AUTHENTICATION_KEY)
TITLE = b"MWYgp\x00\x00\x2a"
LINES = b"0-0:1.0.0(260605130040S)\r\n1-0:1.8.0(001234.567*kWh)\r\n1-0:1.7.0(02.718*kW)\r\n" + b"".join(
    b"1-0:%d.7.0(02.718*kW)\r\n" % group for group in (21, 41, 61)
)


def text(energy: bytes = b"001234.567", identification: bytes = b"/MWY5\\TEST\r\n\r\n") -> bytes:
    body = identification + LINES.replace(b"001234.567", energy) + b"!"
    return body + b"%04X\r\n" % crc16_arc(body)


def frame(counter: int, *, keys: Keys = KEYS, plaintext: bytes | None = None) -> bytes:
    return seal(text() if plaintext is None else plaintext, title=TITLE, counter=counter, keys=keys)


def decoder(keys: Keys = KEYS, *, accept_repeats: bool = False) -> EncryptedP1Decoder:
    return EncryptedP1Decoder(VILNIUS, keys=keys, accept_repeats=accept_repeats)


def decode(data: bytes, keys: Keys = KEYS) -> list[Telegram | CodecError]:
    made = decoder(keys)
    return made.feed(data, 0.0) + made.idle(1.0)


def kinds(items: list[Telegram | CodecError]) -> list[str]:
    return [item.reason if isinstance(item, CodecError) else str(item.registers[1].value) for item in items]


def test_telegram_is_decrypted_and_verified() -> None:
    [telegram] = decode(frame(1))
    assert isinstance(telegram, Telegram)
    assert (telegram.protocol, telegram.meter, telegram.raw) == ("p1-encrypted", "MWY5\\TEST", frame(1))
    assert (telegram.checked, telegram.verified) == (True, True)
    assert str(telegram.registers[1].value) == "1234.567"


@pytest.mark.parametrize(
    ("sealed_with", "opened_with", "verified"),
    [(SMARTY, EK, True), (EK, EK, True), (KEYS, EK, False), (KEYS, KEYS, True), (SMARTY, SMARTY, True)],
)
def test_luxembourgs_key_stands_in_for_a_missing_one(sealed_with: Keys, opened_with: Keys, verified: bool) -> None:
    [telegram] = decode(frame(1, keys=sealed_with), opened_with)
    assert isinstance(telegram, Telegram)
    assert (telegram.checked, telegram.verified) == (True, verified)


def test_identification_in_the_clear_belongs_to_the_telegram() -> None:
    identification = b"/ISK5\\2M550T\r\n\r\n"
    body = LINES + b"!"
    plaintext = body + b"%04X\r\n" % crc16_arc(identification + body)
    data = identification + frame(1, plaintext=plaintext)
    for size in (1, 7, len(data)):
        made = decoder(EK)
        items = [item for at in range(0, len(data), size) for item in made.feed(data[at : at + size], 0.0)]
        [telegram] = items + made.idle(1.0)
        assert isinstance(telegram, Telegram)
        assert (telegram.meter, telegram.checked, telegram.verified) == ("ISK5\\2M550T", True, False)
    [alone] = decode(frame(1, plaintext=plaintext))
    assert isinstance(alone, Telegram)
    assert alone.meter.startswith("MWY5")


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (NO_KEYS, "encrypted"),
        (Keys(bytes(16)), "bad-key"),
        (Keys(bytes(16), KEYS.authentication), "bad-key"),
        (Keys(KEYS.encryption, bytes(16)), "bad-key"),
    ],
)
def test_keys_that_do_not_fit_are_named(keys: Keys, reason: str) -> None:
    [error] = decode(frame(1), keys)
    assert isinstance(error, CodecError)
    assert (error.reason, error.data) == (reason, frame(1))


def test_damage_is_told_from_a_wrong_key_once_the_key_has_fitted() -> None:
    damaged = bytearray(frame(2))
    damaged[90] ^= 1
    assert kinds(decode(frame(1) + damaged + frame(3))) == ["1234.567", "bad-checksum", "1234.567"]
    assert kinds(decode(bytes(damaged) + frame(3), EK)) == ["bad-checksum", "1234.567"]


def test_counter_must_rise_and_plain_text_is_refused_after_ciphertext() -> None:
    assert kinds(decode(frame(2) + frame(2) + frame(1) + frame(3))) == ["1234.567", "replayed", "replayed", "1234.567"]
    assert kinds(decode(text() + frame(1) + text())) == ["1234.567", "1234.567", "downgraded"]
    [plain] = decode(text())
    assert isinstance(plain, Telegram)
    assert not plain.verified


def test_cut_telegram_hides_nothing() -> None:
    assert kinds(decode(frame(1)[:-5])) == ["truncated"]
    assert kinds(decode(frame(1)[:60] + frame(2)))[-1] == "1234.567"


def test_error_inside_is_an_error_of_the_whole() -> None:
    [error] = decode(frame(1, plaintext=b"/MWY5\\TEST\r\n\r\n" + b"0" * 140 + b"\r\n!\r\n"))
    assert isinstance(error, CodecError)
    assert error.data == frame(1, plaintext=b"/MWY5\\TEST\r\n\r\n" + b"0" * 140 + b"\r\n!\r\n")
    assert str(error).startswith("decrypted, ")


@pytest.mark.parametrize("keys", [KEYS, EK])
def test_telegram_passes_the_gate(keys: Keys) -> None:
    report = check_codec(lambda: decoder(keys, accept_repeats=True), frame(1), limit_bytes=LIMIT_BYTES, rounds=60)
    assert (report.telegrams, report.checked) == (1, True)


@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([frame(1), text(), frame(1)[:30], b"\xdb\x08MWY"]))))
def test_any_bytes_raise_nothing_and_stay_bounded(parts: list[bytes]) -> None:
    made = decoder(accept_repeats=True)
    for part in parts:
        made.feed(part, 0.0)
        assert made.buffered_bytes <= LIMIT_BYTES
    made.idle(1.0)
    assert made.buffered_bytes == 0


def test_slow_drip_of_headers_stays_bounded() -> None:
    made = decoder()
    for _ in range(3000):
        made.feed(frame(1)[:14].replace(b"\x81", b"\x82"), 0.0)
        assert made.buffered_bytes <= LIMIT_BYTES


def test_luxembourgs_plain_telegrams_are_the_same_under_encryption() -> None:
    plain, encrypted = (load_family(name).sample for name in ("p1-luxembourg", "p1-luxembourg-encrypted"))
    assert plain is not None
    assert encrypted is not None
    assert plain.registers == encrypted.registers


@pytest.mark.parametrize("capture", capture_parameters("p1_encrypted"))
def test_capture_is_decrypted(capture: Capture) -> None:
    """Its key is that of its origin's other tests, which the DLMS captures beside it state."""
    keys = Keys(bytes.fromhex("0123456789abcdef0123456789abcdef"))
    [telegram] = decode(capture.data, keys)
    assert isinstance(telegram, Telegram)
    assert (len(telegram.registers), telegram.meter, telegram.verified) == (64, "Lux5\\253694471_M", True)
    values = {register.obis.reduced: str(register.value) for register in telegram.registers}
    assert (values["1.8.0"], values["4.8.0"], values["24.2.1"]) == ("25.653", "63.781", "28.103")
    make = lambda: EncryptedP1Decoder(VILNIUS, keys=keys, accept_repeats=True)  # noqa: E731 - a decoder each time
    check_codec(make, capture.data, limit_bytes=LIMIT_BYTES, rounds=5)
