"""The platform under load where components run with other settings, or with a library between them and the system."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import msgspec

from faults.load import Load, Setup, until
from meterway import process
from meterway.adapter.config import AdapterConfig
from meterway.cloud.config import CloudConfig
from meterway.concentrator.config import ConcentratorConfig
from meterway.delivery.config import RelayConfig
from meterway.edge import component
from meterway.process import ChildProcess, Command
from support.platform import MqttClient

_NAMES: dict[type[msgspec.Struct], str] = {
    AdapterConfig: "adapter",
    ConcentratorConfig: "concentrator",
    CloudConfig: "cloud",
}


@dataclass(frozen=True, slots=True)
class Fit:
    """How one component runs."""

    environment: Mapping[str, str] = field(default_factory=dict)
    change: Callable[[Any], Any] | None = None
    """What to make of its configuration."""


class Rig(Load):
    """The platform with some components fitted by name."""

    def __init__(self, data_dir: Path, fits: Mapping[str, Fit], setup: Setup | None = None) -> None:
        super().__init__(data_dir, setup)
        self._fits = fits

    def _adapted(self, config: AdapterConfig | ConcentratorConfig | CloudConfig) -> msgspec.Struct:
        adapted = super()._adapted(config)
        change = self._fits.get(_NAMES[type(config)], Fit()).change
        return adapted if change is None else change(adapted)

    async def _run(self, stack: AsyncExitStack, command: Command) -> ChildProcess:
        environment = self._fits.get(command.name, Fit()).environment
        return await super()._run(stack, replace(command, environment={**command.environment, **environment}))

    async def add_concentrator(self, concentrator_id: str) -> None:
        """Run one more between the same brokers."""
        config = ConcentratorConfig(
            id=concentrator_id,
            local=self._reach("edge broker", "concentrator"),
            cloud=self._reach("cloud broker", "concentrator"),
            spool_dir=self.options.data_dir / "spool" / concentrator_id,
            relay=RelayConfig(retry_s=self.setup.retry_s),
        )
        command = component("concentrator", config, self._folder / concentrator_id)
        await self._run(self._stack, replace(command, name=concentrator_id))

    async def back(self, component: str) -> None:
        """Return when ``component`` runs again and is ready."""

        async def is_ready() -> bool:
            return self.processes[component].pid is not None and self.processes[component].ready

        await until(is_ready, f"{component} is ready again")

    async def says(self, topic: str, words: str) -> None:
        """Return when somebody says ``words`` on ``topic``."""
        with MqttClient(self.broker.config(), topic) as client:

            async def said() -> bool:
                return any(words in payload.decode() for _, payload in list(client.messages))

            await until(said, f"{words!r} is said on {topic}")

    async def cloud_says(self, words: str) -> None:
        """Return when the cloud is not ready, with these words."""

        async def said() -> bool:
            try:
                return words in (await asyncio.to_thread(httpx.get, f"{self.page_url}readyz")).text
            except httpx.HTTPError:
                return False

        await until(said, f"the cloud says {words!r}")


@contextmanager
def quick_restarts(longest_s: float = 0.5) -> Iterator[None]:
    """Let what ends again and again be started again soon: it is the test that ends it."""
    usual_s = process.LONGEST_DELAY_S
    process.LONGEST_DELAY_S = longest_s
    try:
        yield
    finally:
        process.LONGEST_DELAY_S = usual_s
