"""A meter or gateway that is polled over HTTP."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from meterway.adapter.config import HttpSource
from meterway.adapter.links.mailbox import Mailbox
from meterway.adapter.links.place import describe, why
from meterway.core.errors import SetupError, TransientError
from meterway.secret_store import read_secret

if TYPE_CHECKING:
    import httpx

LIMIT_BYTES = 1 << 20
"""The longest answer that is taken."""
LIMIT_REDIRECTS = 3

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, 5.6.2."""
_OK, _UNAUTHORISED, _FORBIDDEN, _NOT_FOUND, _TOO_MANY, _SERVER_ERROR = 200, 401, 403, 404, 429, 500


@asynccontextmanager
async def open_http(source: HttpSource) -> AsyncIterator[Mailbox]:
    """Poll ``source``; the first answer is awaited by the first ``read``.

    Raises:
        TransientError: a file that the source names cannot be used.
    """
    poll = await asyncio.to_thread(_Poll, source)  # the library's import and a CA file take their time on a small board
    mailbox = Mailbox(describe(source))
    async with poll.client, mailbox.filled_by(poll.run(mailbox)):
        yield mailbox


class _Poll:
    """One address, its log-in, and the connection that is kept open between two requests."""

    def __init__(self, source: HttpSource) -> None:
        import httpx

        self._source = source
        self._where = describe(source)
        self._auth = self._log_in()
        self._broken = (httpx.HTTPError, httpx.InvalidURL, OSError)
        self.client = httpx.AsyncClient(
            # No compression, so that the limit holds; no proxy or .netrc of the environment: a meter is near.
            headers={"Accept-Encoding": "identity", **self._headers()},
            verify=self._trust(),
            timeout=source.timeout_s,
            limits=httpx.Limits(max_connections=1),
            trust_env=False,
        )

    async def run(self, mailbox: Mailbox) -> None:
        """Poll until cancelled.

        Raises:
            TransientError: an answer did not come, or is none.
        """
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            mailbox.put(await self._ask())
            due = max(due + self._source.interval_s, loop.time())
            await asyncio.sleep(due - loop.time())

    async def _ask(self) -> bytes:
        try:
            async with asyncio.timeout(self._source.timeout_s):
                return await self._follow(self.client.build_request("GET", self._source.url))
        except self._broken as error:
            hint = "; put the device's certificate or its CA's into ca_file" if "CERTIFICATE" in str(error) else ""
            raise TransientError(f"{self._where} does not answer: {why(error)}{hint}") from error

    async def _follow(self, request: "httpx.Request") -> bytes:
        for _ in range(LIMIT_REDIRECTS + 1):
            response = await self._send(request)
            try:
                if response.next_request is None:
                    return await self._body(response)
            finally:
                await response.aclose()
            request = self._checked(response.next_request)
        raise TransientError(f"{self._where} redirects more than {LIMIT_REDIRECTS} times; is `url` the meter's?")

    async def _send(self, request: "httpx.Request") -> "httpx.Response":
        """Return the answer to ``request`` after the log-in, its body unread.

        The library's own way of logging in would read the whole body of a refusal, however long.
        """
        flow = self._auth.auth_flow(request)
        request = next(flow)
        while True:
            response = await self.client.send(request, stream=True, auth=None)
            try:
                request = flow.send(response)
            except StopIteration:
                return response
            except (LookupError, ValueError) as error:
                await response.aclose()
                raise TransientError(f"{self._where} asks for a kind of digest log-in that nobody knows") from error
            await response.aclose()

    def _checked(self, request: "httpx.Request") -> "httpx.Request":
        """Return where a redirect leads to, if that is the same host, as well protected."""
        before = self.client.build_request("GET", self._source.url).url
        after = request.url
        if after.host != before.host or after.scheme not in ("https", before.scheme):
            raise TransientError(
                f"{self._where} redirects to {after.scheme}://{after.host}, which is not followed; if that is the "
                "meter, put it into `url`"
            )
        return request

    async def _body(self, response: "httpx.Response") -> bytes:
        if response.status_code != _OK:
            raise TransientError(f"{self._where} answers {response.status_code}{_next_step(response.status_code)}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise TransientError(f"{self._where} answers compressed though it was asked not to")
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > LIMIT_BYTES:
                raise TransientError(f"{self._where} answers more than {LIMIT_BYTES} bytes; is `url` the meter's?")
        if not body:
            raise TransientError(f"{self._where} answers nothing; is `url` the meter's?")
        return bytes(body)

    def _log_in(self) -> "httpx.Auth":
        import httpx

        source = self._source
        if source.username is None or source.password_file is None:
            return httpx.Auth()
        kind = httpx.DigestAuth if source.auth == "digest" else httpx.BasicAuth
        return kind(source.username, self._read(source.password_file).strip())

    def _headers(self) -> dict[str, str]:
        headers = {}
        if (file := self._source.headers_file) is not None:
            for number, line in enumerate(self._read(file).splitlines(), 1):
                name, colon, value = line.partition(":")
                if not line.strip():
                    continue
                if not colon or not _HEADER_NAME.fullmatch(name):
                    raise TransientError(f"{self._where} needs headers_file {file}; line {number} is not `Name: value`")
                headers[name] = _header_value(value, file)
        if (file := self._source.token_file) is not None:
            headers["Authorization"] = f"Bearer {_header_value(self._read(file), file)}"
        return headers

    def _trust(self) -> "ssl.SSLContext | bool":
        file = self._source.ca_file
        if file is None:
            return True
        try:
            return ssl.create_default_context(cafile=str(file))
        except OSError as error:
            raise TransientError(f"{self._where} needs ca_file {file}, which cannot be used: {why(error)}") from error

    def _read(self, file: Path) -> str:
        try:
            return read_secret(file).decode()
        except (OSError, SetupError, UnicodeDecodeError) as error:
            raise TransientError(f"{self._where} needs {file}, which cannot be read: {why(error)}") from error


def _header_value(text: str, file: Path) -> str:
    """Return ``text`` as it may stand in a header; the library's own error would quote it."""
    value = text.strip()
    if not value or not value.isascii() or not value.isprintable():
        raise TransientError(f"{file} holds what cannot stand in a header; one line of printable ASCII can")
    return value


def _next_step(status: int) -> str:
    if status in (_UNAUTHORISED, _FORBIDDEN):
        return ": it wants another log-in; check username and password_file, token_file or headers_file"
    if status == _NOT_FOUND:
        return ": there is nothing at this path; correct `url`"
    if status == _TOO_MANY:
        return ": it is asked too often; raise interval_s"
    if status >= _SERVER_ERROR:
        return ": it is in trouble itself; it is asked again by itself"
    return "; is `url` the meter's?"
