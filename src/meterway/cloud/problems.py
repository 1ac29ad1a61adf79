"""Problem details (RFC 9457): how every error of the HTTP interface looks."""

from http import HTTPStatus

import msgspec
from starlette.responses import Response

CONTENT_TYPE = "application/problem+json"


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of an error."""

    type: str = "about:blank"
    """``about:blank``: the status says what kind it is."""
    title: str
    status: int
    detail: str
    """A sentence that names what is wrong, where, and the next step."""
    reason: str | None = None
    """A short stable word for programs, as ``bad-query``."""


class HttpError(Exception):
    """Ends a request with a problem."""

    def __init__(
        self, status: int, detail: str, *, reason: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.headers = headers

    def response(self) -> Response:
        """Return the answer to send."""
        return problem_response(self.status, str(self), reason=self.reason, headers=self.headers)


def problem_response(
    status: int, detail: str, *, reason: str | None = None, headers: dict[str, str] | None = None
) -> Response:
    """Return a problem; ``detail`` is for people, ``reason`` for programs."""
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, reason=reason)
    sent = {"X-Content-Type-Options": "nosniff", **(headers or {})}
    return Response(msgspec.json.encode(problem), status, headers=sent, media_type=CONTENT_TYPE)


def database_away() -> HttpError:
    """Return the error for a database that does not answer."""
    return HttpError(
        503,
        "The database does not answer; nothing is lost, try again in a moment.",
        reason="database-away",
        headers={"Retry-After": "2"},
    )
