"""The links between the processes: cut, flapping, half-open, slow, repeating, out of order."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from faults.engines import BrokerKind
from faults.load import (
    ADAPTER_BROKER,
    CLOUD_BROKER,
    CLOUD_DATABASE,
    CONCENTRATOR_CLOUD,
    CONCENTRATOR_EDGE,
    Load,
    Setup,
)
from faults.proxy import Link
from faults.scenario import Result, Scenario, result_of

AWAY_S = (3.0, 12.0)
SLOW_S = 0.4
SHARE = 0.2
BAD_FOR_S = 12.0

Fault = Callable[[Link, random.Random], Awaitable[str]]
"""Makes a link bad for a while; returns a note."""


async def cut(link: Link, chance: random.Random) -> str:
    for_s = chance.uniform(*AWAY_S)
    await link.cut()
    await asyncio.sleep(for_s)
    return f"cut for {for_s:.0f} s"


async def flap(link: Link, chance: random.Random) -> str:
    """A radio link at its limit: there and away every moment."""
    count = chance.randrange(8, 16)
    for _ in range(count):
        await link.cut()
        await asyncio.sleep(chance.uniform(0.05, 0.6))
        await link.mend()
        await asyncio.sleep(chance.uniform(0.05, 1.2))
    return f"cut {count} times"


async def half_open(link: Link, chance: random.Random) -> str:
    """As when a router forgets its connections: nobody is told."""
    for_s = chance.uniform(*AWAY_S)
    link.swallow()
    await asyncio.sleep(for_s)
    return f"for {for_s:.0f} s"


async def half_open_down(link: Link, chance: random.Random) -> str:
    """What goes there arrives, what comes back (acknowledgements, receipts) vanishes."""
    for_s = chance.uniform(*AWAY_S)
    link.swallow(frozenset({"down"}))
    await asyncio.sleep(for_s)
    return f"for {for_s:.0f} s"


async def slow(link: Link, _chance: random.Random) -> str:
    link.latency_s = SLOW_S
    await asyncio.sleep(BAD_FOR_S)
    return f"{SLOW_S} s each way"


async def disorderly(link: Link, _chance: random.Random) -> str:
    """Packets come twice and out of order; the connections break now and then, so that both sides send again."""
    link.repeat = link.reorder = SHARE
    for _ in range(3):
        await asyncio.sleep(BAD_FOR_S / 3)
        await link.cut()
        await link.mend()
        link.repeat = link.reorder = SHARE
    return f"{SHARE:.0%} of the messages"


async def on_link(fault: Fault, name: str, setup: Setup, folder: Path, chance: random.Random) -> Result:
    async with Load(folder, setup) as load:
        await load.flows(chance.randrange(100, 500))
        note = await fault(load.links[name], chance)
        await load.links[name].mend()
        recovery_s = await load.recovered()
        await load.flows()
        return result_of(*await load.settle(), recovery_s, note)


FAULTS: dict[str, Fault] = {
    "cut": cut,
    "flapping": flap,
    "half-open": half_open,
    "half-open one way": half_open_down,
    "slow": slow,
    "twice, out of order": disorderly,
}


def _on(
    name: str, edge: BrokerKind, cloud: BrokerKind, *faults: str, quick: frozenset[str] = frozenset()
) -> list[Scenario]:
    engine = edge if name.endswith("edge broker") else cloud

    async def run(do: Fault, folder: Path, chance: random.Random) -> Result:
        return await on_link(
            do, name, Setup(edge=edge, cloud=cloud, linked=frozenset({name}), chance=chance), folder, chance
        )

    return [Scenario(fault, name, engine, partial(run, FAULTS[fault]), quick=fault in quick) for fault in faults]


SCENARIOS = [
    *_on(ADAPTER_BROKER, "nats", "nats", *FAULTS),
    *_on(CONCENTRATOR_EDGE, "nats", "nats", "half-open one way", "twice, out of order"),
    *_on(CONCENTRATOR_CLOUD, "nats", "nats", *FAULTS, quick=frozenset({"cut", "twice, out of order"})),
    *_on(CLOUD_BROKER, "nats", "nats", "flapping", "half-open", "twice, out of order"),
    *_on(CLOUD_DATABASE, "nats", "nats", "cut", "flapping", "half-open", "slow"),
    *_on(CONCENTRATOR_CLOUD, "nats", "mosquitto", *FAULTS),
    *_on(CLOUD_BROKER, "nats", "mosquitto", "flapping", "half-open", "twice, out of order"),
    *_on(CONCENTRATOR_CLOUD, "nats", "rabbitmq", "flapping", "half-open", "twice, out of order"),
]
