"""Masters that only find out: several of them in one session, and the knock of Modbus."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from meterway.core.errors import MeterwayError, SetupError, TransientError
from meterway.meter.codec import CodecError
from meterway.meter.family import Line
from meterway.meter.master import Done, Effect, Master, Steps, Wait
from meterway.meter.modbus_frames import NO_GATEWAY_ANSWER
from meterway.meter.modbus_map import Framing, Span
from meterway.meter.modbus_session import Procedure, Session, Timing, Wish
from meterway.meter.telegram import Telegram

_ANSWER_S: Final = 0.4
"""A Modbus meter that is there answers within 0.1 s as a rule; the visit that follows waits for longer."""
_NO_GATEWAY_PATH: Final = 10
_NOBODY: Final = (_NO_GATEWAY_PATH, NO_GATEWAY_ANSWER)
"""What a gateway says in place of a unit that is not there."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(slots=True)
class Result:
    """What one of several masters has read, and why it read no more."""

    items: list[Telegram | CodecError] = field(default_factory=list)
    error: MeterwayError | None = None


class InTurn(Generic[Key]):
    """Several masters, one after the other, in one session; a ``meter.master.Master``.

    What each has read is in ``results``; nothing is handed on. One that cannot be made fails like one that fails.
    """

    def __init__(self, masters: Iterable[tuple[Key, Callable[[], Master]]], *, pause_s: float = 0.0) -> None:
        """``pause_s`` is waited between two of them."""
        self.results: dict[Key, Result] = {}
        self._waiting = iter(list(masters))
        self._pause_s = pause_s
        self._master: Master | None = None
        self._result = Result()

    def start(self, now: float) -> Steps:
        """See ``Master``."""
        return self._next(now)

    def feed(self, data: bytes, now: float) -> Steps:
        """See ``Master``."""
        return self._take(self._master.feed(data, now), now) if self._master else []

    def on_timeout(self, now: float) -> Steps:
        """See ``Master``."""
        return self._take(self._master.on_timeout(now), now) if self._master else []

    def _next(self, now: float) -> Steps:
        for key, make in self._waiting:
            is_first = not self.results
            self._result = self.results[key] = Result()
            try:
                self._master = make()
            except SetupError as error:
                self._result.error = error
                continue
            effects, done = self._kept(self._master.start(now))
            if done is None:
                pause: Steps = [Wait(self._pause_s)] if self._pause_s and not is_first else []
                return [*pause, *effects]
            self._result.error = done.error
        self._master = None
        return [Done(self._failure())]

    def _failure(self) -> MeterwayError | None:
        """Return why none of them could do its work."""
        errors = [result.error for result in self.results.values() if result.error is not None]
        if not self.results:
            return TransientError("there was nothing to ask")
        return errors[-1] if len(errors) == len(self.results) else None

    def _take(self, steps: Steps, now: float) -> Steps:
        effects, done = self._kept(steps)
        if done is None:
            return list(effects)
        self._result.error = done.error
        return [*effects, *self._next(now)]

    def _kept(self, steps: Steps) -> tuple[list[Effect], Done | None]:
        """Keep what was read; return what is to be done, and the end of the session apart."""
        effects: list[Effect] = []
        for step in steps:
            if isinstance(step, Telegram | CodecError):
                self._result.items.append(step)
            elif isinstance(step, Done):
                return effects, step
            else:
                effects.append(step)
        return effects, None


class ModbusKnock(Session):
    """Asks one unit for one register. Any answer, a refusal too, says that somebody is there: ``Done`` has no error."""

    def __init__(self, unit_id: int, framing: Framing, line: Line) -> None:
        timing = Timing(line.baud, _ANSWER_S, pause_s=0.02, link_delay_s=0.25)
        super().__init__(_knock(unit_id), unit_id=unit_id, framing=framing, timing=timing)


def _knock(unit_id: int) -> Procedure:
    reply = yield Wish(Span("input", 0, 1, ()), repeats=0)
    if reply is None or reply.answer is None:
        return TransientError(f"Modbus unit {unit_id} does not answer")
    if reply.answer.refusal in _NOBODY:
        return TransientError(f"a Modbus gateway answers, and says that its unit {unit_id} does not")
    return None
