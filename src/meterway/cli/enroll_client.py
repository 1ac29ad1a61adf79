"""Asking the cloud for credentials, so that nobody in between gets the code or the answer."""

import ssl
from ipaddress import ip_address
from typing import Final, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from meterway.core.enrolment import EnrolmentAnswer, EnrolmentCode, EnrolmentRequest, Kind, OwnAnswer
from meterway.core.errors import BadDataError, SetupError, TransientError

WITHIN_S: Final = 20.0
_LIMIT_CERTIFICATE_BYTES: Final = 64 * 1024

Answer = TypeVar("Answer", bound=msgspec.Struct)


def enrol(url: str, code: EnrolmentCode, kind: Kind) -> EnrolmentAnswer:
    """Exchange a code for credentials.

    Raises:
        SetupError: the address is not one to which a code may go, or not the cloud that made the code.
        TransientError: it does not answer.
        BadDataError: it refuses the code, and says why.
    """
    base = checked_url(url)
    context = _pinned(base, code) if code.pin and base.startswith("https:") else None
    body = msgspec.json.encode(EnrolmentRequest(code=str(code), kind=kind))
    answer = _asked(base, "POST", "/v1/enrol", context, body=body)
    return _understood(answer, EnrolmentAnswer)


def ask_own(url: str, ca_file: str | None, username: str, password: str) -> OwnAnswer:
    """Return what the cloud tells a device about itself; raises as ``enrol``."""
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SetupError(f"ca_file {ca_file} cannot be read: {error}") from error
    answer = _asked(checked_url(url), "GET", "/v1/devices/self", context, login=(username, password))
    return _understood(answer, OwnAnswer)


def checked_url(url: str) -> str:
    """Return the cloud's address without a slash at its end.

    Raises:
        SetupError: it is none, or a secret would go in the clear to another machine.
    """
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise SetupError(f"{url!r} is no address: {error}") from error
    if parts.scheme not in ("http", "https") or not host or parts.username is not None or parts.path.strip("/"):
        raise SetupError(f"{url!r} is not the address of a cloud, https://host or https://host:port")
    if parts.scheme == "http" and not _is_loopback(host):
        raise SetupError(f"{url} would send a secret in the clear: use https://{parts.netloc}")
    return f"{parts.scheme}://{parts.netloc}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _pinned(base: str, code: EnrolmentCode) -> ssl.SSLContext:
    """Return a context that trusts the authority that the code pins, and no other."""
    blind = ssl.create_default_context()
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE  # nothing is sent; what comes is believed only if the code pins it
    text = _asked(base, "GET", "/v1/enrol/ca", blind)[:_LIMIT_CERTIFICATE_BYTES].decode("ascii", "replace")
    try:
        certificate = ssl.PEM_cert_to_DER_cert(text.strip() + "\n")
    except ValueError as error:
        raise SetupError(f"{base} sent no certificate: is it the address of a Meterway cloud?") from error
    if not code.pins(certificate):
        raise SetupError(
            f"{base} is not the cloud that made this code: its authority is another. Somebody may be in between; "
            "nothing was sent. Check the address, and make a new code if the cloud got a new authority"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=certificate)
    return context


def _asked(
    base: str,
    method: str,
    path: str,
    context: ssl.SSLContext | None,
    *,
    body: bytes | None = None,
    login: tuple[str, str] | None = None,
) -> bytes:
    try:
        with httpx.Client(verify=context or ssl.create_default_context(), timeout=WITHIN_S) as client:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            answer = client.request(method, base + path, content=body, headers=headers, auth=login)
    except httpx.HTTPError as error:
        raise TransientError(
            f"{base} cannot be asked: {str(error) or type(error).__name__}; is the address right, and the cloud up?"
        ) from error
    if answer.is_success:
        return answer.content
    raise BadDataError(f"{base} answers {answer.status_code}: {_detail(answer.content)}", reason="refused")


class _Problem(msgspec.Struct, frozen=True):
    detail: str = "no reason given; is it the address of a Meterway cloud?"


def _detail(content: bytes) -> str:
    try:
        return msgspec.json.decode(content, type=_Problem).detail
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Problem().detail


def _understood(content: bytes, kind: type[Answer]) -> Answer:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadDataError(f"the cloud's answer is not understood: {error}", reason="bad-answer") from error
