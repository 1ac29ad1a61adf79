"""A pool of connections, and the driver's errors in our own words."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Self, TypeAlias

import asyncpg

from meterway.core.errors import BadDataError, SetupError, TransientError

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

Row: TypeAlias = asyncpg.Record
"""One row of an answer: values by column name or by position."""

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

OLDEST_SERVER = 15
"""The oldest PostgreSQL that Meterway works with."""

CONNECT_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 300.0

LISTEN_LIMIT = 10_000
"""Notifications that wait for a slow listener; at the bound the oldest are dropped."""

VIEWER_ROLE = "meterway_viewer"
"""The database role that has no rights but to see what row-level security shows it."""

_BECOME_VIEWER = "select set_config(name, value, true) from unnest($1::text[], $2::text[]) as v (name, value)"

_TRANSIENT_CLASSES = frozenset({"08", "40", "53", "55", "57", "58"})
"""SQLSTATE classes: connection, rollback (deadlock), resources (disk full), locks, shutdown, system error."""

_DATA_CLASSES = frozenset({"22", "23", "54"})
"""SQLSTATE classes: data exception, integrity constraint, program limit."""


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn the driver's errors into ours.

    Raises:
        TransientError: the database is away, ending, full or busy.
        BadDataError: it refused a value (reason ``refused-by-database``).
        SetupError: it refused us: wrong password, no such database, tables that are not there.

    Only what the database says is passed on, not its details, which can quote a whole row.
    """
    try:
        yield
    except asyncpg.PostgresError as error:
        kind, said = (error.sqlstate or "")[:2], error.args[0] if error.args else type(error).__name__
        if kind in _TRANSIENT_CLASSES:
            raise TransientError(f"the database cannot serve now: {said}") from error
        if kind in _DATA_CLASSES:
            raise BadDataError(f"the database refuses a value: {said}", reason="refused-by-database") from error
        raise SetupError(f"the database refuses: {said}; check [database] and the versions of both") from error
    except (asyncpg.DataError, UnicodeEncodeError) as error:
        raise BadDataError(f"a value cannot go to the database: {error}", reason="refused-by-database") from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, EOFError) as error:
        raise TransientError(f"the database is away: {str(error) or type(error).__name__}") from error


class Database:
    """Connections to one database; each is checked and replaced by the pool when it was lost."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", dsn: str, *, lend_limit_s: float | None = None) -> None:
        self._pool = pool
        self._dsn = dsn
        self._lend_limit_s = lend_limit_s

    @classmethod
    async def connect(cls, dsn: str, *, connections: int, lend_limit_s: float | None = None) -> Self:
        """Open the first connection; at most ``connections`` are open at once, further callers wait.

        A connection is dropped when it was lent for ``lend_limit_s``; what uses it then raises TransientError. On a
        half-open link (to a server that vanished, through a router that forgot) nothing else ends a query soon.

        Raises:
            TransientError: the server is not there (yet).
            SetupError: it refuses us, or is older than ``OLDEST_SERVER``.
        """
        with translated_errors():
            pool = await asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=connections,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=COMMAND_TIMEOUT_S,
                server_settings={"application_name": "meterway", "timezone": "UTC"},
            )
        database = cls(pool, dsn, lend_limit_s=lend_limit_s)
        async with database.connection() as connection:
            version = connection.get_server_version()
        if version.major < OLDEST_SERVER:
            await database.close()
            raise SetupError(f"PostgreSQL {version.major} is too old: Meterway needs {OLDEST_SERVER} or newer")
        return database

    async def close(self) -> None:
        """Close all connections; waits at most ten seconds for queries that run."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._pool.close()
        except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            self._pool.terminate()

    def gauges(self) -> dict[str, float]:
        """Return how many connections there are, are free and may be, by the names of metrics."""
        pool = self._pool
        return {
            "database_connections": pool.get_size(),
            "database_connections_idle": pool.get_idle_size(),
            "database_connections_limit": pool.get_max_size(),
        }

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection; errors inside come out translated."""
        with translated_errors():
            async with self._pool.acquire(timeout=self._lend_limit_s) as connection:  # holds for giving it back too
                if self._lend_limit_s is None:
                    yield connection
                    return
                drop = asyncio.get_running_loop().call_later(self._lend_limit_s, connection.terminate)
                try:
                    yield connection
                finally:
                    drop.cancel()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection in a transaction: committed at the end, rolled back on an error."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def fetch(self, sql: str, *args: object) -> list[Row]:
        """Return the rows of one query; ``$1`` is the first of ``args``.

        Raises:
            TransientError, BadDataError, SetupError: see ``translated_errors``.
        """
        async with self.connection() as connection:
            return await connection.fetch(sql, *args)

    async def fetch_limited(self, settings: Mapping[str, str], sql: str, *args: object) -> list[Row]:
        """Return those rows of one query that row-level security shows to ``VIEWER_ROLE`` with ``settings``.

        Raises:
            TransientError, BadDataError, SetupError: see ``translated_errors``.
        """
        async with self.transaction() as connection:
            await connection.execute(_BECOME_VIEWER, list(settings), list(settings.values()))
            await connection.execute(f"set local role {VIEWER_ROLE}")
            return await connection.fetch(sql, *args)

    async def listen(self, channel: str, *, greet: bool = False) -> AsyncIterator[str]:
        """Yield the payloads of NOTIFY on ``channel``, from the first step on, on a connection of its own.

        ``greet`` yields an empty text first, once it listens: who then queries misses nothing.

        Holds ``LISTEN_LIMIT`` for a slow consumer, then drops the oldest. What was notified while the database was
        away is not repeated: listen again and query.

        Raises:
            TransientError: the connection was lost.
        """
        waiting: asyncio.Queue[str | None] = asyncio.Queue(LISTEN_LIMIT)

        def put(item: str | None) -> None:
            if waiting.full():
                waiting.get_nowait()
            waiting.put_nowait(item)

        with translated_errors():
            connection = await asyncpg.connect(self._dsn, timeout=CONNECT_TIMEOUT_S)
            try:
                connection.add_termination_listener(lambda _: put(None))
                await connection.add_listener(channel, lambda *message: put(str(message[3])))
                if greet:
                    put("")
                while (payload := await waiting.get()) is not None:
                    yield payload
            finally:
                connection.terminate()
        raise TransientError(f"the connection that listens on {channel} was lost")
