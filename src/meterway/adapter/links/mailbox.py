"""Links of whole messages: one task receives them, another reads; what waits between the two is bounded."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

from meterway.adapter.links.oneway import OneWay
from meterway.adapter.links.throttle import Throttle

_log = logging.getLogger(__name__)

LIMIT_MESSAGES = 1000
LIMIT_BYTES = 4 << 20
"""More than either is not held: the oldest messages are dropped, because the newest say how the meter is now."""


class Mailbox(OneWay):
    """Messages that have come and were not read yet. Messages dropped are counted, and said in the log."""

    message_bounded = True

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self._messages: deque[bytes] = deque()
        self._size_bytes = 0
        self._stirred = asyncio.Event()
        self._error: BaseException | None = None
        self._throttle = Throttle()
        self.dropped = 0

    async def read(self) -> bytes:
        await asyncio.sleep(0)  # what waits is read without waiting: others must have their turn, and time-outs
        while not self._messages:
            if self._error is not None:
                raise self._error
            self._stirred.clear()
            await self._stirred.wait()
        message = self._messages.popleft()
        self._size_bytes -= len(message)
        return message

    def put(self, message: bytes) -> None:
        """Take a message; an empty one says nothing and is left out."""
        if not message:
            return
        self._messages.append(message)
        self._size_bytes += len(message)
        while len(self._messages) > LIMIT_MESSAGES or self._size_bytes > LIMIT_BYTES:
            self._size_bytes -= len(self._messages.popleft())
            self.dropped += 1
            if self._throttle.allow():
                _log.warning("! %s: messages come faster than they are read; %d dropped", self.where, self.dropped)
        self._stirred.set()

    @asynccontextmanager
    async def filled_by(self, receiver: Coroutine[object, object, None]) -> AsyncIterator["Mailbox"]:
        """Run ``receiver``, which puts; the error that ends it is raised by ``read`` once all messages are read."""
        task = asyncio.create_task(receiver, name=f"meterway.adapter.link {self.where}")
        task.add_done_callback(self._note_end)
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._error = task.exception()
            self._stirred.set()
