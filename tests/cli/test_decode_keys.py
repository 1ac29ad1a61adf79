"""``meterway decode`` of encrypted telegrams: the key comes from a file and is never shown."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from meterway.cli.decode import decode
from meterway.core.errors import SetupError
from meterway.core.obis import Obis
from meterway.meter.dlms_security import seal
from meterway.meter.family import Sample, load_family
from meterway.meter.keys import Keys
from meterway.meter.virtual.encode_dlms import coded, encode_notification, structure, uint32


def sample(name: str) -> Sample:
    return load_family(name).sample or pytest.fail("no sample")


def run(tmp_path: Path, telegram: bytes, *arguments: str, key: str | None = None) -> Result:
    path = tmp_path / "telegram.bin"
    path.write_bytes(telegram)
    if key is not None:
        key_file = tmp_path / "meter.key"
        key_file.write_text(key)
        arguments = (*arguments, "--key-file", str(key_file))
    return CliRunner().invoke(decode, [str(path), *arguments], catch_exceptions=False)


@pytest.mark.parametrize("name", ["dlms-kaifa-austria", "p1-luxembourg-encrypted"])
def test_encrypted_telegram_is_decoded_with_its_key(tmp_path: Path, name: str) -> None:
    found = sample(name)
    assert found.encryption_key is not None
    result = run(tmp_path, found.telegram, "--json", key=found.encryption_key)
    answer = msgspec.json.decode(result.output)
    assert (result.exit_code, answer["protocol"], answer["errors"]) == (0, load_family(name).protocol, [])
    [reading] = answer["readings"]
    assert len(reading["propertyValues"]) == len(found.registers)
    assert reading["verified"] == (name == "p1-luxembourg-encrypted")
    assert found.encryption_key not in result.output


def test_authentication_key_stands_on_the_second_line(tmp_path: Path) -> None:
    found = sample("dlms-lg-e450-austria")
    key = f"{found.encryption_key}\n{found.authentication_key}\n"
    result = run(tmp_path, found.telegram, "--json", "--family", "dlms-lg-e450-austria", key=key)
    [reading] = msgspec.json.decode(result.output)["readings"]
    assert (reading["verified"], reading["checksum"]) == (True, True)
    assert {"obis": "1-0:1.8.0*255", "propertyId": "OBIS_1.8.0", "numericalValue": 1008000, "unit": "Wh"} in reading[
        "propertyValues"
    ]


@pytest.mark.parametrize(("key", "reason"), [(None, "encrypted"), ("00" * 16, "bad-key")])
def test_missing_and_wrong_keys_are_told_apart(tmp_path: Path, key: str | None, reason: str) -> None:
    result = run(tmp_path, sample("dlms-lg-e450-austria").telegram, "--json", key=key)
    assert result.exit_code == 1
    assert [error["reason"] for error in msgspec.json.decode(result.output)["errors"]] == [reason]


def test_long_push_without_a_frame_is_told_from_an_encrypted_p1_telegram(tmp_path: Path) -> None:
    keys = Keys(bytes(range(16)), bytes(range(16, 32)))
    body = structure(*coded([(Obis(1, 0, 1, 8, 0), uint32(number), (0, 30)) for number in range(40)]))
    apdu = seal(encode_notification(1, body), title=b"MWY\x00\x00\x00\x00\x2a", counter=1, keys=keys)
    key = "\n".join((bytes(range(16)).hex(), bytes(range(16, 32)).hex()))
    for data, protocol in ((apdu, "dlms"), (sample("p1-luxembourg-encrypted").telegram, "p1-encrypted")):
        answer = msgspec.json.decode(run(tmp_path, data, "--json", key=key).output)
        assert answer["protocol"] == protocol
    assert len(apdu) > 640


def test_unverified_telegram_says_so_on_screen(tmp_path: Path) -> None:
    found = sample("dlms-kaifa-austria")
    output = run(tmp_path, found.telegram, key=found.encryption_key).output
    assert "(no checksum)  (unverified)" in output
    assert "12345678" in output


def test_wrong_key_file_and_unknown_family_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="key 1 has 3 characters; a key is 32 hexadecimal digits"):
        run(tmp_path, b"", key="abc")
    with pytest.raises(SetupError, match="did you mean `dlms-aidon`"):
        run(tmp_path, b"", "--family", "dlms-aydon")
