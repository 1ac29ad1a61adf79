"""What is plugged in here? Listens at the usual line settings, then asks; never for longer than it says.

    for each of LINES: listen for LISTEN_S; where something begins like a telegram, until it is whole, at most WHOLE_S
    nothing: ask as meters are asked that speak only then (``detect_questions``)

What is found is a meter, or several behind one link (M-Bus, wireless M-Bus).
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from meterway.adapter.choose import Candidate, candidate_of, candidates, ranked
from meterway.adapter.config import Rfc2217Source, SerialSource, Source
from meterway.adapter.converse import AskedLink
from meterway.adapter.detect_questions import Question
from meterway.adapter.links import Link, describe, open_link
from meterway.core.errors import MeterwayError, SetupError, TransientError
from meterway.core.zones import find_zone
from meterway.meter.codec import CodecError, Decoder
from meterway.meter.diagnose import Finding, diagnose, hear
from meterway.meter.driver import MeterSetup
from meterway.meter.family import Family, Line
from meterway.meter.keys import NO_KEYS, Keys
from meterway.meter.recognise import recognise
from meterway.meter.telegram import Telegram
from meterway.plugins import make_decoder

LISTEN_S: Final = 3.0
"""At each line setting."""
WHOLE_S: Final = 15.0
"""So long is waited for the rest of a telegram that has begun; some meters send every 10 s."""
LIMIT_BYTES: Final = 256 * 1024
"""More is not taken at one line setting."""
LINES: Final = (
    Line(baud=9600),
    Line(baud=9600, data_bits=7, parity="E"),
    Line(baud=115_200),
    Line(baud=2400, parity="E"),
)
"""SML heads; mode D heads and old P1; P1; DLMS on M-Bus."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was tried, and what came of it; two halves of a sentence."""

    what: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Found:
    """One meter."""

    candidate: Candidate
    """Its family, telegrams and values."""
    line: Line
    """How it was read."""
    address: str = ""
    """Where several share the link."""
    others: tuple[str, ...] = ()
    """Families that fit as well."""

    @property
    def meter(self) -> str:
        """How it calls itself; empty if it does not, or if it is encrypted."""
        telegrams = self.candidate.heard.telegrams
        return telegrams[-1].meter if telegrams else ""


@dataclass(slots=True)
class Detection:
    """What came of it all."""

    attempts: list[Attempt] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    """What the bytes say where nothing was found; and what keeps a meter that was found from being read in full."""


class Detector:
    """Looks at one place."""

    def __init__(
        self,
        source: Source,
        families: Sequence[Family],
        *,
        keys: Keys = NO_KEYS,
        listen_s: float = LISTEN_S,
        say: Say,
    ) -> None:
        """``families`` are those that may be there; ``say`` is told of each step as it begins."""
        self._source = source
        self._families = families
        self._keys = keys
        self._listen_s = listen_s
        self._say = say
        self._where = describe(source)
        self.result = Detection()

    async def listen(self) -> bool:
        """Listen at each line setting; return whether a meter was found.

        Raises:
            TransientError: the place cannot be opened.
        """
        can_set = isinstance(self._source, SerialSource | Rfc2217Source)
        unknown: list[tuple[Line, list[bytes]]] = []
        problems: list[TransientError] = []
        lines = LINES if can_set else LINES[:1]
        for line in lines:
            at = f" at {_named(line)}" if can_set else ""
            self._say(f"{self._where}: listening{at} for {self._listen_s:g} s")
            try:
                async with open_link(self._source, line) as link:
                    chunks = await self._hear(link)
            except TransientError as error:  # some ports have no 7E1
                problems.append(error)
                self.result.attempts.append(Attempt(f"listened{at}", str(error)))
                continue
            if self._take(chunks, line, f"listened{at}"):
                return True
            if chunks:
                unknown.append((line, chunks))
        if len(problems) == len(lines):
            raise problems[0]
        if unknown:
            line, chunks = max(unknown, key=lambda heard: sum(map(len, heard[1])))
            decoder = self._decoder(self._families[0])
            self.result.findings += diagnose(hear(chunks, decoder), "", line, self._plain_decoder)
        return False

    async def ask(self, questions: Iterable[Question]) -> bool:
        """Ask in each of these ways; return whether a meter answered.

        Raises:
            TransientError: the place cannot be opened.
        """
        for question in questions:
            self._say(f"{self._where}: {question.doing}, at most {question.limit_s:g} s")
            found: list[Telegram | CodecError] = []
            async with open_link(self._source, question.line) as link:
                asked = AskedLink(link, question.line, where=self._where, monotonic=time.monotonic)
                master = question.make_master()
                problem = await asked.converse(master, question.line, found, limit_s=question.limit_s)
            meters = question.meters(master, [item for item in found if isinstance(item, Telegram)])
            for address, telegrams in meters.items():
                fitting = ranked(candidate_of(family, telegrams) for family in question.families)
                self._add(fitting, question.line, address)
            self.result.attempts.append(Attempt(question.done, _outcome(len(meters), found, problem)))
            if meters:
                return True
        return False

    async def _hear(self, link: Link) -> list[bytes]:
        """Return what comes, until a telegram is whole or the time is over."""
        chunks: list[bytes] = []
        heard = b""
        decoder: Decoder | None = None
        end = time.monotonic() + self._listen_s
        try:
            while len(heard) < LIMIT_BYTES:
                async with asyncio.timeout(max(0.0, end - time.monotonic())):
                    data = await link.read()
                if not data:
                    break
                chunks.append(data)
                heard += data
                if decoder is None and (known := recognise(heard)):
                    self._say(f"{self._where}: {known.sign}; waiting for the whole telegram")
                    end = time.monotonic() + WHOLE_S
                    decoder = self._plain_decoder(known.protocol)
                    data = heard
                if decoder is not None and any(_is_whole(item) for item in decoder.feed(data, time.monotonic())):
                    end = min(end, time.monotonic() + self._listen_s)
                    decoder = None if link.message_bounded else decoder
        except TimeoutError:
            pass
        except TransientError:  # closed by the other side: what came before counts
            if not chunks:
                raise
        return chunks

    def _take(self, chunks: list[bytes], line: Line, what: str) -> bool:
        size = f"{sum(map(len, chunks))} bytes" if chunks else "nothing came"
        fitting = candidates(chunks, self._families, self._decoder) if chunks else []
        best = fitting[0] if fitting else None
        if best is None or not (best.heard.telegrams or best.locked):
            self.result.attempts.append(Attempt(what, f"{size}, no telegram" if chunks else size))
            return False
        names = sorted({telegram.meter for telegram in best.heard.telegrams})
        alike = [each.family for each in fitting if each.family.protocol == best.family.protocol]
        if len(names) > 1:
            for name in names:
                own = [telegram for telegram in best.heard.telegrams if telegram.meter == name]
                self._add(ranked(candidate_of(family, own) for family in alike), line, name)
        else:
            self._add(fitting, line)
        count = f"{len(best.heard.telegrams)} telegrams"
        self.result.attempts.append(Attempt(what, f"{size}, {count} of {best.family.protocol}"))
        self.result.findings += diagnose(best.heard, best.family.protocol, line, self._plain_decoder)
        return True

    def _add(self, fitting: Sequence[Candidate], line: Line, address: str = "") -> None:
        best = fitting[0]
        others = tuple(each.family.name for each in fitting[1:] if each.rank == best.rank)
        self.result.found.append(Found(best, line, address, others))

    def _decoder(self, family: Family) -> Decoder:
        return make_decoder(MeterSetup(family=family, zone=find_zone(family.timezone), keys=self._keys))

    def _plain_decoder(self, protocol: str) -> Decoder:
        return make_decoder(MeterSetup.unknown(protocol, find_zone("UTC"), keys=self._keys))


def _is_whole(item: Telegram | CodecError) -> bool:
    return isinstance(item, Telegram) or item.reason in ("encrypted", "bad-key")


def _outcome(meters: int, found: Sequence[Telegram | CodecError], problem: MeterwayError | None) -> str:
    if meters:
        return f"{meters} meter{'s' * (meters > 1)} answered"
    if isinstance(problem, SetupError):
        return f"not possible here: {problem}"
    damaged = sum(isinstance(item, CodecError) for item in found)
    return f"no answer that could be read{f', {damaged} damaged' if damaged else ''}: {problem}"


def _named(line: Line) -> str:
    return f"{line.baud} {line.data_bits}{line.parity}{line.stop_bits}"
