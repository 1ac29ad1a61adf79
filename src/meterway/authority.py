"""A small certificate authority on disk, made at the first run, for what is served beyond this machine.

What lies in its folder:

    ca.pem         its certificate: for everybody who is to trust the servers of this installation
    ca.key         its key (mode 0600): who has it can pose as any of them
    [server].pem   key and certificate of a server, in one file so that they always belong together (mode 0600)
    lock           held while something is made
"""

import asyncio
import fcntl
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meterway.core.errors import SetupError
from meterway.core.hosts import check_name, is_address
from meterway.durable_file import PRIVATE_MODE, replace_file

_log = logging.getLogger(__name__)

AUTHORITY_LIFE = timedelta(days=3652)
SERVER_LIFE = timedelta(days=90)
RENEWED_AT = 1 / 3
"""With this part of its life left, a certificate is renewed: thirty days of ninety."""
BACKDATED = timedelta(days=1)
"""So much earlier than now a certificate begins: a device without a clock of its own wakes up in the past."""
LOOK_EVERY_S = 600.0
"""How often a server looks whether its certificate is to be renewed, or was replaced."""

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """What a server needs to prove who it is."""

    file: Path
    """Key and certificate, PEM."""
    expires: datetime


class Authority:
    """Signs certificates for servers; see ``open``."""

    def __init__(
        self, folder: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, clock: Clock
    ) -> None:
        self._folder = folder
        self._certificate = certificate
        self._key = key
        self._clock = clock

    @classmethod
    def open(cls, folder: Path, *, clock: Clock) -> Self:
        """Load the authority in ``folder``; at the first run make it.

        Raises:
            SetupError: its files cannot be read or written, do not belong together, the key is open to other users,
                or it has expired.
        """
        with _using(folder):
            key = _load_key(folder)
            certificate = _load_certificate(folder, key, clock())
        if certificate.not_valid_after_utc <= clock():
            raise SetupError(
                f"the authority in {folder} expired on {certificate.not_valid_after_utc:%Y-%m-%d}: if this machine's "
                "clock is right, remove ca.pem and ca.key there, start again, and hand the new ca.pem out"
            )
        return cls(folder, certificate, key, clock)

    @property
    def ca_file(self) -> Path:
        """The certificate that others are to trust."""
        return self._folder / "ca.pem"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, as browsers and ``openssl x509 -fingerprint -sha256`` show it."""
        return hashlib.sha256(self._certificate.public_bytes(Encoding.DER)).digest().hex(":").upper()

    @property
    def expires(self) -> datetime:
        return self._certificate.not_valid_after_utc

    def server_certificate(self, server: str, names: Sequence[str]) -> ServerCertificate:
        """Return the certificate of ``server`` for ``names``: the one on disk, or a new one.

        A new one is made when a third of its life is left, the names are others, or it cannot be used: it is damaged,
        of another authority, or of a clock that was ahead.

        Raises:
            SetupError: it cannot be written.
            BadDataError: one of ``names`` is neither host name nor address.
        """
        file = self._folder / f"{server}.pem"
        wanted = _subject_names(names)
        with _using(self._folder):
            known = _certificate_in(file)
            if known is None or not self._is_current(known, wanted):
                known = self._issue(file, names, wanted)
        return ServerCertificate(file, known.not_valid_after_utc)

    def _is_current(self, certificate: x509.Certificate, wanted: x509.SubjectAlternativeName) -> bool:
        now, end = self._clock(), certificate.not_valid_after_utc
        begin = certificate.not_valid_before_utc
        try:
            certificate.verify_directly_issued_by(self._certificate)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return False
        return set(names) == set(wanted) and begin <= now and end - now > (end - begin) * RENEWED_AT

    def _issue(self, file: Path, names: Sequence[str], wanted: x509.SubjectAlternativeName) -> x509.Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        now = self._clock()
        issuer_key = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        certificate = (
            _builder(_name("Meterway server"), self._certificate.subject, key.public_key())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(min(now + SERVER_LIFE, self.expires))
            .add_extension(wanted, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key), critical=False)
            .sign(self._key, SHA256())
        )
        _write(file, _pem(key) + certificate.public_bytes(Encoding.PEM), PRIVATE_MODE)
        _log.info("a certificate for %s until %s", ", ".join(names), f"{certificate.not_valid_after_utc:%Y-%m-%d}")
        return certificate


@asynccontextmanager
async def following(
    file: Path, renew: Callable[[], object], take_up: Callable[[], None], every_s: float = LOOK_EVERY_S
) -> AsyncIterator[None]:
    """Look after a certificate as long as the block lasts: ``renew`` it, and ``take_up`` a file that was replaced.

    What goes wrong is logged and tried again: the certificate of before serves until then.
    """
    task = asyncio.create_task(_follow(file, renew, take_up, every_s), name=f"meterway.authority.{file.stem}")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _follow(file: Path, renew: Callable[[], object], take_up: Callable[[], None], every_s: float) -> None:
    taken = _state(file)
    while True:
        await asyncio.sleep(every_s)
        try:
            await asyncio.to_thread(renew)
            found = _state(file)
            if found != taken:
                take_up()
                taken = found
        except (OSError, SetupError) as error:
            _log.error("! the certificate %s stays as it was: %s", file, error)


def _state(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


@contextmanager
def _using(folder: Path) -> Iterator[None]:
    """Keep other processes from making something in ``folder`` at the same time.

    Raises:
        SetupError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, PRIVATE_MODE)
    except OSError as error:
        raise SetupError(f"{folder}, for certificates, cannot be written: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _load_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    file = folder / "ca.key"
    if not file.exists():
        if (folder / "ca.pem").exists():
            raise SetupError(
                f"{file} is gone: put it back from a backup; or remove ca.pem beside it to have a new authority made, "
                "whose ca.pem everybody must then be given"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        _write(file, _pem(key), PRIVATE_MODE)
        return key
    try:
        mode = file.stat().st_mode
        loaded = load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise SetupError(f"{file} cannot be read ({type(error).__name__}): put it back from a backup") from error
    if mode & 0o077:
        raise SetupError(f"{file} is open to other users, who could pose as any of our servers: chmod 600 {file}")
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise SetupError(f"{file} is not a key on an elliptic curve: put back the one that was made here")
    return loaded


def _load_certificate(folder: Path, key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    file = folder / "ca.pem"
    if not file.exists():
        certificate = _sign_itself(key, now)
        _write(file, certificate.public_bytes(Encoding.PEM), 0o644)
        return certificate
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError) as error:
        raise SetupError(f"{file} is damaged ({error}): put it back from a backup") from error
    if certificate.public_key() != key.public_key():
        raise SetupError(f"{file} does not belong to ca.key beside it: put both back from the same backup")
    return certificate


def _sign_itself(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    public = key.public_key()
    # The name depends on the key alone, so that a certificate made again for it is the same authority to others.
    digest = hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    name = _name(f"Meterway authority {digest[:8]}")
    return (
        _builder(name, name, public)
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, SHA256())
    )


def _builder(subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject_names(names: Sequence[str]) -> x509.SubjectAlternativeName:
    checked = dict.fromkeys(map(check_name, names))
    return x509.SubjectAlternativeName(
        [x509.IPAddress(ip_address(name)) if is_address(name) else x509.DNSName(name) for name in checked]
    )


def _certificate_in(file: Path) -> x509.Certificate | None:
    """Return the certificate of a server, or None if there is none that can be used with its key."""
    try:
        data = file.read_bytes()
        certificate = x509.load_pem_x509_certificate(data)
        key = load_pem_private_key(data, password=None)
    except (OSError, ValueError, TypeError):
        return None
    return certificate if key.public_key() == certificate.public_key() else None


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(file: Path, data: bytes, mode: int) -> None:
    try:
        replace_file(file, data, mode=mode)
    except OSError as error:
        raise SetupError(f"{file} cannot be written: {error}") from error
