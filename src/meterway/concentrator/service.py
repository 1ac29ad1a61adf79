"""The concentrator at work: intake, spool, relay, and its own status."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from meterway.bus.bus import Delivery
from meterway.bus.mqtt import MqttBus, Will
from meterway.concentrator.config import ConcentratorConfig
from meterway.concentrator.forward import is_retained
from meterway.concentrator.intake import Intake
from meterway.core import reports, topics
from meterway.core.errors import TransientError
from meterway.delivery.metrics import Metrics, sending_metrics, serving_metrics
from meterway.delivery.relay import Relay
from meterway.delivery.spool import Spool

State = Literal["online", "waiting", "offline"]

STATUS_EVERY_S = 30.0
STATUS_CHECK_S = 1.0
READY_WITHOUT_BROKER_S = 10.0
"""Ready is said when the local broker is subscribed, or after this: an absent broker is no reason to be restarted."""


async def run(config: ConcentratorConfig, *, ready: Callable[[], None]) -> None:
    """Pass messages on until cancelled; calls ``ready`` once it takes them.

    Raises:
        SetupError: the spool directory belongs to another process or cannot be written; a broker's URL is wrong.
    """
    async with Spool(config.spool_dir, config.spool) as spool:

        def take_receipt(delivery: Delivery) -> None:
            relay.on_receipt(delivery.payload)
            delivery.ack()

        topic = topics.concentrator_own_topic(config.id, topics.SpecificTopic.STATUS)
        cloud = MqttBus(
            config.cloud,
            f"meterway-concentrator-cloud-{config.id}",
            will=Will(topic, _last_will()),
            at_most_once={topics.receipt_topic(config.id): take_receipt},
            clean_session=True,
        )
        intake = Intake(config, spool)
        relay = Relay(spool, cloud, config.relay, retain=is_retained, on_end=intake.on_delivered)
        reporter = _Reporter(topic, cloud, spool, relay, intake, limit_bytes=config.spool.limit_bytes)
        async with serving_metrics(config.metrics, reporter.metrics), cloud:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(relay.run(), name="meterway.concentrator.relay")
                    tasks.create_task(intake.run(), name="meterway.concentrator.intake")
                    tasks.create_task(reporter.run(), name="meterway.concentrator.status")
                    await _wait_for_broker(intake)
                    ready()
            finally:
                reporter.say_offline()


def _last_will() -> bytes:
    detail = "the connection was lost without a good-bye"
    return reports.encode(reports.Status(state="offline", since=datetime.now(UTC), detail=detail))


async def _wait_for_broker(intake: Intake) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_WITHOUT_BROKER_S):
            await intake.bus.wait_connected()


class _Reporter:
    """Publishes ``concentrator/[concentratorId]/status``, retained: on every change and every 30 s.

    ``online``: takes and forwards. ``waiting``: takes nothing now, ``detail`` says why. ``offline``: stopped, or, as
    the last will, gone. In counters ``pending``, ``spool_bytes`` and ``oldest_age_s`` are what waits now; ``accepted``,
    ``forwarded``, ``refused``, ``resent``, ``failed`` (not stored: disk) and ``lost`` (stored and unreadable since)
    count since the start.
    """

    def __init__(
        self, topic: str, cloud: MqttBus, spool: Spool, relay: Relay, intake: Intake, *, limit_bytes: int
    ) -> None:
        self._topic = topic
        self._cloud = cloud
        self._spool = spool
        self._relay = relay
        self._intake = intake
        self._limit_bytes = limit_bytes
        self._state: State = "waiting"
        self._detail: str | None = None
        self._since = datetime.now(UTC)
        self._due = asyncio.Event()
        cloud.on_connect(self._due.set)

    async def run(self) -> None:
        """Publish until cancelled."""
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        while True:
            if self._change(*self._look()) or self._due.is_set() or loop.time() >= next_s:
                self._due.clear()
                next_s = loop.time() + STATUS_EVERY_S
                self._publish()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STATUS_CHECK_S):
                    await self._due.wait()

    def say_offline(self) -> None:
        """Leave in good order."""
        self._change("offline", "stopped")
        self._publish()

    def metrics(self) -> Metrics:
        """Return the numbers of this process; those of intake are about the local broker."""
        intake = self._intake
        gauges, counters = sending_metrics(self._spool.stats(), self._relay.stats(), limit_bytes=self._limit_bytes)
        return Metrics(
            {**gauges, "intake_waiting": intake.trouble is not None, "local_broker_connected": intake.bus.connected}
            | {"cloud_broker_connected": self._cloud.connected},
            {**counters, "intake_accepted": intake.accepted, "intake_refused": intake.refused}
            | {"receipts_dropped": intake.receipts_dropped},
        )

    def _look(self) -> tuple[State, str | None]:
        """Return the state, and why."""
        intake = self._intake
        if intake.trouble is not None:
            return "waiting", intake.trouble
        if not intake.bus.connected:
            return "waiting", intake.bus.last_error or "connecting to the local broker"
        if self._spool.stats().overdue:
            return "online", "messages wait for longer than spool.alarm_age_s; is the cloud receiving?"
        return "online", None

    def _counters(self) -> dict[str, int]:
        stored, sent = self._spool.stats(), self._relay.stats()
        return {
            "pending": stored.pending,
            "spool_bytes": stored.size_bytes,
            "oldest_age_s": round(stored.oldest_age_s),
            "accepted": self._intake.accepted,
            "forwarded": sent.confirmed,
            "refused": self._intake.refused,
            "resent": sent.resent,
            "failed": stored.failed,
            "lost": stored.lost,
        }

    def _change(self, state: State, detail: str | None) -> bool:
        """Take note of the state; tell whether it is another than before."""
        if (state, detail) == (self._state, self._detail):
            return False
        if state != self._state:
            self._since = datetime.now(UTC)
        self._state, self._detail = state, detail
        return True

    def _publish(self) -> None:
        """Say it now if the broker is there; at the next connection it is said anyway."""
        status = reports.Status(state=self._state, since=self._since, detail=self._detail, counters=self._counters())
        with contextlib.suppress(TransientError):
            self._cloud.publish(self._topic, reports.encode(status), retain=True)
