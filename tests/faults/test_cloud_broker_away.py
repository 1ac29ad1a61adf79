"""A device in the field whose cloud is out of reach for a while."""

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from faults.load import assert_good
from faults.truth import Truth, judge, truth_of
from meterway.delivery.config import RelayConfig
from meterway.edge import EdgeAdapter, EdgeConcentrator, EdgeConfig
from support.brokers import RunningBroker
from support.platform import Api, component, meter_configs, running_cloud, virtual_meters, wait_for
from support.postgres import Server

AWAY_S = 5.0


async def at_rest(spools: list[Path]) -> Truth:
    """Return what was accepted, once nothing more is."""
    last = -1
    while last != (truth := await truth_of(*spools)).total:
        last = truth.total
        await asyncio.sleep(1)
    return truth


def stored(api: Api) -> int:
    try:
        return len(api.all_readings())
    except (httpx.HTTPError, AssertionError):
        return -1


@pytest.mark.faults
def test_the_cloud_broker_is_away_for_a_while(broker: RunningBroker, postgres_server: Server, tmp_path: Path) -> None:
    """It is killed, so on mosquitto what it had acknowledged is gone: receipts make up for that."""
    edge_dir = tmp_path / "edge"
    spools = [edge_dir / "spool" / "adapter-a", edge_dir / "spool" / "adapter-b"]
    with (
        running_cloud(tmp_path / "cloud", broker.config, postgres_server) as api,
        ExitStack() as speaking,
    ):
        arguments = ("--kind", "p1", "--kind", "sml", "--count", "6", "--speed", "20")
        meters = meter_configs(speaking.enter_context(virtual_meters(tmp_path, *arguments)))
        config = EdgeConfig(
            data_dir=edge_dir,
            concentrator=EdgeConcentrator(id="field", cloud=broker.config, relay=RelayConfig(retry_s=3.0)),
            adapters=(EdgeAdapter(id="a", meters=meters[:3]), EdgeAdapter(id="b", meters=meters[3:])),
        )
        with component(tmp_path / "run", "edge", config):
            wait_for(lambda: stored(api) > 200, "readings flow")
            broker.kill()
            before = stored(api)
            time.sleep(AWAY_S)
            broker.start()
            wait_for(lambda: stored(api) > before + 900, "the backlog and more have arrived")
            speaking.close()
            while True:
                truth = asyncio.run(at_rest(spools))
                wait_for(lambda: stored(api) >= truth.total, "everything has arrived")  # noqa: B023 - called here
                verdict = judge(truth, api)
                if asyncio.run(truth_of(*spools)).total == truth.total:  # else a busy adapter had more to read
                    break
    assert_good(truth, verdict)
    assert len(truth.accepted) >= 6
