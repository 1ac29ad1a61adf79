"""What the HTTP server shows beyond this machine: a certificate of the cloud's own authority, or one of yours."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from meterway.authority import LOOK_EVERY_S, Authority, following
from meterway.cloud.config import HttpConfig
from meterway.core.errors import SetupError


@dataclass(slots=True)
class ServerTls:
    """TLS of a server that runs."""

    context: ssl.SSLContext
    file: Path
    """The certificate in use."""
    authority: Authority | None
    """Whom clients are to trust; None with a certificate of your own."""
    expires: datetime


@asynccontextmanager
async def server_tls(
    config: HttpConfig,
    certificate_dir: Path | None,
    *,
    clock: Callable[[], datetime],
    look_every_s: float = LOOK_EVERY_S,
) -> AsyncIterator[ServerTls]:
    """Yield TLS as ``config`` describes it; inside the block certificates are renewed, and new ones taken up.

    New connections get the new one, those that stand stay.

    Raises:
        SetupError: the certificate cannot be made, or yours cannot be used.
    """
    file, key_file = config.certificate_file, config.key_file
    authority: Authority | None = None
    if file is None:
        if certificate_dir is None:
            raise SetupError("[http] certificate_dir is missing: name the folder for the authority of its certificate")
        authority = Authority.open(certificate_dir, clock=clock)
        file = authority.server_certificate("http", config.all_names).file

    def renew() -> None:
        if authority is not None:
            authority.server_certificate("http", config.all_names)

    def take_up() -> None:
        # A key that does not belong to the certificate would spoil the context in use, so another one tries first.
        tls.expires = _load(_new_context(), file, key_file)
        _load(tls.context, file, key_file)

    context = _new_context()
    tls = ServerTls(context, file, authority, _load(context, file, key_file))
    async with following(file, renew, take_up, look_every_s):
        yield tls


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load(context: ssl.SSLContext, file: Path, key_file: Path | None) -> datetime:
    """Have the context show the certificate; return when it expires.

    Raises:
        SetupError: it cannot be used.
    """
    try:
        context.load_cert_chain(file, key_file, password=_no_password)
        return x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        named = f"certificate_file {file}" + (f" and key_file {key_file}" if key_file else "")
        reason = error.reason if isinstance(error, ssl.SSLError) else error
        raise SetupError(
            f"[http] {named} cannot be used ({reason}): they must be PEM, belong together, and be readable by this "
            "user; the key without a password"
        ) from error


def _no_password() -> str:
    """Be asked instead of the terminal: OpenSSL would wait there for somebody to type.

    Raises:
        ValueError: always.
    """
    raise ValueError("the key is encrypted")
