"""Signed readings in the cloud: the first key counts, others do not, and what must be signed is not stored without."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meterway.cli.verify import verify
from meterway.cloud.config import IngestConfig
from meterway.cloud.decide import Window, decide
from meterway.cloud.ingest import Ingest
from meterway.cloud.store import Store
from meterway.cloud.store.writer import Committed
from meterway.core import wire
from meterway.core.reading import MeterReading, PropertyValue
from meterway.core.signatures import Signer, key_text

METER = "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff"
OTHER = "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0fe"
NOW = datetime.now(UTC).replace(microsecond=0)
OURS = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
KEY = key_text(OURS.public_key)
FOREIGN = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))


def payload(number: int, meter_id: str = METER) -> bytes:
    moment = NOW - timedelta(seconds=3600 - number)
    values = (PropertyValue("OBIS_1.8.0", Decimal(12345) + number, unit="kWh"),)
    identifier = wire.reading_identifier(meter_id, moment, values)
    return wire.encode(MeterReading(identifier, meter_id, moment, values, number))


async def commit(store: Store, *payloads: bytes, meter_id: str = METER) -> Committed:
    """Store messages as ingest does."""
    topic = f"concentrator/c1/smartMeterMessage/{meter_id}/readings"
    window = Window(past=timedelta(days=1), future=timedelta(days=1))
    batch = [decide(topic, each, now=NOW, window=window) for each in payloads]
    return await store.commit_batch(batch, now=NOW)


async def states(store: Store) -> list[tuple[int, bool | None]]:
    rows = await store.fetch("select sequence_number, signature_verified from reading order by sequence_number")
    return [(row[0], row[1]) for row in rows]


async def require(client: httpx.AsyncClient, key: str = KEY) -> None:
    answer = await client.put(f"/v1/meters/{METER}/signingKey", json={"publicKey": key, "required": True})
    assert answer.json() == {"meterId": METER, "publicKey": key, "required": True}


async def test_the_first_key_whose_signature_holds_is_the_meters(store: Store, client: httpx.AsyncClient) -> None:
    forged = OURS.sign(payload(1)).replace(b'"kWh"', b'"Wh"')
    await commit(store, forged)
    shown = (await client.get(f"/v1/meters/{METER}/signingKey")).json()
    assert shown == {"meterId": METER, "publicKey": None, "required": False}
    await commit(store, payload(2), OURS.sign(payload(3)), FOREIGN.sign(payload(4)), OURS.sign(payload(5)))
    assert await states(store) == [(1, False), (2, None), (3, True), (4, False), (5, True)]
    assert (await client.get(f"/v1/meters/{METER}/signingKey")).json()["publicKey"] == KEY
    await commit(store, FOREIGN.sign(payload(6)))
    assert (await states(store))[-1] == (6, False)
    asked = await client.post("/v1/meterReadings", json={"meterIds": [METER]})
    found = {each["sequenceNumber"]: each.get("signatureState") for each in asked.json()["content"]}
    assert found == {1: "bad", 2: None, 3: "verified", 4: "bad", 5: "verified", 6: "bad"}


async def test_where_a_signature_is_required_nothing_else_is_stored(store: Store, client: httpx.AsyncClient) -> None:
    await commit(store, OURS.sign(payload(1)))
    await require(client)
    altered = OURS.sign(payload(2)).replace(b"12347", b"12346")
    result = await commit(store, payload(3), altered, FOREIGN.sign(payload(4)), OURS.sign(payload(5)))
    assert (result.stored, len(result.rejected)) == (1, 3)
    assert await states(store) == [(1, True), (5, True)]
    rows = await store.fetch("select reason, message from quarantine order by reason, message desc")
    assert [row["reason"] for row in rows] == ["bad-signature", "bad-signature", "unsigned"]
    assert "was altered, and this meter's must be signed by its own key" in rows[0]["message"]
    assert f"is signed by the key {key_text(FOREIGN.public_key)}" in rows[1]["message"]
    assert "has no signature" in rows[2]["message"]
    await commit(store, payload(1, OTHER), meter_id=OTHER)
    assert (1, None) in await states(store)


async def test_a_replaced_adapter_is_trusted_once_its_key_is_set_and_the_quarantine_replayed(
    store: Store, client: httpx.AsyncClient
) -> None:
    await commit(store, OURS.sign(payload(1)))
    await require(client)
    await commit(store, FOREIGN.sign(payload(2)))
    await require(client, key_text(FOREIGN.public_key))
    ingest = Ingest(store, IngestConfig(), clock=lambda: NOW)
    keys = [row[0] for row in await store.fetch("select quarantine_key from quarantine")]
    assert await ingest.replay(keys) == (1, 0)
    assert await states(store) == [(1, True), (2, True)]
    forgotten = await client.delete(f"/v1/meters/{METER}/signingKey")
    assert forgotten.json() == {"meterId": METER, "publicKey": None, "required": False}
    await commit(store, OURS.sign(payload(3)))
    assert (await states(store))[-1] == (3, True)


async def test_a_signed_reading_is_no_other_meters_and_is_stored_once(store: Store) -> None:
    signed = OURS.sign(payload(1))
    result = await commit(store, signed, meter_id=OTHER)
    assert [each.reason for each in result.rejected] == ["meter-mismatch"]
    unnamed = OURS.sign(payload(2).replace(f',"meterIndividual":{{"meterIndividualId":"{METER}"}}'.encode(), b""))
    assert (await commit(store, unnamed, meter_id=OTHER)).stored == 1
    assert await states(store) == [(2, False)]
    assert (await commit(store, signed, signed)).stored == 1
    assert (await commit(store, signed)).duplicate == 1


@pytest.mark.parametrize("body", ["", "{}", '{"publicKey":"x"}', '{"publicKey":5}', '{"required":true}'])
async def test_a_key_that_is_none_is_refused(store: Store, client: httpx.AsyncClient, body: str) -> None:
    await commit(store, payload(1))
    answer = await client.put(f"/v1/meters/{METER}/signingKey", content=body)
    assert answer.status_code == 422
    assert (await client.get("/v1/meters/nosuch/signingKey")).status_code == 404
    assert (await client.delete(f"/v1/meters/{METER}/signingKey")).json()["publicKey"] is None


def checked(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(verify, [str(file), *arguments])


async def test_what_was_stored_can_be_verified_elsewhere(
    store: Store, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    signed = [OURS.sign(payload(number)) for number in (1, 2, 5)]
    await commit(store, *signed, payload(3))
    answer = await client.get("/v1/meterReadings/bulk?format=signed")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.content == b"".join(each + b"\n" for each in signed)
    file = tmp_path / "signed.ndjson"
    file.write_bytes(answer.content)
    for key in (KEY, f"{METER}={KEY}"):
        done = checked(file, "--key", key)
        assert (done.exit_code, done.stdout) == (
            0,
            f"{METER}: 3 readings hold; 2 numbers between them are missing\nevery line holds\n",
        )
    file.write_bytes(b"".join(b"concentrator/c1/smartMeterMessage/m/readings " + each + b"\n" for each in signed))
    (tmp_path / "keys").write_text(f"{METER}={KEY}\n\n{key_text(FOREIGN.public_key)}\n")
    done = checked(file, "--key", f"@{tmp_path / 'keys'}", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"meterId": METER, "verified": 3, "repeated": 0, "missing": 2}


def test_every_line_that_does_not_hold_is_named(tmp_path: Path) -> None:
    good = OURS.sign(payload(1))
    lines = [good, good, good.replace(b"12346", b"92346"), FOREIGN.sign(payload(2)), payload(3), b"x"]
    file = tmp_path / "capture"
    file.write_bytes(b"\r\n".join(lines))
    done = checked(file, "--key", KEY, "--json")
    assert done.exit_code == 1
    *bad, meter = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["line"], each["reason"]) for each in bad] == [
        (3, "bad-signature"),
        (4, "unknown-key"),
        (5, "unsigned"),
        (6, "unsigned"),
    ]
    assert meter == {"meterId": METER, "verified": 1, "repeated": 1, "missing": 0}
    # A key that is trusted for one meter vouches for no other.
    file.write_bytes(OURS.sign(payload(1, OTHER)))
    assert checked(file, "--key", f"{METER}={KEY}").exit_code == 1
    file.write_bytes(b"")
    done = checked(file, "--key", KEY)
    assert (done.exit_code, done.stdout) == (1, "there are no readings\n")
