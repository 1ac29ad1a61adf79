"""Backup and restore of the database, by PostgreSQL's own programs: one file, one command each.

A backup is one snapshot: what was committed when it began, while ingest goes on. The file is an archive of ``pg_dump``
in its custom format and can be restored without Meterway too. A restore is one transaction: it happens whole or not at
all. What comes twice afterwards, because spools send again, is stored once, as ever.
"""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from meterway.cloud.config import DatabaseConfig
from meterway.cloud.postgres import EmbeddedPostgres, find_programs
from meterway.cloud.service import read_dsn
from meterway.cloud.store import Store
from meterway.cloud.store.database import Database
from meterway.cloud.store.erased_again import remembered
from meterway.cloud.store.migrate import migrations
from meterway.core.errors import MeterwayError, SetupError, TransientError
from meterway.durable_file import sync_directory

NOT_IN_IT = "the broker's data, spools of edges, configurations, passwords and keys"
"""What a backup does not hold."""

_KEPT_CHARACTERS = 2000
"""So much of what a program said last is quoted."""

_EMPTY = "set client_min_messages = warning;\ndrop schema public cascade;\ncreate schema public;\n"

_GIVE_UP_S = 2.0
"""A ``psql`` that failed has ended within this."""

Progress = Callable[[str], None]
"""Is told what is being done, in words."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a database holds."""

    meters: int
    readings: int
    """As the statistics of the database say: about, where they are many."""


@asynccontextmanager
async def reachable(config: DatabaseConfig, *, create: bool = False) -> AsyncIterator[str]:
    """Give the address of the database; an embedded one that nobody serves is served meanwhile.

    ``create`` makes an embedded one that is not there.

    Raises:
        SetupError: no database is named, it is not there, or it refuses us.
        TransientError: the server is not there.
    """
    try:
        dsn = read_dsn(config)
        await (await Store.connect(dsn, connections=2)).close()
    except TransientError:
        if config.embedded is None:
            raise
        if not create and not _has_cluster(config.embedded):
            raise SetupError(f"there is no database in {config.embedded}: is [database] embedded right?") from None
        async with EmbeddedPostgres(config.embedded) as server:
            yield server.dsn
    else:
        yield dsn


async def back_up(dsn: str, file: Path, *, progress: Progress) -> None:
    """Write all that the database holds into ``file``, which only its owner may read.

    Raises:
        SetupError: the file exists or cannot be written, there is nothing in the database, or no ``pg_dump`` of its
            version.
        TransientError: the database went away, or the disk is full; no file is left.
    """
    async with _connected(dsn) as database:
        if not await _has_tables(database):
            raise SetupError("the database is empty: there is nothing to back up; is it the right one?")
    with _new_file(file) as part:
        options = ["--format=custom", "--compress=6", "--no-owner", "--no-privileges", "--verbose"]
        await _run("pg_dump", [*options, f"--file={part}"], dsn, on_line=_tables_of(progress))


async def restore(dsn: str, file: Path, *, replace: bool, progress: Progress) -> Content:
    """Put what ``file`` holds into the database, and bring it up to date; ``replace`` what is there.

    What the replaced database had erased since is erased again.

    Raises:
        SetupError: the file is no backup, or of a newer Meterway or PostgreSQL; the database is not empty and not to
            be replaced, or somebody uses it.
        TransientError: the database went away; it is as it was.
    """
    made = await _look_into(file)
    async with _connected(dsn) as database:
        await _check_target(database, replace=replace)
        await _check_server(database, made)
        erased = await remembered(database)
    progress(f"restoring {file}: schema {made.schema}, of PostgreSQL {made.server}")
    await _pour(dsn, file)
    progress("bringing the schema up to date")
    async with await Store.connect(dsn, connections=2) as store:
        await store.migrate(now=datetime.now(UTC))
        if await store.erase_again(erased):
            progress("erasing again what was erased since the backup")
            await store.erase(now=datetime.now(UTC))
        await store.fetch("analyze")
        return await _content(store)


@dataclass(frozen=True, slots=True)
class _Made:
    """By what a backup was made."""

    schema: int
    """Of Meterway's tables."""
    server: int
    """PostgreSQL's major version."""


async def _look_into(file: Path) -> _Made:
    """Return by what a backup was made."""
    try:
        listed = await _run("pg_restore", ["--list", str(file)])
    except SetupError as error:
        raise SetupError(f"{file} is no backup of Meterway: {error}") from error
    rows = await _run("pg_restore", ["--data-only", "--table=schema_version", "--file=-", str(file)])
    versions = [int(number) for number in re.findall(r"^(\d+)\t\d{4}_", rows, re.MULTILINE)]
    server = re.search(r"Dumped from database version: (\d+)", listed)
    if not versions or server is None:
        raise SetupError(f"{file} is no backup of Meterway: it has no schema_version")
    newest = migrations()[-1][0]
    if max(versions) > newest:
        raise SetupError(
            f"{file} has schema {max(versions)}, this Meterway knows {newest}: install the Meterway that made it"
        )
    return _Made(max(versions), int(server[1]))


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[Database]:
    """Open one connection and no more, so that ``_check_target`` takes none of ours for somebody else's."""
    database = await Database.connect(dsn, connections=1)
    try:
        yield database
    finally:
        await database.close()


async def _check_server(database: Database, made: _Made) -> None:
    (row,) = await database.fetch("select current_setting('server_version_num')::integer / 10000 as major")
    if row["major"] < made.server:
        raise SetupError(
            f"the backup was made with PostgreSQL {made.server}, the database has {row['major']}: "
            "restore into one of the same version or newer"
        )


async def _check_target(database: Database, *, replace: bool) -> None:
    if not await _has_tables(database):
        return
    if not replace:
        raise SetupError(
            "the database is not empty: restore into an empty one, or give --replace to remove what is there"
        )
    (row,) = await database.fetch(
        "select count(*) as count from pg_stat_activity where datname = current_database() "
        "and backend_type = 'client backend' and pid <> pg_backend_pid()"
    )
    if row["count"]:
        raise SetupError(f"the database is in use ({row['count']} connections): stop `meterway cloud` first")


async def _has_tables(database: Database) -> bool:
    """Tell whether there are tables, of whomever."""
    return bool(await database.fetch("select 1 from pg_tables where schemaname = 'public' limit 1"))


async def _content(store: Store) -> Content:
    (row,) = await store.fetch(
        "select (select count(*) from meter) as meters, (select coalesce(sum(greatest(reltuples, 0)), 0)::bigint "
        "from pg_class join pg_inherits on oid = inhrelid where inhparent = 'reading'::regclass) as readings"
    )
    return Content(row["meters"], row["readings"])


async def _pour(dsn: str, file: Path) -> None:
    """Replace all tables by those of the file, in one transaction.

    ``pg_restore`` makes SQL of the archive, which ``psql`` runs after what empties the database.
    """
    source, sink = os.pipe()
    try:
        os.write(sink, _EMPTY.encode())
        into = ["--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", "--output=/dev/null"]
        psql = await _start("psql", into, dsn, stdin=source)
        os.close(source)  # so that a psql that gave up ends pg_restore too
        source = -1
        try:
            script = await _start("pg_restore", ["--file=-", "--no-owner", "--no-privileges", str(file)], stdout=sink)
            try:
                await _finish("pg_restore", script)
            except MeterwayError:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_GIVE_UP_S):
                        await psql.wait()
                if psql.returncode:
                    await _finish("psql", psql)  # which is why the other failed
                raise
            os.close(sink)
            sink = -1
            await _finish("psql", psql)
        finally:
            await _end(psql)  # before it sees the end of half a script, which it would commit
    finally:
        for handle in (source, sink):
            if handle >= 0:
                os.close(handle)


def _tables_of(progress: Progress) -> Callable[[str], None]:
    """Return what tells of each table that ``pg_dump`` names."""

    def tell(line: str) -> None:
        if found := re.search(r"dumping contents of table \"?public\.(\w+)", line):
            progress(f"  {found[1]}")

    return tell


async def _run(
    program: str, arguments: Sequence[str], dsn: str | None = None, *, on_line: Progress = lambda _: None
) -> str:
    """Run a program of PostgreSQL to its end; return what it printed.

    Raises:
        SetupError: there is no such program, or it failed, with what it said last.
        TransientError: it lost the database, or the disk is full.
    """
    process = await _start(program, arguments, dsn)
    try:
        return await _finish(program, process, on_line=on_line)
    finally:
        await _end(process)


async def _start(
    program: str,
    arguments: Sequence[str],
    dsn: str | None = None,
    *,
    stdin: int = asyncio.subprocess.DEVNULL,
    stdout: int = asyncio.subprocess.PIPE,
) -> asyncio.subprocess.Process:
    target, password = _without_password(dsn) if dsn else ([], {})
    environment = {**os.environ, **password, "LC_ALL": "C", "PGAPPNAME": "meterway backup"}
    try:
        return await asyncio.create_subprocess_exec(
            find_programs() / program,
            *target,
            *arguments,
            stdin=stdin,
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
    except OSError as error:
        raise SetupError(f"PostgreSQL's {program} cannot be run: {error}; install meterway[embedded]") from error


async def _finish(program: str, process: asyncio.subprocess.Process, *, on_line: Progress = lambda _: None) -> str:
    """Wait until a program ends; return what it printed."""
    said, printed = await asyncio.gather(_lines(process.stderr, on_line), _all(process.stdout))
    if await process.wait():
        kind = TransientError if re.search(r"connection|shutting down|No space left", said) else SetupError
        raise kind(f"PostgreSQL's {program} failed: {said.strip() or f'exit code {process.returncode}'}")
    return printed


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


async def _lines(stream: asyncio.StreamReader | None, on_line: Callable[[str], None]) -> str:
    """Return the end of what comes."""
    said = ""
    while stream is not None and (line := await stream.readline()):
        text = line.decode(errors="replace")
        on_line(text)
        said = (said + text)[-_KEPT_CHARACTERS:]
    return said


async def _all(stream: asyncio.StreamReader | None) -> str:
    return (await stream.read()).decode(errors="replace") if stream is not None else ""


def _without_password(dsn: str) -> tuple[list[str], dict[str, str]]:
    """Return the option that names a database, and the password for the environment: others see arguments."""
    parts = urlsplit(dsn)
    user, at, place = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    shown = urlunsplit(parts._replace(netloc=f"{name}{at}{place}"))
    return [f"--dbname={shown}"], {"PGPASSWORD": unquote(password)} if password else {}


@contextlib.contextmanager
def _new_file(file: Path) -> Iterator[Path]:
    """Give a file to fill that only its owner may read; it has its name when it is whole and on the disk.

    Raises:
        SetupError: there is a file of that name.
    """
    if file.exists():
        raise SetupError(f"{file} exists already: name another, or remove it")
    part = file.with_name(f".{file.name}.part")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        yield part
        os.fsync(handle)
        part.rename(file)
        sync_directory(file.resolve().parent)
    finally:
        os.close(handle)
        part.unlink(missing_ok=True)


def _has_cluster(data_dir: Path) -> bool:
    return (data_dir / "cluster").exists()
