"""Whether signed readings are what the meter's adapter signed; and those meters whose readings must be.

A meter's key is the first one whose signature held (trust on first use), until a person says another. It is looked up
for each batch, so a change takes effect at once, in every worker. Signatures are checked in a thread: the library lets
go of the interpreter meanwhile, and messages go on being taken.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from meterway.cloud.store.database import Database
from meterway.cloud.store.rows import ArrivedReading, Rejected
from meterway.core.errors import BadDataError
from meterway.core.signatures import Signed, key_text

_SELECT = """
select meter_id, signing_key, signature_required from meter where meter_id = any($1) and signing_key is not null
"""

_PIN = """
with known as (
    select meter_key from meter where meter_id = any($1) order by meter_key for no key update
)
update meter m set signing_key = v.signing_key
from unnest($1::text[], $2::bytea[]) as v (meter_id, signing_key)
where m.meter_key in (select meter_key from known) and m.meter_id = v.meter_id and m.signing_key is null
"""


class _Pin(NamedTuple):
    key: bytes
    is_required: bool


Pins = Mapping[str, _Pin]
"""By meter id."""


class Judged(NamedTuple):
    """Readings with their signatures checked, and those that are refused for theirs."""

    readings: list[ArrivedReading]
    rejected: list[Rejected]


async def judge(database: Database, readings: Sequence[ArrivedReading]) -> Judged:
    """Check the signatures of readings; those of meters that need none, and have none, pass as they are.

    Raises:
        TransientError: the database is away.
    """
    pins = await _pins(database, {each.reading.meter_id for each in readings})
    signed = [each for each in readings if each.signed is not None]
    if not signed and not pins:
        return Judged(list(readings), [])
    genuine = await asyncio.to_thread(_genuine, signed)
    new = {each.reading.meter_id: each for each in reversed(genuine) if each.reading.meter_id not in pins}
    if new:
        keys = [each.signed.public_key for each in new.values() if each.signed is not None]
        await database.fetch(_PIN, list(new), keys)
        pins = {**pins, **await _pins(database, new)}
    return _sorted(readings, {id(each) for each in genuine}, pins)


async def _pins(database: Database, meter_ids: Iterable[str]) -> Pins:
    rows = await database.fetch(_SELECT, list(meter_ids))
    return {row["meter_id"]: _Pin(row["signing_key"], row["signature_required"]) for row in rows}


def _genuine(signed: Sequence[ArrivedReading]) -> list[ArrivedReading]:
    """Return those whose signature holds, of whichever key, and speaks for the meter that they arrived as."""
    return [each for each in signed if each.signed is not None and _speaks_for(each.signed, each.reading.meter_id)]


def _speaks_for(signed: Signed, meter_id: str) -> bool:
    try:
        return signed.subject()[0] == meter_id and signed.is_genuine()
    except BadDataError:
        return False


def _sorted(readings: Sequence[ArrivedReading], genuine: set[int], pins: Pins) -> Judged:
    judged = Judged([], [])
    for each in readings:
        pin = pins.get(each.reading.meter_id)
        if each.signed is None:
            if pin is not None and pin.is_required:
                judged.rejected.append(_rejected(each, "unsigned", "has no signature"))
            else:
                judged.readings.append(each)
            continue
        is_pinned = pin is not None and pin.key == each.signed.public_key
        is_verified = is_pinned and id(each) in genuine
        if pin is not None and pin.is_required and not is_verified:
            what = "was altered" if is_pinned else f"is signed by the key {key_text(each.signed.public_key)}"
            judged.rejected.append(_rejected(each, "bad-signature", what))
        else:
            judged.readings.append(replace(each, is_verified=is_verified))
    return judged


def _rejected(each: ArrivedReading, reason: str, what: str) -> Rejected:
    message = (
        f"a reading of meter {each.reading.meter_id} {what}, and this meter's must be signed by its own key; "
        "docs/signatures.md says how to change the key, then replay"
    )
    return Rejected(each.topic, each.payload, reason, message)
