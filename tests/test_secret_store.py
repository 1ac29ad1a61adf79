"""Secrets at rest: sealed under a master key, bound to their names, and in nobody else's sight."""

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from meterway.adapter.config import AdapterConfig
from meterway.cli.doctor_machine import files
from meterway.cli.secret import secret
from meterway.core.config import load_config
from meterway.core.errors import SetupError
from meterway.meter.keys import load_keys, load_password
from meterway.secret_store import KEY_BYTES, LIMIT_SECRETS, SecretStore, read_secret

KEY = bytes.fromhex("00112233445566778899aabbccddeeff")
METER = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SecretStore:
    """The store of this process, empty."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.delenv("METERWAY_SECRETS_KEY", raising=False)
    monkeypatch.setenv("METERWAY_SECRETS", str(tmp_path / "store" / "secrets"))
    return SecretStore.of(os.environ)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def run(*arguments: str, given: bytes = b"") -> tuple[int, str, str]:
    done = CliRunner().invoke(secret, arguments, input=given)
    return done.exit_code, done.stdout, str(done.exception) if done.exception else done.stderr


def test_a_secret_comes_back_and_is_nowhere_in_the_files(store: SecretStore) -> None:
    store.set("house-1", KEY.hex().encode())
    store.set("house-2", b"other")
    assert store.get("house-1") == KEY.hex().encode()
    assert store.names() == ["house-1", "house-2"]
    assert mode(store.path) == mode(store.key_path) == 0o600
    written = store.path.read_bytes()
    assert KEY not in written
    assert KEY.hex().encode() not in written


def test_a_secret_cannot_stand_under_another_name(store: SecretStore) -> None:
    store.set("house-1", b"one")
    store.set("house-2", b"two")
    table = json.loads(store.path.read_bytes())
    table["secrets"]["house-2"] = table["secrets"]["house-1"]
    store.path.write_text(json.dumps(table))
    with pytest.raises(SetupError, match=r"secret house-2 in .* does not open .* the file was altered"):
        store.get("house-2")
    assert store.get("house-1") == b"one"


def test_each_sealing_has_a_nonce_of_its_own(store: SecretStore) -> None:
    seen = set()
    for _ in range(3):
        store.set("house-1", b"one")
        seen.add(json.loads(store.path.read_bytes())["secrets"]["house-1"])
    assert len(seen) == 3


def test_the_keys_and_passwords_of_a_configuration_may_be_secrets(store: SecretStore) -> None:
    store.set("house-1", f"{KEY.hex()}\n{KEY[::-1].hex()}\n".encode())
    store.set("pin", b"00000000\n")
    keys = load_keys(Path("secret:house-1"))
    assert (keys.encryption, keys.authentication) == (KEY, KEY[::-1])
    assert load_password(Path("secret:pin")) == "00000000"
    text = (
        f'id = "a"\nspool_dir = "spool"\n[[meters]]\nid = "{METER}"\nkey_file = "secret:house-1"\n'
        'source = { type = "tcp", host = "h", port = 1 }'
    )
    meter = load_config(text, AdapterConfig, where="adapter.toml").meters[0]
    assert load_keys(meter.key_file) == keys
    [check] = files(meter)
    assert check.ok
    assert str(store.key_path) in check.detail
    store.remove("house-1")
    [check] = files(meter)
    assert not check.ok
    assert "there is no secret house-1" in check.detail


def test_a_missing_secret_says_where_it_was_looked_for(store: SecretStore) -> None:
    with pytest.raises(SetupError, match=f"no secret nosuch in {store.path}; put it there: meterway secret set nosuch"):
        read_secret(Path("secret:nosuch"))


def test_a_master_key_that_others_may_read_is_refused(store: SecretStore) -> None:
    store.set("house-1", b"one")
    store.key_path.chmod(0o640)
    with pytest.raises(SetupError, match=f"the master key is open to other users: chmod 600 {store.key_path}"):
        store.get("house-1")


def test_another_master_key_neither_opens_nor_adds(store: SecretStore) -> None:
    store.set("house-1", b"one")
    before = store.path.read_bytes()
    store.key_path.write_bytes(bytes(KEY_BYTES))
    for attempt in (lambda: store.get("house-1"), lambda: store.set("house-2", b"two")):
        with pytest.raises(SetupError, match="does not open with the master key"):
            attempt()
    store.key_path.unlink()
    with pytest.raises(SetupError, match="cannot be read: No such file"):
        store.set("house-2", b"two")
    assert store.path.read_bytes() == before


def test_systemd_hands_over_key_and_store(tmp_path: Path, store: SecretStore) -> None:
    store.set("house-1", b"one")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    store.key_path.rename(credentials / "meterway.key")
    (credentials / "meterway.key").chmod(0o440)  # as systemd's access list shows it
    by_key = SecretStore.of({"CREDENTIALS_DIRECTORY": str(credentials), "METERWAY_SECRETS": str(store.path)})
    assert by_key.get("house-1") == b"one"
    assert by_key.described.endswith("master key handed over by systemd")
    store.path.rename(credentials / "meterway.secrets")
    assert SecretStore.of({"CREDENTIALS_DIRECTORY": str(credentials)}).get("house-1") == b"one"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("../x", b"v", "is 1 to 64 letters"),
        ("a" * 65, b"v", "is 1 to 64 letters"),
        ("empty", b"", "has 1 to 4096 bytes, this one 0"),
        ("long", b"v" * 4097, "has 1 to 4096 bytes, this one 4097"),
    ],
)
def test_what_no_secret_can_be_is_refused(store: SecretStore, name: str, value: bytes, sentence: str) -> None:
    with pytest.raises(SetupError, match=sentence):
        store.set(name, value)
    assert not store.path.exists()


def test_the_store_has_a_bound(store: SecretStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LIMIT_SECRETS == 1000
    monkeypatch.setattr("meterway.secret_store.LIMIT_SECRETS", 2)
    store.set("one", b"1")
    store.set("two", b"2")
    with pytest.raises(SetupError, match="has 2 secrets, the most it keeps; remove one first"):
        store.set("three", b"3")
    store.set("two", b"4")


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff", b'{"version":2,"secrets":{}}', b'{"version":1,"secrets":{"a":"!"}}']
)
def test_a_damaged_store_is_said_and_left_as_it_is(store: SecretStore, content: bytes) -> None:
    store.path.parent.mkdir()
    store.path.write_bytes(content)
    for attempt in (store.names, lambda: store.set("house-1", b"one")):
        with pytest.raises(SetupError, match="no file of secrets"):
            attempt()
    assert store.path.read_bytes() == content


def test_a_sealed_secret_that_is_cut_short_is_said(store: SecretStore) -> None:
    store.set("house-1", b"one")
    store.path.write_bytes(b'{"version":1,"secrets":{"house-1":"AAAA"}}')
    with pytest.raises(SetupError, match="does not open"):
        store.get("house-1")


def test_a_plain_key_file_that_others_may_read_is_taken_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "meter.key"
    file.write_text(KEY.hex())
    file.chmod(0o644)
    assert load_keys(file).encryption == KEY
    assert load_keys(file).encryption == KEY
    assert [record.getMessage() for record in caplog.records] == [
        f"! {file} is open to every user of this machine: chmod 600 {file}"
    ]


def test_the_command_keeps_lists_and_removes_and_shows_nothing(store: SecretStore, tmp_path: Path) -> None:
    code, out, err = run("set", "house-1", given=KEY.hex().encode())
    assert (code, out) == (0, f'kept in {store.path}; use it as "secret:house-1"\n')
    assert "the master key is new" in err
    file = tmp_path / "plain"
    file.write_text("geheim")
    code, out, err = run("set", "pin", "--from", str(file), "--json")
    assert (code, json.loads(out)["use"], err) == (0, "secret:pin", "")
    assert store.get("pin") == b"geheim"
    assert run("list") == (0, "house-1\npin\n", "")
    assert run("remove", "pin")[0] == 0
    code, _, err = run("remove", "pin")
    assert (code, err) == (1, f"there is no secret pin in {store.path}; meterway secret list shows those there are")
