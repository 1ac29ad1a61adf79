"""What the routes share: the store, the clock, the live stream, and how they answer."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from meterway.cloud.access.accounts import Accounts
from meterway.cloud.access.audit import AuditLog
from meterway.cloud.access.oidc import OidcSignIn
from meterway.cloud.access.viewer import viewer
from meterway.cloud.answers import encoder
from meterway.cloud.kept_aside import select_keys
from meterway.cloud.live import LiveHub
from meterway.cloud.problems import HttpError, database_away
from meterway.cloud.query import Statement
from meterway.cloud.store import Row, Store
from meterway.core.errors import BadDataError, SetupError, TransientError
from meterway.core.topics import check_id

BODY_TIMEOUT_S = 10.0

Answer = TypeVar("Answer")


class ReplayAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What became of messages that were taken out of quarantine and decided anew."""

    accepted: int
    """Now understood, and gone from the quarantine."""
    rejected: int
    """Still not understood; they stay, with the reason of this time."""


Replay: TypeAlias = Callable[[Sequence[int]], Awaitable[tuple[int, int]]]
"""Decides the quarantined messages with these keys anew: how many left, how many stay (``Ingest.replay``)."""


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Context:
    """One per application."""

    store: Store
    live: LiveHub
    accounts: Accounts
    audit: AuditLog
    clock: Callable[[], datetime]
    timeout_s: float
    replay: Replay | None
    ready: Callable[[], str | None]
    """None when ready, else a sentence what is missing."""
    counters: Callable[[], Mapping[str, int]]
    """Counters of the process for /metrics, by name."""
    gauges: Callable[[], Mapping[str, float]]
    """What else it measures, by name."""
    oidc: OidcSignIn | None = None
    """Signing in with a provider, where one is configured."""
    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    """By route, method and status."""

    async def fetch(self, statement: Statement) -> list[Row]:
        """Run a statement within the time limit, as the viewer of this request: others' rows are not there.

        Raises:
            HttpError: 503, it took too long, or the database is away.
        """
        return await self.in_time(self.store.fetch_as(viewer.get(), statement.sql, *statement.args))

    async def fetch_all(self, statement: Statement) -> list[Row]:
        """Run a statement as the process itself, within the time limit: every tenant's rows are there.

        Raises:
            HttpError: as ``fetch``.
        """
        return await self.in_time(self.store.fetch(statement.sql, *statement.args))

    async def enter_arrivals(self) -> None:
        """Have the delivery ledger know all that is stored.

        Raises:
            HttpError: as ``fetch``.
        """
        await self.in_time(self.store.enter_arrivals())

    async def in_time(self, work: Awaitable[Answer]) -> Answer:
        """Wait for work of the database.

        Raises:
            HttpError: 503, it took too long, or the database is away.
        """
        try:
            async with asyncio.timeout(self.timeout_s):
                return await work
        except TimeoutError as error:
            raise HttpError(
                503,
                f"The query took longer than {self.timeout_s:g} seconds: narrow the time range, name meters, or use "
                "the bulk download.",
                reason="too-slow",
            ) from error
        except TransientError as error:
            raise database_away() from error
        except SetupError as error:
            raise HttpError(
                503, "The database refuses us; run `meterway doctor` on the server.", reason="database-refuses"
            ) from error

    async def replayed(self, ids: Sequence[int]) -> ReplayAnswer:
        """Decide quarantined messages anew, those that the viewer of this request may see.

        Raises:
            HttpError: 503, nothing here can, or the database is away.
        """
        if self.replay is None:
            raise HttpError(503, "This server only reads; send the replay to one that also stores.", reason="no-replay")
        if not viewer.get().sees_everything:
            rows = await self.fetch(select_keys(ids))
            ids = [row["quarantine_key"] for row in rows]
        try:
            accepted, rejected = await self.replay(ids)
        except TransientError as error:
            raise database_away() from error
        return ReplayAnswer(accepted=accepted, rejected=rejected)


async def body_of(request: Request) -> bytes:
    """Return the body; its length is bounded by ``guard``.

    Raises:
        HttpError: 408, it comes too slowly; 400, it ends early.
    """
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.body()
    except TimeoutError as error:
        raise HttpError(408, f"The body did not arrive within {BODY_TIMEOUT_S:g} seconds.", reason="slow") from error
    except ClientDisconnect as error:
        raise HttpError(400, "The connection ended before the body did.", reason="cut") from error


def json_answer(content: object) -> Response:
    """Return JSON; numbers with their own digits."""
    return Response(encoder.encode(content), media_type="application/json")


def checked_meter_id(meter_id: str) -> str:
    """Return an id from a path.

    Raises:
        HttpError: 404, no meter can be called so.
    """
    try:
        return check_id(meter_id, "meter id")
    except BadDataError as error:
        raise HttpError(404, f"There is no such meter: {error}.", reason="no-meter") from error


def no_meter(meter_id: str) -> HttpError:
    """Return the error for a meter that is not there."""
    return HttpError(
        404, f"There is no meter {meter_id}; GET /v1/meters lists those that have reported.", reason="no-meter"
    )
