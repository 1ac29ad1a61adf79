"""What is plugged in here? Listens, then asks, as ``detect_plan`` says; never for longer than that.

    for each step of the plan: open the place, listen or ask, close it
    a meter was found: that is all      somebody is there: what that step wants asked next
    nothing:           the next step

What is found is a meter, or several behind one link (M-Bus, wireless M-Bus, Modbus, an MQTT topic). Whatever comes,
memory is bounded (``LIMIT_BYTES`` a step), and so is time: each step by its own limit, all of them by whoever cancels.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from meterway.adapter.choose import Candidate
from meterway.adapter.config import MqttSource, Rfc2217Source, SerialSource, Source
from meterway.adapter.converse import AskedLink
from meterway.adapter.detect_heard import Judge, is_whole
from meterway.adapter.detect_plan import RADIO_S, WHOLE_S, Listening, Step, other_mode
from meterway.adapter.detect_ports import holders
from meterway.adapter.detect_questions import Conversation, Known, Question, Verdict
from meterway.adapter.detect_radio import PROTOCOL as RADIO
from meterway.adapter.links import Link, describe, open_link
from meterway.core.errors import MeterwayError, SetupError, TransientError
from meterway.meter.diagnose import SILENT, Finding
from meterway.meter.family import Line
from meterway.meter.wmbus_receivers import start_bytes

if TYPE_CHECKING:
    from meterway.meter.codec import CodecError, Decoder
    from meterway.meter.telegram import Telegram

LIMIT_BYTES: Final = 64 * 1024
"""More is not taken in one step; the longest telegrams have 16 KiB."""
_LOOK_BYTES: Final = 64
"""After so many more bytes it is looked whether a telegram has begun, and after an eighth of all."""
_MOST_FAILURES: Final = 3
"""A place that cannot be opened so often, one time after the other, is given up."""
_ECHO_BYTES: Final = 8

Say = Callable[[str, float], None]
"""Is told what begins, and how long it takes at most, in seconds."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was tried, and what came of it; two halves of a sentence."""

    what: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Found:
    """One meter."""

    source: Source
    """Where it was found, with the receiver if it is a radio meter."""
    candidate: Candidate
    """Its family, telegrams and values."""
    line: Line
    """How it was read."""
    address: str = ""
    """Where several share the link."""
    others: tuple[str, ...] = ()
    """Families that fit as well."""
    name: str = ""
    needs: frozenset[str] = frozenset()
    """What its configuration must name: ``key_file``, ``password_file``."""

    @property
    def meter(self) -> str:
        """How it calls itself; empty if it does not, or if it is encrypted."""
        telegrams = self.candidate.heard.telegrams
        return telegrams[-1].meter if telegrams else self.name

    @property
    def has_line(self) -> bool:
        """Whether its line was set from here, so that it is known."""
        return isinstance(self.source, SerialSource | Rfc2217Source)

    @property
    def is_locked(self) -> bool:
        """Whether nothing of it can be read without its key."""
        return not self.candidate.heard.telegrams


@dataclass(slots=True)
class Detection:
    """What came of it all, at one place."""

    source: Source
    attempts: list[Attempt] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    """What the bytes say where nothing was found; and what keeps a meter that was found from being read in full."""


class Detector:
    """Looks at one place; ``result`` grows while it does."""

    def __init__(self, source: Source, known: Known, *, say: Say) -> None:
        self._source = source
        self._say = say
        self._known = known
        self._where = describe(source)
        self._can_set = isinstance(source, SerialSource | Rfc2217Source)
        self._failures = 0
        self._was_open = False
        self._is_silent = True
        self.result = Detection(source)

    async def run(self, steps: Iterable[Step]) -> bool:
        """Take step after step; return whether a meter was found. May be cancelled at any time.

        Raises:
            TransientError: the place cannot be opened; says who holds it, as far as that can be seen.
        """
        waiting = deque(steps)
        while waiting:
            step = waiting.popleft()
            try:
                verdict = await self._take(step)
            except TransientError as error:
                self._note(step, str(error))
                self._failures += 1
                is_gone = self._failures == _MOST_FAILURES or not (self._can_set or self._was_open)
                if is_gone or not waiting:
                    raise self._unusable(error) from error
                continue
            self._failures, self._was_open = 0, True
            if verdict.meters:
                return True
            waiting.extendleft(reversed(verdict.then))
            if isinstance(step, Listening) and verdict.outcome == _ONLY_RECEIVER:
                waiting.extendleft(other_mode(step))
        if self._is_silent and not self.result.findings:
            self.result.findings.append(SILENT)
        return False

    async def _take(self, step: Step) -> Verdict:
        if isinstance(step, Question) and step.sets_line and not self._can_set:
            self._note(
                step, "not possible here: the line behind a gateway cannot be set over plain TCP; use rfc2217://"
            )
            return Verdict()
        doing = "listening" if isinstance(step, Listening) else "asking"
        self._say(f"{doing} {step.what}", step.limit_s)
        return await (self._listen(step) if isinstance(step, Listening) else self._ask(step))

    async def _listen(self, step: Listening) -> Verdict:
        source = self._heard_by(step)
        async with open_link(source, step.line) as link:
            judge = Judge(self._known, is_messages=link.message_bounded, is_shared=_is_shared(source))
            ear = _Ear(link, judge, step, lambda text: self._say(text, WHOLE_S))
            try:
                await ear.hear()
            except asyncio.CancelledError:
                self._heard(step, source, judge, ear.chunks)
                raise
        return self._heard(step, source, judge, ear.chunks)

    def _heard(self, step: Listening, source: Source, judge: Judge, chunks: Sequence[bytes]) -> Verdict:
        if not chunks:
            self._note(step, "nothing came")
            return Verdict()
        self._is_silent = False
        verdict = judge.take(chunks, step.line if self._can_set else None)
        if not verdict.meters and step.receiver:
            verdict = Verdict(outcome=_ONLY_RECEIVER)
        self._add(verdict, source, step.line)
        self._note(step, f"{sum(map(len, chunks))} bytes, {verdict.outcome}")
        return verdict

    async def _ask(self, question: Question) -> Verdict:
        found: list[Telegram | CodecError] = []
        master = question.make_master()
        async with open_link(self._source, question.line) as link:
            counted = _Counted(link)
            asked = AskedLink(counted, question.line, where=self._where, monotonic=time.monotonic)
            problem: MeterwayError | None
            try:
                problem = await asked.converse(master, question.line, found, limit_s=question.limit_s)
            except MeterwayError as error:
                problem = error
            except asyncio.CancelledError:
                self._judge(question, Conversation(master, found, None, counted.heard_bytes))
                raise
        return self._judge(question, Conversation(master, found, problem, counted.heard_bytes))

    def _judge(self, question: Question, said: Conversation) -> Verdict:
        self._is_silent &= not said.heard_bytes
        verdict = question.judge(said)
        self._add(verdict, self._source, question.line)
        self._note(question, verdict.outcome or _outcome(said, verdict))
        return verdict

    def _heard_by(self, step: Listening) -> Source:
        if step.receiver is None or not isinstance(self._source, SerialSource | Rfc2217Source):
            return self._source
        return msgspec.structs.replace(self._source, receiver=step.receiver, radio_mode=step.radio_mode)

    def _add(self, verdict: Verdict, source: Source, line: Line) -> None:
        """Keep what a step came to; where a meter is found, what was wrong before means nothing."""
        known = [] if verdict.meters else self.result.findings
        self.result.findings = [*known, *(each for each in verdict.findings if each not in known)]
        for meter in verdict.meters:
            best = meter.fitting[0]
            others = tuple(each.family.name for each in meter.fitting[1:] if each.rank == best.rank)
            self.result.found.append(Found(source, best, line, meter.address, others, meter.name, meter.needs))

    def _note(self, step: Step, outcome: str) -> None:
        did = "listened" if isinstance(step, Listening) else "asked"
        self.result.attempts.append(Attempt(f"{did} {step.what}", outcome))

    def _unusable(self, error: TransientError) -> TransientError:
        names = holders(self._source.port) if isinstance(self._source, SerialSource) else []
        if not names:
            return error
        return TransientError(f"{self._where} is held by {', '.join(names)}; stop it, then try again ({error})")


_ONLY_RECEIVER: Final = "a receiver answers, and no radio meter was heard"


class _Ear:
    """Listens at one setting of the line."""

    def __init__(self, link: Link, judge: Judge, step: Listening, say: Callable[[str], None]) -> None:
        self._link = link
        self._judge = judge
        self._step = step
        self._say = say
        self._chunks: list[bytes] = []
        self._heard = bytearray()
        self._next_look = 0
        self._is_radio = False
        self._decoder: Decoder | None = None
        self._begin = time.monotonic()
        self._end = self._begin + step.first_s
        self._last = self._begin + step.limit_s

    @property
    def chunks(self) -> list[bytes]:
        """What came; nothing, if it is only the echo of what a receiver was told."""
        return self._chunks if self._said() else []

    async def hear(self) -> None:
        """Listen until a telegram is whole, the time is over, or it is too much.

        Raises:
            TransientError: the link broke before anything came.
        """
        try:
            while len(self._heard) < LIMIT_BYTES:
                async with asyncio.timeout(max(0.0, min(self._end, self._last) - time.monotonic())):
                    data = await self._link.read()
                if not data:
                    break
                self._take(data)
        except TimeoutError:
            pass
        except TransientError:  # closed by the other side: what came before counts
            if not self._chunks and self._step.receiver is None and self._link.message_bounded:
                raise

    def _take(self, data: bytes) -> None:
        is_first = not self._chunks
        self._chunks.append(data)
        self._heard += data
        if self._link.message_bounded:
            self._end = time.monotonic() + self._step.listen_s if is_first else self._end
        elif self._step.receiver is not None:
            self._end = self._begin + self._step.listen_s if self._said() else self._end
        else:
            self._watch(data)

    def _said(self) -> bool:
        """Return whether more came than the echo of what a receiver is told."""
        if self._step.receiver is None:
            return bool(self._heard)
        return bool(self._heard.replace(start_bytes(self._step.receiver, self._step.radio_mode), b""))

    def _watch(self, data: bytes) -> None:
        """Look whether a telegram has begun, and whether it is whole."""
        now = time.monotonic()
        if self._decoder is None:
            if len(self._heard) < self._next_look:
                return
            self._next_look = len(self._heard) + max(_LOOK_BYTES, len(self._heard) // 8)
            known = self._judge.recognise(bytes(self._heard))
            if known is None:
                return
            self._say(f"{known.sign}; waiting for the whole telegram")
            self._is_radio = known.protocol == RADIO
            self._end = now + (RADIO_S if self._is_radio else WHOLE_S)
            self._last = max(self._last, self._end)
            self._decoder = self._judge.decoder(known.protocol)
            data = bytes(self._heard)
        if any(is_whole(item) for item in self._decoder.feed(data, now)) and not self._is_radio:
            self._end = min(self._end, now + self._step.listen_s)


class _Counted:
    """A link that counts what comes beside the echo of what was sent."""

    def __init__(self, link: Link) -> None:
        self.message_bounded = link.message_bounded
        self.set_line = link.set_line
        self._link = link
        self._sent = self._heard = 0
        self._first_sent = self._first_heard = b""

    @property
    def heard_bytes(self) -> int:
        """How many bytes came; an optical head gives back all that is sent."""
        is_echo = bool(self._first_heard) and self._first_sent.startswith(self._first_heard)
        return max(0, self._heard - self._sent) if is_echo else self._heard

    async def read(self) -> bytes:
        """See ``Link``."""
        data = await self._link.read()
        self._heard += len(data)
        self._first_heard = (self._first_heard + data)[:_ECHO_BYTES]
        return data

    async def write(self, data: bytes) -> None:
        """See ``Link``."""
        self._sent += len(data)
        self._first_sent = (self._first_sent + data)[:_ECHO_BYTES]
        await self._link.write(data)


def _outcome(said: Conversation, verdict: Verdict) -> str:
    if verdict.meters:
        return f"{len(verdict.meters)} meter{'s' * (len(verdict.meters) > 1)} answered"
    if isinstance(said.problem, SetupError) and said.heard_bytes:
        return str(said.problem)
    if isinstance(said.problem, SetupError):
        return f"not possible here: {said.problem}"
    if not said.heard_bytes:
        return "nobody answers"
    return f"{said.heard_bytes} bytes came that are no answer"


def _is_shared(source: Source) -> bool:
    """Return whether a topic may carry what several devices say."""
    return isinstance(source, MqttSource) and bool({"+", "#"} & set(source.topic.split("/")))
