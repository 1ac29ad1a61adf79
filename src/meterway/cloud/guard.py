"""What every request passes before it reaches a route, and every answer on its way out.

Stops: other sites that point their name at this machine (DNS rebinding), other sites that send requests through a
user's browser, and bodies that are too long. Says so with a problem. There is no CORS: no other site may read.
"""

import re
from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meterway.cloud.problems import HttpError
from meterway.core.hosts import LOOPBACK_NAMES, in_url, is_public_name

LIMIT_BODY_BYTES = 256 * 1024
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]*\]|[^:@\[\]]*)(?::[0-9]*)?")

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

STRICT_TRANSPORT = "max-age=31536000"
"""For a year a browser uses TLS alone. Only under a public name: one such as ``pi.local`` may be another machine's
tomorrow, or have a page without TLS beside ours."""

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'; "
        "require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """ASGI middleware; ``hosts`` are names under which this machine may be addressed beside loopback."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str] = (), limit_bytes: int = LIMIT_BODY_BYTES) -> None:
        self._app = app
        self._hosts = named_hosts(hosts)
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
                if is_tls and is_public_name(host_name(request.get("host", ""))):
                    headers["Strict-Transport-Security"] = STRICT_TRANSPORT
            await send(message)

        request, is_tls = Headers(scope=scope), scope["scheme"] == "https"
        try:
            self._check(scope["method"], request, is_tls=is_tls)
        except HttpError as error:
            await error.response()(scope, receive, send_with_headers)
            return
        await self._app(scope, self._limited(receive), send_with_headers)

    def _check(self, method: str, headers: Headers, *, is_tls: bool) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or host_name(hosts[0]) not in self._hosts:
            named = ", ".join(hosts)[:200] or "none"
            raise HttpError(
                421,
                f"The Host header names {named}, which is not this machine: use localhost, or a name that stands in "
                "`[http] names`.",
                reason="wrong-host",
            )
        if method not in SAFE_METHODS:
            self._check_origin(hosts[0], headers, is_tls=is_tls)
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length[:20]) > self._limit_bytes:
            raise self._too_long()

    def _check_origin(self, host: str, headers: Headers, *, is_tls: bool) -> None:
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "none")
        # Without TLS of ours a proxy may have it; with it, a page that came without may be anybody's.
        if (origin is not None and not _is_same(origin, host, is_tls=is_tls)) or site not in ("same-origin", "none"):
            raise HttpError(
                403,
                "This request comes from the page of another site; only Meterway's own page and programs may send it.",
                reason="cross-origin",
            )
        kind = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise HttpError(
                415, f"The body is {kind[:80]}; send JSON with `Content-Type: application/json`.", reason="not-json"
            )

    def _limited(self, receive: Receive) -> Receive:
        """Count what arrives, for bodies that do not say their length."""
        received_bytes = 0

        async def limited() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > self._limit_bytes:
                raise self._too_long()
            return message

        return limited

    def _too_long(self) -> HttpError:
        return HttpError(
            413, f"The body is longer than {self._limit_bytes} bytes; send a smaller query.", reason="body-too-long"
        )


def _is_same(origin: str, host: str, *, is_tls: bool) -> bool:
    parts = urlsplit(origin)
    return parts.netloc.lower() == host.lower() and (parts.scheme == "https" or not is_tls)


def named_hosts(names: Collection[str]) -> frozenset[str]:
    """Return what may stand in a Host header for loopback and ``names``, without port."""
    return frozenset(in_url(name.lower()) for name in (*LOOPBACK_NAMES, *names))


def host_name(host: str) -> str:
    """Return the name in a Host header, without port, in lower case; an IPv6 address keeps its brackets.

    What is no name with a port comes back whole, so that no name is found in it: ``localhost:80@elsewhere``.
    """
    found = _HOST.fullmatch(host)
    return (found[1] if found else host).lower()
