"""Schemathesis against the running API: whatever is sent, by whomever, the answer is one that openapi.json promises.

What a request may be is said by its schema only in part; the rest is said by the sentence that refuses it. So the
check that everything a schema allows is accepted (`positive_data_acceptance`) is left out.
"""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from meterway.cloud.api import create_app
from meterway.cloud.config import IngestConfig
from meterway.cloud.devices.registry import BrokerForDevices
from meterway.cloud.ingest import Ingest
from meterway.cloud.server import serving
from meterway.cloud.store import Store
from support.access import add_account, add_tenant, add_token, move_in, token_of, utc_now
from support.cloud_http import put, rejected, series
from support.fuzz import MINUTES, SEED

EXAMPLE_METER = "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff"
"""The meter in the document's examples."""

UNSUITABLE = {
    "operator": "positive_data_acceptance",
    "member": "positive_data_acceptance",
    # A stranger is told 401 of everything, not what there is.
    "stranger": "positive_data_acceptance,unsupported_method,allow_header_conformance",
}


async def _town(store: Store) -> dict[str, str | None]:
    """Fill a store with what the document's examples name; return who may ask, each with a token."""
    now = datetime.now(UTC)
    key = await add_tenant(store, "north", "cellar")
    await put(store, *series(EXAMPLE_METER, now - timedelta(hours=1), 20), rejected(b"{"))
    await add_account(store, "ada", "auditor")
    member = await add_account(store, "who-lives-there", "member", key)
    await move_in(store, member, [EXAMPLE_METER], now - timedelta(days=1), tenant_key=key)
    return {
        "operator": await token_of(store, "who-operates", "operator"),
        "member": await add_token(store, member),
        "stranger": None,
    }


async def _schemathesis(folder: Path, url: str, who: str, token: str | None) -> str:
    """Run schemathesis; return what it found, or nothing."""
    effort = ("examples,coverage,fuzzing,stateful", 60 * MINUTES / 3) if MINUTES else ("examples,fuzzing", 15)
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        "openapi.json",
        f"--url={url}",
        *(("--header", f"Authorization: Bearer {token}") if token else ()),
        f"--phases={effort[0]}",
        f"--max-time={max(1, round(effort[1]))}",
        f"--max-examples={10_000 if MINUTES else 3}",
        f"--exclude-checks={UNSUITABLE[who]}",
        "--exclude-path=/v1/live",  # it has no end
        "--continue-on-failure",
        "--suppress-health-check=too_slow",
        "--request-timeout=60",
        "--generation-database=none",
        f"--seed={SEED}",
        "--warnings=off",
        "--no-color",
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return said.decode() if process.returncode else ""


@pytest.mark.parametrize("who", UNSUITABLE)
async def test_the_api_answers_as_it_says(store: Store, tmp_path: Path, who: str) -> None:
    tokens = await _town(store)
    ingest = Ingest(store, IngestConfig(), clock=utc_now)
    devices = BrokerForDevices("mqtt://127.0.0.1")
    app = create_app(store, is_open=False, replay=ingest.replay, devices=devices)
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        as_operator = {"Authorization": f"Bearer {tokens['operator']}"}
        (tmp_path / "openapi.json").write_bytes((await client.get("/openapi.json", headers=as_operator)).content)
        found = await _schemathesis(tmp_path, url, who, tokens[who])
        assert not found, found[-20_000:]
        assert (await client.get("/v1/account", headers=as_operator)).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
