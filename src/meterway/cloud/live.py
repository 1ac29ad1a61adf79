"""The live stream: what changes in the store, told to browsers as server-sent events.

One listener and one query a tick serve all clients, whatever process stored the reading. At most four events a second:
what changes in between is put together. Bounds: ``LIMIT_CLIENTS`` clients (further ones get a problem 503),
``LIMIT_CLIENTS_EACH`` of them of one account (429), ``LIMIT_METERS`` meters an event (the rest comes with the next),
``LIMIT_WAITING`` events for a client that reads too slowly (then it is dropped, counted in ``dropped``, and connects
again by itself).

Each client gets what its viewer may see: those who see everything share one query, the others have one for each viewer,
which row-level security limits, and no counters. Whether a viewer may still come in is asked again every
``HEARTBEAT_S``.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from meterway.cloud.access.viewer import Viewer
from meterway.cloud.answers import encoder
from meterway.cloud.background import in_background
from meterway.cloud.meters import MeterAnswer, meter_answer, select_meter_keys
from meterway.cloud.problems import HttpError
from meterway.cloud.store import Store
from meterway.core.errors import MeterwayError

CHANNEL = "reading_stored"
TICK_S = 0.25
HEARTBEAT_S = 15.0
SEND_S = 10.0
RETRY_S = 1.0
LIMIT_CLIENTS = 200
LIMIT_CLIENTS_EACH = 20
LIMIT_METERS = 500
LIMIT_WAITING = 16
COUNT_S = 2.0
COUNT_LIMIT_S = 10.0
COUNT_SHARE = 20
"""Counting takes at most a twentieth of the time: the more there is to count, the rarer it is done."""

_log = logging.getLogger(__name__)


class Counters(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What was counted in the store."""

    readings_last_day: int
    """Readings whose time lies in the last 24 hours."""
    quarantined: int
    faults_last_day: int
    conflicts: int


class LiveEvent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The data of an event ``meters``."""

    time: datetime
    """The clock of the server, so that a page can tell ages."""
    meters: tuple[MeterAnswer, ...]
    """Those that changed, with their newest values."""
    counters: Counters | None
    """None until counted, while counting takes too long, and for who does not see everything."""


class Client:
    """One open stream."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self.waiting: asyncio.Queue[bytes | None] = asyncio.Queue(LIMIT_WAITING)
        self.open = True

    def put(self, event: bytes | None) -> bool:
        """Queue an event (None ends the stream); False if the client was too slow and is dropped."""
        if self.waiting.full():
            self.open = False
            while not self.waiting.empty():
                self.waiting.get_nowait()
            self.waiting.put_nowait(None)
            return False
        self.waiting.put_nowait(event)
        return True


class LiveHub:
    """Listens to the store and tells all clients; ``running`` owns its tasks."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock
        self._clients: set[Client] = set()
        self._changed: set[int] = set()
        self._all_since: datetime | None = None
        self._wake = asyncio.Event()
        self._counters: Counters | None = None
        self._closing = False
        self.events = 0
        self.dropped = 0

    @property
    def clients(self) -> int:
        return len(self._clients)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the clients told until the block ends."""
        async with in_background(live_listen=self._listen(), live_tick=self._tick(), live_count=self._count()):
            try:
                yield
            finally:
                self.close()

    def close(self) -> None:
        """End all streams and accept no more; the server calls it before it waits for its connections."""
        self._closing = True
        for client in self._clients:
            client.put(None)

    def connect(self, viewer: Viewer) -> Client:
        """Add a client; its first event brings the counters to who sees everything.

        Raises:
            HttpError: 503, there are too many, or we are stopping; 429, this account has too many.
        """
        if self._closing or len(self._clients) >= LIMIT_CLIENTS:
            why = "is stopping" if self._closing else f"already serves {LIMIT_CLIENTS} live streams"
            raise HttpError(
                503, f"The server {why}; try again in a moment.", reason="live-full", headers={"Retry-After": "5"}
            )
        if viewer.account_key is not None:
            own = sum(client.viewer.account_key == viewer.account_key for client in self._clients)
            if own >= LIMIT_CLIENTS_EACH:
                raise HttpError(
                    429, f"You have {LIMIT_CLIENTS_EACH} live streams open already; close some.", reason="live-full"
                )
        client = Client(viewer)
        counters = self._counters if viewer.sees_everything else None
        client.put(b"retry: 2000\n\n" + _event(LiveEvent(time=self._clock(), meters=(), counters=counters)))
        self._clients.add(client)
        return client

    def disconnect(self, client: Client) -> None:
        self._clients.discard(client)

    def _publish(self, event: bytes, clients: list[Client]) -> None:
        self.events += 1
        for client in clients:
            if not client.put(event):
                self.dropped += 1
                self._clients.discard(client)

    async def _listen(self) -> None:
        """Note what changes; when the database was away, everything since may have changed."""
        while True:
            lost = self._clock()
            try:
                async for payload in self._store.listen(CHANNEL):
                    self._note(payload)
            except MeterwayError as error:
                _log.warning("live: %s; trying again", error)
            await asyncio.sleep(RETRY_S)
            self._note_all(lost)

    def _note(self, payload: str) -> None:
        keys = payload.split(",")
        if all(key.isascii() and key.isdigit() and len(key) < 10 for key in keys):  # noqa: PLR2004
            self._changed.update(map(int, keys))
            self._wake.set()
        else:
            self._note_all(self._clock())

    def _note_all(self, since: datetime) -> None:
        if self._all_since is None or since < self._all_since:
            self._all_since = since
        self._wake.set()

    async def _tick(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._tell_changes()
            except MeterwayError as error:
                _log.warning("live: %s; trying again", error)
                self._wake.set()
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(TICK_S)

    async def _tell_changes(self) -> None:
        if self._all_since is not None:
            # A commit becomes visible a moment after the time in its row.
            since, self._all_since = self._all_since - timedelta(seconds=5), None
            rows = await self._store.fetch("select meter_key from meter where last_stored_time >= $1", since)
            self._changed.update(row["meter_key"] for row in rows)
        keys = list(self._changed)[:LIMIT_METERS]
        if not self._clients:
            self._changed.clear()
            return
        if not keys:
            return
        statement, now = select_meter_keys(keys), self._clock()
        for clients in self._by_sight():
            viewer = clients[0].viewer
            rows = await self._store.fetch_as(viewer, statement.sql, *statement.args)
            if rows or viewer.sees_everything:
                meters = tuple(meter_answer(row, now) for row in rows)
                counters = self._counters if viewer.sees_everything else None
                self._publish(_event(LiveEvent(time=now, meters=meters, counters=counters)), clients)
        self._changed.difference_update(keys)
        if self._changed:
            self._wake.set()

    def _by_sight(self) -> list[list[Client]]:
        """Return the clients, together those that see the same."""
        together: defaultdict[tuple[object, ...], list[Client]] = defaultdict(list)
        for client in self._clients:
            who = client.viewer
            sight = () if who.sees_everything else (who.role, who.tenant_key, who.account_key)
            together[sight].append(client)
        return list(together.values())

    async def _count(self) -> None:
        while True:
            began = asyncio.get_running_loop().time()
            before = self._counters
            if any(client.viewer.sees_everything for client in self._clients):
                with suppress(MeterwayError, TimeoutError):  # the next event simply has older counters
                    self._counters = await self._counted()
            if self._counters != before:
                event = _event(LiveEvent(time=self._clock(), meters=(), counters=self._counters))
                self._publish(event, [client for client in self._clients if client.viewer.sees_everything])
            took_s = asyncio.get_running_loop().time() - began
            await asyncio.sleep(max(COUNT_S, COUNT_SHARE * took_s))

    async def _counted(self) -> Counters:
        day_ago = self._clock() - timedelta(days=1)
        async with asyncio.timeout(COUNT_LIMIT_S):
            row = (await self._store.fetch(_COUNT_SQL, day_ago))[0]
        return Counters(
            readings_last_day=row["readings"],
            quarantined=row["quarantined"],
            faults_last_day=row["faults"],
            conflicts=row["conflicts"],
        )


class EventStream(Response):
    """Sends a client its events, and ``heartbeat`` when there are none, until either side ends.

    It ends too when ``still`` says that the viewer may no longer see it.
    """

    media_type = "text/event-stream"

    def __init__(self, hub: LiveHub, viewer: Viewer, still: Callable[[], Awaitable[bool]]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._hub = hub
        self._client = hub.connect(viewer)
        self._still = still

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        pump = asyncio.ensure_future(self._pump(send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((pump, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hub.disconnect(self._client)
            for task in (pump, gone):
                task.cancel()
            await asyncio.gather(pump, gone, return_exceptions=True)

    async def _pump(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        event: bytes | None = b""
        now_s = asyncio.get_running_loop().time
        asked_s = now_s()
        while event is not None and self._client.open:
            async with asyncio.timeout(SEND_S):
                await send({"type": "http.response.body", "body": event, "more_body": True})
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    event = await self._client.waiting.get()
            except TimeoutError:
                event = b"event: heartbeat\ndata: {}\n\n"
            if now_s() - asked_s >= HEARTBEAT_S:
                asked_s = now_s()
                event = event if await self._still() else None
        await send({"type": "http.response.body", "body": b""})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(event: LiveEvent) -> bytes:
    # JSON has no line breaks of its own, so one data line is enough.
    return b"event: meters\ndata: " + encoder.encode(event) + b"\n\n"


_COUNT_SQL = """
select (select count(*) from reading where reading_time >= $1) as readings,
       (select count(*) from quarantine) as quarantined,
       (select count(*) from fault where received_time >= $1) as faults,
       (select count(*) from conflict) as conflicts
"""
