"""The asking loop: one link, and the meters on it that are visited one after the other."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from meterway.adapter.converse import AskedLink
from meterway.adapter.intake import DefectError, Intake
from meterway.adapter.links import Link
from meterway.adapter.schedule import Schedule
from meterway.adapter.segment import SETUP_PAUSE_S, STATUS_INTERVAL_S, Segment, keep_open
from meterway.adapter.status import State
from meterway.core.errors import MeterwayError, SetupError, TransientError
from meterway.meter.codec import CodecError
from meterway.meter.family import Line
from meterway.meter.master import Master
from meterway.meter.telegram import Telegram

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Asked:
    """A meter that is asked."""

    intake: Intake
    line: Line
    """How it is set when a session begins."""
    make_master: Callable[[], Master]
    watchdog_s: float
    """After so long without an answer it is silent."""
    alive: float = 0.0
    """When it answered last, or the adapter began, by the monotonic clock."""
    has_answered: bool = False
    problem: MeterwayError | None = None
    """Of its last visit."""
    again_s: float = 0.0
    """How long after its last visit it is asked again, if that failed."""
    said: tuple[State, str | None] | None = None


class Asker:
    """Asks the meters of one link for ever. One that fails backs off and costs the others no turn."""

    def __init__(self, segment: Segment, meters: Sequence[Asked], *, monotonic: Callable[[], float]) -> None:
        self._segment = segment
        self._meters = {meter.intake.meter_id: meter for meter in meters}
        self._monotonic = monotonic
        self._schedule = Schedule({name: meter.intake.interval_s for name, meter in self._meters.items()}, monotonic())
        self._is_resting = False
        """Between two visits: a link that breaks then costs nothing, and many gateways close one that is idle."""
        self._answers = 0
        """Since the link broke last."""
        self._status_time = monotonic()

    async def run(self) -> None:
        """Ask until cancelled."""
        for meter in self._meters.values():
            meter.alive = self._monotonic()
        self._tell()
        await keep_open(self._segment, self._serve, self._broken)

    async def _serve(self, link: Link) -> None:
        asked = AskedLink(link, self._segment.line, where=self._segment.where, monotonic=self._monotonic)
        while True:
            self._tell()
            self._is_resting = True
            await asked.rest(min(self._schedule.wait_s(self._monotonic()), STATUS_INTERVAL_S))
            self._is_resting = False
            due = self._schedule.due(self._monotonic())
            for name in due:
                await self._visit(asked, self._meters[name])
            if due and all(meter.problem for meter in self._meters.values()):
                self._tell()
                raise _UnansweredError(f"{self._segment.where}: nobody answers; it is opened anew")

    async def _visit(self, link: AskedLink, meter: Asked) -> None:
        """Ask a meter, and hand on what it says.

        Raises:
            TransientError: the link broke; the meter's turn is over all the same, for it may be why.
        """
        found: list[Telegram | CodecError] = []
        broken: TransientError | None = None
        problem: MeterwayError | None
        try:
            with meter.intake.contained():
                problem = await link.converse(meter.make_master(), meter.line, found)
        except TransientError as error:
            problem = broken = error
        except MeterwayError as error:
            problem = error
        await self._finish(meter, found, problem)
        if broken is not None:
            raise broken

    async def _finish(
        self, meter: Asked, found: Sequence[Telegram | CodecError], problem: MeterwayError | None
    ) -> None:
        is_read = False
        try:
            with meter.intake.contained():
                is_read = await meter.intake.take(found)
        except MeterwayError as error:
            problem = error
        name, now = meter.intake.meter_id, self._monotonic()
        if problem is not None:
            _log.warning("! meter %s: %s", name, problem)
        if is_read:
            self._answers += 1
            self._schedule.finished(name, now)
            meter.alive, meter.has_answered, meter.problem = now, True, None
            meter.said = ("online", None)
            return
        meter.problem = problem or TransientError("the meter was asked, and said nothing that could be read")
        pause_s = SETUP_PAUSE_S if isinstance(problem, SetupError) else 0.0
        meter.again_s = self._schedule.failed(name, now, pause_s=pause_s)

    def _tell(self) -> None:
        """Say what is new of every meter, and from time to time what is not, for its counters."""
        now = self._monotonic()
        is_time = now - self._status_time > STATUS_INTERVAL_S
        for meter in self._meters.values():
            status = self._status(meter, now)
            if status != meter.said:
                self._say(meter, *status)
            elif is_time:
                meter.intake.say_again()
        if is_time:
            self._status_time = now

    @staticmethod
    def _status(meter: Asked, now: float) -> tuple[State, str | None]:
        """Return how a meter is while the link is open."""
        interval_s, problem = meter.intake.interval_s, meter.problem
        why = None if problem is None else f"{problem}; asked again after {meter.again_s:g} s"
        if isinstance(problem, SetupError | DefectError):
            return "offline", why
        if now - meter.alive > meter.watchdog_s:
            return "silent", why or f"no answer for more than {meter.watchdog_s:g} s"
        if meter.has_answered:
            return "online", why
        return "waiting", why or f"asked every {interval_s:g} s; first answer pending"

    @staticmethod
    def _say(meter: Asked, state: State, detail: str | None) -> None:
        meter.said = (state, detail)
        meter.intake.say(state, detail)

    async def _broken(self, error: MeterwayError) -> bool:
        if not self._is_resting and not isinstance(error, _UnansweredError):
            for meter in self._meters.values():
                self._say(meter, "offline", str(error))
        self._is_resting = False
        answers, self._answers = self._answers, 0
        return answers > 0


class _UnansweredError(TransientError):
    """The link is open, and may yet be dead: nothing tells when the other end of a connection is gone."""
