"""What an adapter says of one meter beside its readings: a retained status with last will, a retained description.

A session of its own for each meter (docs/adr/0002), so that the last will is that meter's own.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Literal, Self

from meterway.bus.bus import BrokerConfig
from meterway.bus.mqtt import MqttBus, Will
from meterway.core import reports
from meterway.core.errors import TransientError
from meterway.core.reports import MeterDescription, Status
from meterway.core.topics import SpecificTopic, smart_meter_topic

State = Literal["online", "waiting", "silent", "offline"]

_STOPPED = "the adapter was stopped"
_DIED = "the adapter died or lost its broker; this is its last will"


class StatusSession:
    """Publishes the present status and description of one meter; again at every connect."""

    def __init__(self, broker: BrokerConfig, adapter_id: str, meter_id: str, wall: Callable[[], datetime]) -> None:
        self._wall = wall
        self._status_topic = smart_meter_topic(meter_id, SpecificTopic.STATUS)
        self._meter_topic = smart_meter_topic(meter_id, SpecificTopic.METER)
        self._status = Status(state="waiting", since=wall())
        self._description: MeterDescription | None = None
        last_will = Status(state="offline", since=wall(), detail=_DIED, reason="died")
        self._bus = MqttBus(
            broker,
            f"{adapter_id}-status-{meter_id}",
            will=Will(self._status_topic, reports.encode(last_will)),
            clean_session=True,
        )

    async def __aenter__(self) -> Self:
        await self._bus.__aenter__()
        self._bus.on_connect(self._publish_all)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.set("offline", _STOPPED, self._status.counters, reason="stopped")
        await self._bus.__aexit__(kind, error, trace)

    @property
    def state(self) -> State:
        return self._status.state

    @property
    def detail(self) -> str | None:
        return self._status.detail

    def set(
        self, state: State, detail: str | None, counters: dict[str, int], *, reason: Literal["link", "stopped"] = "link"
    ) -> None:
        """Say how the meter is, and with ``offline`` what is down; ``since`` moves only when the state does."""
        since = self._status.since if state == self._status.state else self._wall()
        said = reason if state == "offline" else None
        self._status = Status(state=state, since=since, detail=detail, reason=said, counters=counters)
        self._publish(self._status_topic, reports.encode(self._status))

    def describe(self, description: MeterDescription) -> None:
        """Say what the meter is; does nothing if that is known already."""
        if description != self._description:
            self._description = description
            self._publish(self._meter_topic, reports.encode(description))

    def _publish_all(self) -> None:
        self._publish(self._status_topic, reports.encode(self._status))
        if self._description is not None:
            self._publish(self._meter_topic, reports.encode(self._description))

    def _publish(self, topic: str, payload: bytes) -> None:
        try:
            self._bus.publish(topic, payload, retain=True)
        except TransientError:
            return  # published at the next connect, which says what holds then


class StatusSessions:
    """The sessions of an adapter's meters; each is opened when its meter is first heard of."""

    def __init__(self, broker: BrokerConfig, adapter_id: str, wall: Callable[[], datetime]) -> None:
        self._broker = broker
        self._adapter_id = adapter_id
        self._wall = wall
        self._open: dict[str, StatusSession] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # One after the other, the sessions of hundreds of meters would take longer than a stop may.
        await asyncio.gather(*(session.__aexit__(kind, error, trace) for session in self._open.values()))

    async def of(self, meter_id: str) -> StatusSession:
        """Return the session of a meter."""
        session = self._open.get(meter_id)
        if session is None:
            session = StatusSession(self._broker, self._adapter_id, meter_id, self._wall)
            self._open[meter_id] = await session.__aenter__()
        return session
