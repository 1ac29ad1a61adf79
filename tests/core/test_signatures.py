"""Signed payloads: what is signed is what stands there, to the byte."""

import base64
import subprocess
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from meterway.core import wire
from meterway.core.errors import BadDataError
from meterway.core.reading import MeterReading, PropertyValue
from meterway.core.signatures import Signer, key_text, parse_key, split

METER = "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff"
PRIVATE_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER = Signer(PRIVATE_KEY)
READING = MeterReading(
    UUID("019ab000-0000-7000-8000-0000000011aa"),
    METER,
    datetime(2026, 11, 23, 10, 15, tzinfo=UTC),
    (
        PropertyValue("OBIS_1.8.0", Decimal("12345.678"), unit="kWh"),
        PropertyValue("OBIS_1.7.0", Decimal("0.412"), unit="kW"),
    ),
    4711,
)
PAYLOAD = wire.encode(READING)
SIGNED = SIGNER.sign(PAYLOAD)


def test_the_signature_is_the_last_member_and_the_rest_is_as_before() -> None:
    assert SIGNED.startswith(PAYLOAD[:-1] + b',"signature":{"publicKey":"' + key_text(SIGNER.public_key).encode())
    assert SIGNED.endswith(b'"}}')
    assert b"\n" not in SIGNED
    signed = split(SIGNED)
    assert signed is not None
    assert (signed.message, signed.public_key) == (PAYLOAD, SIGNER.public_key)
    assert signed.is_genuine()
    assert signed.subject() == (METER, 4711)


def test_a_receiver_that_knows_no_signatures_reads_it_as_before() -> None:
    for _ in range(3):  # by and by, as a shape that is known
        assert wire.decode(SIGNED, meter_id=METER) == READING


@given(st.integers(0, len(SIGNED) - 1), st.integers(1, 255))
def test_no_byte_can_be_changed(place: int, change: int) -> None:
    altered = bytearray(SIGNED)
    altered[place] ^= change
    signed = split(bytes(altered))
    genuine = split(SIGNED)
    assert genuine is not None
    # Another spelling of the same key and value, in the bits that base64 does not use, is no change.
    is_same = signed is not None and (signed.message, signed.public_key, signed.value) == (
        genuine.message,
        genuine.public_key,
        genuine.value,
    )
    assert is_same or signed is None or not signed.is_genuine()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        PAYLOAD,
        SIGNED[:-1],
        SIGNED + b" ",
        SIGNED.replace(b',"signature":', b', "signature":'),
        SIGNED.replace(b',"signature":', b',\n"signature":'),
        SIGNED.replace(b"{", b"{\n", 1),
        SIGNED[SIGNED.index(b',"signature"') :],
    ],
)
def test_what_is_spelled_otherwise_has_no_signature(payload: bytes) -> None:
    assert split(payload) is None


@given(st.binary(max_size=400))
def test_splitting_never_raises(payload: bytes) -> None:
    split(payload)
    signed = split(payload + SIGNED[SIGNED.index(b',"signature"') :])
    assert signed is None or not signed.is_genuine()


@pytest.mark.parametrize("payload", [b'{"a":1}', b'{"sequenceNumber":1}', b'{"meterId":"m"}', b"[1}", b'{"meterId":5}'])
def test_what_names_no_meter_and_number_speaks_for_nobody(payload: bytes) -> None:
    signed = split(SIGNER.sign(payload))
    assert signed is not None
    with pytest.raises(BadDataError) as error:
        signed.subject()
    assert error.value.reason == "bad-signature"


def test_the_flat_shape_of_others_can_be_signed_too() -> None:
    signed = split(SIGNER.sign(b'{"meterId":"m1","sequenceNumber":7}'))
    assert signed is not None
    assert signed.subject() == ("m1", 7)


def test_openssl_makes_the_key_and_agrees_with_us(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    signer = Signer.of_pem(key.read_bytes())
    member = msgspec.json.decode(signer.sign(PAYLOAD))["signature"]
    (tmp_path / "message").write_bytes(PAYLOAD)
    (tmp_path / "value").write_bytes(base64.urlsafe_b64decode(member["value"] + "=="))
    command: list[str | Path] = ["openssl", "pkeyutl", "-verify", "-inkey", key, "-rawin", "-in", tmp_path / "message"]
    done = subprocess.run([*command, "-sigfile", tmp_path / "value"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_key_that_is_none_is_refused_and_not_quoted() -> None:
    other = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for pem, sentence in ((b"geheim", "no private key in PEM"), (other, "but not of Ed25519")):
        with pytest.raises(BadDataError, match=sentence) as error:
            Signer.of_pem(pem)
        assert "geheim" not in str(error.value)
    for text in ("", "x" * 42, "x" * 42 + "="):
        with pytest.raises(BadDataError, match="is no public key, which has 43"):
            parse_key(text)
    assert parse_key(key_text(SIGNER.public_key)) == SIGNER.public_key


def test_a_signer_does_not_show_its_key() -> None:
    assert PRIVATE_KEY.private_bytes_raw().hex() not in repr(SIGNER)
