"""Devices of the table at a mosquitto: they log in with what enrolment gave them, and no longer once revoked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest

from meterway.bus.bus import BrokerConfig
from meterway.bus.mqtt import answers
from meterway.cloud.api import create_app
from meterway.cloud.devices.mosquitto import MosquittoGuard, guarded_mosquitto
from meterway.cloud.devices.registry import BrokerForDevices
from meterway.cloud.store import Store
from meterway.durable_file import write_private
from support.brokers import RunningBroker, dynamic_security, running_mosquitto
from support.cloud_http import client_of

METER = "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff"
IN_TIME_S = 60.0


@pytest.fixture
async def mosquitto_of_ours(tmp_path: Path) -> AsyncIterator[RunningBroker]:
    with running_mosquitto(tmp_path / "mosquitto", extra=dynamic_security(tmp_path)) as broker:
        yield broker


def user(tmp_path: Path, broker: RunningBroker, username: str, password: str | None = None) -> BrokerConfig:
    file = tmp_path / f"{username}.password"
    if password is not None:
        write_private(file, password)
    return BrokerConfig(url=broker.url, username=username, password_file=file)


async def until(config: BrokerConfig, *, let_in: bool) -> None:
    """Wait until mosquitto lets this user in, or no longer does."""
    async with asyncio.timeout(IN_TIME_S):
        while await answers(config) is not let_in:
            await asyncio.sleep(0.1)


async def enrolled(api: httpx.AsyncClient) -> str:
    """Enrol a new adapter as soon as mosquitto is there; return its password."""
    code = (await api.post("/v1/devices", json={"kind": "adapter", "id": "cellar", "meterIds": [METER]})).json()["code"]
    async with asyncio.timeout(IN_TIME_S):
        while (answer := await api.post("/v1/enrol", json={"code": code, "kind": "adapter"})).status_code == 503:
            assert answer.json()["reason"] == "broker-away"
            code = (await api.post("/v1/devices/adapter/cellar/code")).json()["code"]
            await asyncio.sleep(0.1)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["password"])


async def test_an_enrolled_device_logs_in_until_it_is_revoked_even_while_the_cloud_is_away(
    tmp_path: Path, mosquitto_of_ours: RunningBroker, store: Store
) -> None:
    administrator = user(tmp_path, mosquitto_of_ours, "admin")

    def api_of(guard: MosquittoGuard) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        devices = BrokerForDevices(mosquitto_of_ours.url, let_in=guard.let_in)
        return client_of(create_app(store, devices=devices))

    async with guarded_mosquitto(administrator, store) as guard, api_of(guard) as api:
        device = user(tmp_path, mosquitto_of_ours, "adapter-cellar", await enrolled(api))
        await until(device, let_in=True)
        assert (await api.delete("/v1/devices/adapter/cellar")).status_code in (200, 204)
        await until(device, let_in=False)
        new_code = (await api.post("/v1/devices/adapter/cellar/code")).json()["code"]
        answer = await api.post("/v1/enrol", json={"code": new_code, "kind": "adapter"})
        device = user(tmp_path, mosquitto_of_ours, "adapter-cellar", answer.json()["password"])
        await until(device, let_in=True)
    async with client_of(create_app(store)) as api:
        assert (await api.delete("/v1/devices/adapter/cellar")).status_code in (200, 204)
    async with guarded_mosquitto(administrator, store):
        await until(device, let_in=False)
