"""The doctor asks a broker why it refuses what waits in a spool."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from meterway.adapter.doctor.backlog import LATE_S
from meterway.bus.bus import BrokerConfig
from meterway.cli.doctor_parts import look_at
from meterway.cli.doctor_refusals import look_at_oldest
from meterway.concentrator.config import ConcentratorConfig
from meterway.delivery.spool import Spool
from support.brokers import RunningBroker, running_mosquitto

TOPIC = "concentrator/c-1/smartMeterMessage/m-1/readings"


@asynccontextmanager
async def waiting_in(folder: Path, age_s: float) -> AsyncIterator[Spool]:
    """A spool that somebody holds, in which one message waits."""
    stored_s = datetime.now(UTC).timestamp() - age_s
    async with Spool(folder, clock=lambda: stored_s) as spool:
        spool.append(TOPIC, b"{}")
        await spool.commit()
        yield spool


@pytest.fixture
def acl(tmp_path: Path) -> Path:
    file = tmp_path / "acl"
    file.touch(mode=0o600)
    return file


async def test_doctor_of_a_concentrator_says_why_the_broker_refuses_what_waits(tmp_path: Path, acl: Path) -> None:
    acl.write_text("topic read #\n")
    with running_mosquitto(tmp_path / "mosquitto", extra=f"acl_file {acl}") as broker:
        folder = tmp_path / "spool"
        config = ConcentratorConfig(id="c-1", cloud=broker.config, local=broker.config, spool_dir=folder)
        async with waiting_in(folder, 2 * LATE_S):
            checks, _ = await look_at(config, listen_s=0)
        (refused,) = (each for each in checks if each.code == "refused")
        assert not refused.ok
        assert refused.detail == (
            f"the broker refuses {TOPIC}, the oldest message that waits in {folder}: "
            "not authorised (MQTT 5 reason 0x87)"
        )
        assert refused.fix.startswith("give this user the right to publish it")
        async with waiting_in(folder.with_name("young"), LATE_S / 2):
            assert await look_at_oldest(folder.with_name("young"), broker.config) == []


async def test_nothing_is_said_where_the_broker_takes_it_or_cannot_say(
    tmp_path: Path, mosquitto: RunningBroker, nats: RunningBroker
) -> None:
    away = BrokerConfig(url=nats.url, password_file=tmp_path / "absent")
    assert await look_at_oldest(tmp_path / "no spool", mosquitto.config) == []
    async with waiting_in(tmp_path / "spool", 2 * LATE_S):
        for broker in (mosquitto.config, nats.config, away):
            assert await look_at_oldest(tmp_path / "spool", broker) == []
