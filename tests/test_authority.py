"""The small certificate authority: real files, and real handshakes with Python's ssl."""

import asyncio
import ssl
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from meterway.authority import AUTHORITY_LIFE, BACKDATED, SERVER_LIFE, Authority, following
from meterway.core.errors import BadDataError, SetupError

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
NAMES = ("meters.example.org", "192.0.2.7", "localhost")


class HandClock:
    """A clock that a test moves."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def certificate_in(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


def handshake(server_file: Path, ca_file: Path, name: str) -> None:
    """Shake hands in memory, as a client that trusts ``ca_file`` and wants ``name``."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(server_file)
    client_context = ssl.create_default_context(cafile=str(ca_file))
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(back, there, server_hostname=name)
    server = server_context.wrap_bio(there, back, server_side=True)
    pending = [client, server]
    for _ in range(10):
        for side in list(pending):
            try:
                side.do_handshake()
                pending.remove(side)
            except ssl.SSLWantReadError:
                continue
    assert not pending


def test_a_client_that_trusts_the_authority_reaches_the_server_by_each_name(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path, clock=lambda: datetime.now(UTC))
    made = authority.server_certificate("http", NAMES)
    for name in NAMES:
        handshake(made.file, authority.ca_file, name)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(made.file, authority.ca_file, "other.example.org")
    stranger = Authority.open(tmp_path / "stranger", clock=lambda: datetime.now(UTC))
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        handshake(made.file, stranger.ca_file, "localhost")


def test_it_is_made_once(tmp_path: Path) -> None:
    first = Authority.open(tmp_path / "deep" / "folder", clock=HandClock())
    made = first.server_certificate("http", NAMES)
    content = made.file.read_bytes()
    second = Authority.open(tmp_path / "deep" / "folder", clock=HandClock())
    assert second.fingerprint == first.fingerprint
    assert second.server_certificate("http", NAMES[::-1]) == made
    assert made.file.read_bytes() == content


def test_keys_are_the_owners_and_the_certificate_is_everybodys(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path, clock=HandClock())
    made = authority.server_certificate("http", NAMES)
    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(made.file.stat().st_mode) == 0o600
    assert authority.ca_file.stat().st_mode & stat.S_IROTH
    assert "PRIVATE" not in authority.ca_file.read_text()


def test_what_the_certificates_say(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path, clock=HandClock())
    made = authority.server_certificate("http", NAMES)
    ca, server = certificate_in(authority.ca_file), certificate_in(made.file)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert ca.not_valid_after_utc == authority.expires == NOW + AUTHORITY_LIFE
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert server.not_valid_before_utc == NOW - BACKDATED
    assert server.not_valid_after_utc == made.expires == NOW + SERVER_LIFE
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["meters.example.org", "localhost"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7"]
    assert len(authority.fingerprint.split(":")) == 32


def test_it_is_renewed_with_a_third_of_its_life_left(tmp_path: Path) -> None:
    clock = HandClock()
    authority = Authority.open(tmp_path, clock=clock)
    first = authority.server_certificate("http", NAMES)
    clock.now = NOW + SERVER_LIFE * 0.6
    assert authority.server_certificate("http", NAMES) == first
    clock.now = NOW + SERVER_LIFE * 0.7
    assert authority.server_certificate("http", NAMES).expires == clock.now + SERVER_LIFE


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-40]),
        lambda file: file.write_bytes(file.read_bytes().partition(b"-----BEGIN CERT")[0]),
        lambda file: file.unlink(),
        lambda file: (file.parent / "ca.pem").unlink() or (file.parent / "ca.key").unlink(),
    ],
    ids=["empty", "cut", "without certificate", "gone", "of an authority before"],
)
def test_a_certificate_that_cannot_be_used_is_made_anew(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    made = Authority.open(tmp_path, clock=HandClock()).server_certificate("http", NAMES)
    before = certificate_in(made.file)
    spoil(made.file)
    authority = Authority.open(tmp_path, clock=HandClock())
    again = authority.server_certificate("http", NAMES)
    assert certificate_in(again.file) != before
    certificate_in(again.file).verify_directly_issued_by(certificate_in(authority.ca_file))


def test_other_names_need_another_certificate(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path, clock=HandClock())
    before = certificate_in(authority.server_certificate("http", NAMES).file)
    after = certificate_in(authority.server_certificate("http", (*NAMES, "pi.local")).file)
    assert before != after
    with pytest.raises(BadDataError, match="'a b' is no host name"):
        authority.server_certificate("http", ("a b",))


def test_a_certificate_of_a_clock_that_was_ahead_is_made_anew(tmp_path: Path) -> None:
    clock = HandClock()
    authority = Authority.open(tmp_path, clock=clock)
    clock.now = NOW + timedelta(days=1000)
    authority.server_certificate("http", NAMES)
    clock.now = NOW
    assert authority.server_certificate("http", NAMES).expires == NOW + SERVER_LIFE


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    clock = HandClock()
    Authority.open(tmp_path, clock=clock)
    clock.now = NOW + AUTHORITY_LIFE - timedelta(days=10)
    authority = Authority.open(tmp_path, clock=clock)
    assert authority.server_certificate("http", NAMES).expires == authority.expires
    clock.now = authority.expires
    with pytest.raises(SetupError, match=r"expired on 2036-.*remove ca.pem and ca.key"):
        Authority.open(tmp_path, clock=clock)


def test_a_first_run_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path, clock=HandClock())
    server = certificate_in(authority.server_certificate("http", NAMES).file)
    authority.ca_file.unlink()
    server.verify_directly_issued_by(certificate_in(Authority.open(tmp_path, clock=HandClock()).ca_file))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / "ca.key").unlink(), "ca.key is gone: put it back from a backup; or remove ca.pem"),
        (lambda folder: (folder / "ca.key").write_text("x"), "ca.key cannot be read .*: put it back from a backup"),
        (lambda folder: (folder / "ca.pem").write_text("x"), "ca.pem is damaged"),
        (lambda folder: (folder / "other/ca.pem").replace(folder / "ca.pem"), "ca.pem does not belong to ca.key"),
    ],
)
def test_an_authority_that_is_not_whole_says_what_to_do(
    tmp_path: Path, spoil: Callable[[Path], object], sentence: str
) -> None:
    Authority.open(tmp_path, clock=HandClock())
    Authority.open(tmp_path / "other", clock=HandClock())
    key = (tmp_path / "ca.key").read_text()
    spoil(tmp_path)
    with pytest.raises(SetupError, match=sentence) as raised:
        Authority.open(tmp_path, clock=HandClock())
    assert key.splitlines()[1] not in str(raised.value)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="for certificates, cannot be written"):
        Authority.open(tmp_path / "file" / "folder", clock=HandClock())


async def test_a_server_takes_up_what_is_new_and_goes_on_after_trouble(tmp_path: Path) -> None:
    clock = HandClock()
    authority = Authority.open(tmp_path, clock=clock)
    made = authority.server_certificate("http", NAMES)
    taken: list[x509.Certificate] = []
    is_taken, looks = asyncio.Event(), 0

    def renew() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise SetupError("the disk is full")
        authority.server_certificate("http", NAMES)

    def take_up() -> None:
        taken.append(certificate_in(made.file))
        is_taken.set()

    async with asyncio.timeout(60), following(made.file, renew, take_up, 0.01):
        while looks < 3:
            await asyncio.sleep(0.01)
        assert not taken
        clock.now = NOW + SERVER_LIFE * 0.7
        await is_taken.wait()
    assert [each.not_valid_after_utc for each in taken] == [clock.now + SERVER_LIFE]
