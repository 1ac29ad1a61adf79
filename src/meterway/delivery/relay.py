"""The sending side of a hop: from the spool to the broker, until the receiver has confirmed."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial

from meterway.bus.bus import Bus
from meterway.core import receipts
from meterway.core.errors import BadDataError, TransientError
from meterway.delivery.config import RelayConfig
from meterway.delivery.flight import Flight, Flying
from meterway.delivery.record import Record
from meterway.delivery.spool import Spool
from meterway.delivery.stats import RelayStats

_log = logging.getLogger(__name__)

TURN_ITEMS = 256
"""How many messages are sent before other tasks have their turn."""

BACKLOG_FOR_ONE_NEW = 3
"""While a backlog drains, one message that was stored just now is sent for so many of the backlog."""

LIMIT_RETAINED = 65_536
"""For how many topics the newest retained message is remembered; beyond, all are forgotten and learnt anew."""

_TICK_S = 0.25
_BLOCKED_S = 0.01


class Relay:
    """Sends what is in ``spool`` over ``bus``, oldest first, many on their way, again until confirmed.

    While a backlog drains, every fourth message is one that was stored just now, so that live values need not wait for
    it. Messages that the broker keeps stay in order: the last one is what holds.

    ``retain`` tells by the topic whether the broker is to keep the message. ``on_end`` is told of each message that is
    confirmed, or that no broker takes. Give what arrives on
    ``receipt/[senderId]`` to ``on_receipt``. Runs in ``run``, a task of the caller's; made inside a running event loop.
    """

    def __init__(
        self,
        spool: Spool,
        bus: Bus,
        config: RelayConfig | None = None,
        *,
        retain: Callable[[str], bool] | None = None,
        on_end: Callable[[Record], None] = lambda _: None,
    ) -> None:
        self._spool = spool
        self._bus = bus
        self._config = config or RelayConfig()
        self._retain = retain
        self._by_broker = self._config.confirm == "broker"
        self._flight = Flight(
            limit_items=self._config.in_flight,
            limit_bytes=self._config.in_flight_bytes,
            retry_s=self._config.retry_s,
            retry_limit_s=self._config.retry_limit_s,
            on_end=on_end,
        )
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._retained: dict[str, int] = {}
        self._finished: list[int] = []
        self._credit = 0
        self._count_sent = self._count_resent = self._count_confirmed = 0
        self._count_unknown = self._count_bad = self._count_undeliverable = 0
        spool.on_durable(self._wake.set)
        bus.on_connect(self._on_connect)

    async def run(self) -> None:
        """Send until cancelled."""
        retry_at_s = self._loop.time()
        while True:
            self._wake.clear()
            timer = self._loop.call_later(_TICK_S, self._wake.set)
            try:
                if self._loop.time() >= retry_at_s:
                    self._flight.retry(self._loop.time())
                    retry_at_s = self._loop.time() + min(_TICK_S, self._config.retry_s / 4)
                self._settle()
                if self._bus.connected:
                    await self._load()
                    self._send_turn()
                # An event that is set does not give other tasks a turn.
                await (asyncio.sleep(0) if self._wake.is_set() else self._wake.wait())
            finally:
                timer.cancel()

    def on_receipt(self, payload: bytes) -> None:
        """Take a receipt; a bad one is counted, and what it should have said is sent and confirmed again.

        Anybody may be who sends bad ones, so only the first is logged as a warning.
        """
        try:
            digests = receipts.decode(payload)
        except BadDataError as error:
            self._count_bad += 1
            _log.log(logging.WARNING if self._count_bad == 1 else logging.DEBUG, "! %s", error)
            return
        now_s = self._loop.time()
        found = [position for digest in digests if (position := self._flight.confirm(digest, now_s)) is not None]
        self._count_unknown += len(digests) - len(found)
        self._finish(found)

    def stats(self) -> RelayStats:
        """Return what the relay is doing."""
        return RelayStats(
            in_flight=len(self._flight),
            in_flight_bytes=self._flight.size_bytes,
            sent=self._count_sent,
            resent=self._count_resent,
            confirmed=self._count_confirmed,
            unknown=self._count_unknown,
            bad_receipts=self._count_bad,
            undeliverable=self._count_undeliverable,
        )

    async def _load(self) -> None:
        """Fill the room in flight from the spool."""
        limit_items = min(self._flight.room_items, TURN_ITEMS)
        if not limit_items or not self._flight.room_bytes:
            return
        newest = self._spool.take_newest(
            min(limit_items, self._credit // BACKLOG_FOR_ONE_NEW), self._flight.room_bytes, self._may_overtake
        )
        self._credit -= BACKLOG_FOR_ONE_NEW * len(newest)
        self._add(newest)
        try:
            records = await self._spool.take(limit_items - len(newest), self._flight.room_bytes)
        except TransientError as error:
            _log.warning("! %s", error)
            return
        self._credit = min(self._credit + len(records), TURN_ITEMS)
        self._add(records)

    def _add(self, records: Iterable[Record]) -> None:
        for record in records:
            self._flight.add(record, b"" if self._by_broker else receipts.digest(record.topic, record.payload))

    def _may_overtake(self, topic: str) -> bool:
        return self._retain is None or not self._retain(topic)

    def _send_turn(self) -> None:
        """Send what waits, up to ``TURN_ITEMS``; come back at once for the rest, or when the broker has room."""
        now_s = self._loop.time()
        for _ in range(TURN_ITEMS):
            flying = self._flight.next()
            if flying is None:
                return
            try:
                self._send(flying)
            except TransientError:
                self._loop.call_later(_BLOCKED_S, self._wake.set)
                return
            except BadDataError as error:
                self._give_up(flying, error)
                continue
            self._count_sent += 1
            self._count_resent += flying.sends > 0
            self._flight.sent(flying, now_s)
        self._wake.set()

    def _send(self, flying: Flying) -> None:
        record = flying.record
        self._bus.publish(
            record.topic,
            record.payload,
            retain=self._is_newest_retained(record.topic, record.number),
            on_ack=partial(self._on_broker_ack, record.number) if self._by_broker else None,
        )

    def _is_newest_retained(self, topic: str, position: int) -> bool:
        """Tell whether the broker is to keep this message; an old one sent again must not replace a newer one."""
        if self._retain is None or not self._retain(topic):
            return False
        if len(self._retained) >= LIMIT_RETAINED:
            self._retained.clear()
        newest = max(position, self._retained.get(topic, position))
        self._retained[topic] = newest
        return position == newest

    def _give_up(self, flying: Flying, error: BadDataError) -> None:
        self._count_undeliverable += 1
        _log.error("! given up, because no broker takes it: %s", error)
        self._flight.drop(flying)
        self._finished.append(flying.record.number)
        self._wake.set()

    def _on_connect(self) -> None:
        self._flight.retry_all()
        self._wake.set()

    def _on_broker_ack(self, position: int) -> None:
        if self._flight.finish(position, self._loop.time()):
            self._finished.append(position)
            self._count_confirmed += 1
            self._wake.set()

    def _finish(self, positions: list[int]) -> None:
        self._count_confirmed += len(positions)
        self._finished.extend(positions)
        self._wake.set()

    def _settle(self) -> None:
        """Tell the spool, in one go, what was finished since the last turn."""
        finished, self._finished = self._finished, []
        self._spool.done(finished)
