"""The proofs of erasures: a chain, in which the digest of each covers the one before.

So none can be changed or taken out without all later ones showing it.
"""

import json
from datetime import datetime
from hashlib import sha256

from meterway.cloud.store.database import Database, Row

LOCK = 0x6D657465_65726173
"""The advisory lock ("meteeras") of who begins an erasure, and of who adds to the chain."""


async def prove(database: Database, key: int, now: datetime) -> int:
    """Finish an erasure whose work is done; return 1 if this call did.

    Raises:
        TransientError: the database is away; call again.
    """
    async with database.transaction() as connection:
        await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
        row = await connection.fetchrow(
            "select * from erasure where erasure_key = $1 and finished_time is null and not exists "
            "(select from erased_span where erasure_key = $1 and not is_done)",
            key,
        )
        if row is None:
            return 0
        last = await connection.fetchrow(
            "select chain_number, digest from erasure where chain_number is not null order by chain_number desc limit 1"
        )
        previous, number = (last["digest"], last["chain_number"] + 1) if last else (b"", 1)
        await connection.execute(
            "update erasure set finished_time = $2, chain_number = $3, previous_digest = $4, digest = $5 "
            "where erasure_key = $1",
            key,
            now,
            number,
            previous,
            _proof(row, previous, now),
        )
    return 1


async def broken_proof(database: Database) -> int | None:
    """Return the key of the first erasure whose proof does not follow from the one before; None if all do.

    Raises:
        TransientError: the database is away.
    """
    previous = b""
    rows = await database.fetch("select * from erasure where chain_number is not null order by chain_number")
    for number, row in enumerate(rows, 1):
        proof = _proof(row, previous, row["finished_time"])
        if row["chain_number"] != number or row["digest"] != proof:
            return int(row["erasure_key"])
        previous = proof
    return None


def _proof(row: Row, previous: bytes, finished: datetime) -> bytes:
    """Return the digest of a proof: SHA-256 over the one before, and the facts as JSON in this order."""
    facts = (
        row["erasure_key"],
        row["tenant_key"],
        row["subject_kind"],
        row["subject_digest"].hex(),
        row["reason"],
        row["by_account"],
        row["requested_time"].isoformat(),
        finished.isoformat(),
        sorted(json.loads(row["counts"]).items()),
    )
    return sha256(previous + json.dumps(facts, separators=(",", ":")).encode()).digest()
