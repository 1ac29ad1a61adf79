"""Finding the meters of an M-Bus segment: which addresses, at which baud rate.

Secondary search (EN 13757-3:2018, 11.5): select all whose number fits a pattern, and ask. No answer: there is none.
Understood data: there is one. Damaged data: there are several, and the first open digit of the pattern is tried from
0 to 9. Meters with the same number are told apart by their device type. Only decimal digits are tried; a meter whose
number has others is found where it is the only one that fits.
"""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from typing import Final

from meterway.core.errors import TransientError
from meterway.meter.codec import CodecError
from meterway.meter.master import SetLine, Wait
from meterway.meter.mbus import Identity, read_answer, read_identity
from meterway.meter.mbus_address import SecondaryAddress
from meterway.meter.mbus_frames import (
    ADDRESS_SELECTED,
    FRAME_COUNT_BIT,
    REQ_UD2,
    SND_NKE,
    short_frame,
)
from meterway.meter.mbus_session import Answer, Ask, Procedure, Session, Wants, mbus_line
from meterway.meter.telegram import Telegram

QUESTIONS_LIMIT: Final = 20_000
"""The most frames of one search: some hours at 2400 baud, where a line is so bad that all looks like collisions."""

_REPEATS: Final = 1
_LONG_HEADER: Final = 0x72
_OPEN: Final = "F"
_DEVICE_TYPES: Final = (*range(0x10), *range(0x14, 0x2B), 0x30, 0x31, 0x36, 0x37, 0x38)

Finding = Generator[Ask | SetLine | Wait | Telegram | CodecError, Answer | None, None]


@dataclass(frozen=True, slots=True)
class MbusFound:
    """A meter that answered."""

    baud: int
    primary: int
    """The primary address that its answer bears; several meters may bear the same."""
    identity: Identity | None
    """None where it answers without a long header."""
    telegram: Telegram | None
    """What it answered; None where that is encrypted."""


class MbusSearch(Session):
    """Looks for meters at each of ``bauds``; a ``meter.master.Master``.

    ``primary`` are the primary addresses to ask; ``secondary``: whether to search for secondary addresses, from
    ``pattern`` on. What is found is handed on as telegrams too. Takes about 0.5 s per question that nobody answers.
    """

    def __init__(
        self,
        zone: tzinfo,
        *,
        bauds: Sequence[int] = (2400,),
        primary: Iterable[int] = (),
        secondary: bool = True,
        pattern: SecondaryAddress | None = None,
        baud: int = 2400,
        link_delay_s: float = 0.25,
    ) -> None:
        self.found: list[MbusFound] = []
        self._zone = zone
        self._bauds = tuple(bauds)
        self._primary = tuple(primary)
        self._patterns = (pattern or SecondaryAddress(),) if secondary else ()
        super().__init__(
            self._search(),
            baud=baud,
            link_delay_s=link_delay_s,
            questions=QUESTIONS_LIMIT,
            too_many=TransientError(f"the M-Bus search was given up after {QUESTIONS_LIMIT} questions; check the line"),
        )

    def _search(self) -> Procedure:
        for baud in self._bauds:
            yield SetLine(mbus_line(baud))
            for address in self._primary:
                yield from self._ask_primary(baud, address)
            for pattern in self._patterns:
                yield from self._ask_pattern(baud, pattern)
        if not self.found:
            tried = ", ".join(map(str, self._bauds))
            return TransientError(f"no M-Bus meter answered at {tried} baud; check power and wiring of the bus")
        return None

    def _ask_primary(self, baud: int, address: int) -> Finding:
        answer = yield Ask(short_frame(SND_NKE, address), address, Wants.ACK, _REPEATS)
        if answer and answer.heard:
            yield from self._take(baud, address)

    def _ask_pattern(self, baud: int, first: SecondaryAddress) -> Finding:
        waiting = [first]
        while waiting:
            pattern = waiting.pop()
            answer = yield Ask(pattern.select_frame(), ADDRESS_SELECTED, Wants.ACK, _REPEATS)
            if not answer or not answer.heard:
                continue
            alone = yield from self._take(baud, ADDRESS_SELECTED, pattern)
            if alone:
                continue
            narrower = _narrower(pattern)
            waiting += narrower[::-1]
            if not narrower:
                text = f"several M-Bus meters answer to {pattern}, and cannot be told apart"
                yield CodecError(text, reason="collision", data=pattern.select_frame())

    def _take(
        self, baud: int, address: int, pattern: SecondaryAddress | None = None
    ) -> Generator[Ask | Telegram | CodecError, Answer | None, bool]:
        """Ask for data; return False if several answer."""
        frame = short_frame(REQ_UD2 | FRAME_COUNT_BIT, address)
        answer = yield Ask(frame, address, Wants.DATA, _REPEATS)
        if not answer or not answer.frame:
            return not (answer and answer.heard)
        readout = read_answer(answer.frame, self._zone)
        if isinstance(readout, CodecError):
            yield readout
            if readout.reason == "encrypted":
                identity = read_identity(answer.frame.body[1:]) if answer.frame.body[0] == _LONG_HEADER else None
                self.found.append(MbusFound(baud, answer.frame.address, identity, None))
            return readout.reason != "bad-syntax"
        if pattern and readout.identity and not pattern.matches(readout.identity):
            return False
        self.found.append(MbusFound(baud, answer.frame.address, readout.identity, readout.telegram))
        yield readout.telegram
        return True


def _narrower(pattern: SecondaryAddress) -> list[SecondaryAddress]:
    """Return patterns that together mean the same meters, each fewer."""
    number = pattern.number
    if _OPEN in number:
        return [replace(pattern, number=number.replace(_OPEN, digit, 1)) for digit in "0123456789"]
    if pattern.device_type not in _DEVICE_TYPES:
        return [replace(pattern, device_type=device_type) for device_type in _DEVICE_TYPES]
    return []
