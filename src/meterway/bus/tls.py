"""TLS towards a broker: whom a client trusts, who it is itself, and why a broker does not take it, in sentences."""

import asyncio
import ssl
from contextlib import suppress

from meterway.bus.bus import BrokerConfig
from meterway.core.errors import SetupError

PROBE_WITHIN_S = 3.0

_CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x14\x00\x00"
"""Asks without name and password; whatever speaks MQTT in the clear answers with a CONNACK, be it a refusal."""
_CONNACK = b"\x20"

_NOT_YET_VALID = 9
_EXPIRED = 10
_OTHER_NAME = (62, 64)
"""As OpenSSL numbers what is wrong with a certificate: of another host name, of another address."""


class TlsError(SetupError):
    """The two sides do not come to speak TLS, or one of them where the other does not."""

    def __init__(self, detail: str, fix: str, *, is_certificate: bool) -> None:
        super().__init__(f"{detail}; {fix}")
        self.detail = detail
        self.fix = fix
        """The next step."""
        self.is_certificate = is_certificate
        """Whether a certificate is what is wrong."""


def client_context(config: BrokerConfig) -> ssl.SSLContext:
    """Return what a connection to this broker checks and shows; files are read each time, so they may be replaced.

    Raises:
        SetupError: a file that is named cannot be read, or does not hold what it should.
    """
    try:
        context = ssl.create_default_context(cafile=str(config.ca_file) if config.ca_file is not None else None)
    except OSError as error:
        raise SetupError(f"needs ca_file {config.ca_file}, which {_what_is_wrong(error)}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if config.certificate_file is not None:
        try:
            context.load_cert_chain(config.certificate_file, config.key_file, password=_no_password)
        except (OSError, ValueError) as error:
            named = f"certificate_file {config.certificate_file}" + (
                f" and key_file {config.key_file}" if config.key_file else ""
            )
            raise SetupError(f"needs {named}: {_what_is_wrong(error)}") from error
    return context


async def explained(host: str, port: int, error: Exception, *, over_tls: bool) -> TlsError | None:
    """Return why connecting failed with ``error``, if it has to do with TLS; asks the broker once more for it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _wrong_certificate(host, error)
    if over_tls and await _answers_in_the_clear(host, port):
        return TlsError(
            "does not speak TLS on this port",
            "name its port with TLS (often 8883); mqtt:// is for a broker on this machine",
            is_certificate=False,
        )
    if not over_tls and await _speaks_tls(host, port):
        return TlsError(
            "speaks TLS on this port",
            "write mqtts:// instead of mqtt://, and name its authority in ca_file if it is not a public one",
            is_certificate=False,
        )
    if isinstance(error, ssl.SSLError):
        return TlsError(
            f"and we find no way to speak TLS ({error.reason or 'no reason given'})",
            "it must offer TLS 1.2 or newer; if it wants a certificate of ours, name certificate_file and key_file",
            is_certificate=False,
        )
    return None


def _wrong_certificate(host: str, error: ssl.SSLCertVerificationError) -> TlsError:
    if error.verify_code == _EXPIRED:
        detail = "shows a certificate that has expired"
        fix = "renew it there (an embedded broker does so itself while it runs), unless this machine's clock is wrong"
    elif error.verify_code == _NOT_YET_VALID:
        detail = "shows a certificate that is not valid yet"
        fix = "set this machine's clock, or that of the machine that made the certificate"
    elif error.verify_code in _OTHER_NAME:
        detail = f"shows a certificate that is not for {host}"
        fix = "use a name that stands in it, or add this one to `names` of the broker"
    else:
        detail = f"shows a certificate of an authority that is not trusted here ({error.verify_message})"
        fix = (
            "name that authority's certificate in ca_file (of an embedded broker: certificates/ca.pem in its data_dir)"
        )
    return TlsError(detail, fix, is_certificate=True)


async def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent; whether TLS is spoken is all that is asked
    try:
        async with asyncio.timeout(PROBE_WITHIN_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True


async def _answers_in_the_clear(host: str, port: int) -> bool:
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(PROBE_WITHIN_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(_CONNECT)
                return await reader.read(1) == _CONNACK
            finally:
                writer.transport.abort()
    return False


def _what_is_wrong(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key does not belong to the certificate"
        return f"holds nothing of the kind in PEM ({error.reason or error})"
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    return f"cannot be used: {error}"


def _no_password() -> str:
    """Be asked instead of the terminal: OpenSSL would wait there for somebody to type.

    Raises:
        ValueError: always.
    """
    raise ValueError("the key is encrypted with a password; store it without one, in a file of mode 0600")
