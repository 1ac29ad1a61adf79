"""Reading the meters of an M-Bus segment: one round, several meters, one after the other.

For each meter: set the baud rate; reset the link (SND_NKE), or select it by its secondary address; if asked to, reset
its application and change its baud rate; ask for data (REQ_UD2) until it has no more. The frame count bit is toggled
after each answer that was understood, so a meter repeats what was damaged and never loses a telegram.

Source: EN 13757-2:2018, 5.7 (FCB), EN 13757-3:2018, 11 (secondary addressing) and 12 (more telegrams), EN
13757-7:2018 (application reset, baud rate).
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final

from meterway.core.errors import MeterwayError, SetupError, TransientError
from meterway.meter.codec import CodecError
from meterway.meter.master import SetLine, Wait
from meterway.meter.mbus import Readout, read_answer
from meterway.meter.mbus_address import LAST_PRIMARY, MbusAddress, SecondaryAddress
from meterway.meter.mbus_frames import (
    ADDRESS_ANY,
    ADDRESS_SELECTED,
    FRAME_COUNT_BIT,
    REQ_UD2,
    SND_NKE,
    SND_UD,
    long_frame,
    short_frame,
)
from meterway.meter.mbus_session import Answer, Ask, Procedure, Session, Wants, mbus_line
from meterway.meter.telegram import Telegram

BAUDS: Final = (300, 600, 1200, 2400, 4800, 9600, 19200, 38400)
"""The baud rates of M-Bus, as the CI fields B8 to BF have them."""

REPEATS: Final = 2
"""How often a question is repeated (EN 13757-2:2018, 5.6)."""

TELEGRAMS_LIMIT: Final = 32
"""The most telegrams that are taken from one meter in one round; what it has beyond them is left, and said."""

_BAUD_CI: Final = 0xB8
_APPLICATION_RESET: Final = 0x50
_QUESTIONS_PER_METER: Final = (TELEGRAMS_LIMIT + 8) * (REPEATS + 1)

Reading = Generator[Ask | SetLine | Wait | Telegram | CodecError, Answer | None, str]
"""A procedure within a procedure; returns a problem, or nothing."""


@dataclass(frozen=True, slots=True)
class MbusMeter:
    """A meter on the segment, and how it is read."""

    address: MbusAddress
    baud: int = 2400
    """What the meter listens at."""
    read_baud: int | None = None
    """What it is switched to for the reading, and back again; if that fails it is read at ``baud``."""
    application_reset: int | None = None
    """The subcode to reset the application with before the reading (0 all, 0x10 user data, ...); None: no reset."""

    def __post_init__(self) -> None:
        for baud in (self.baud, self.read_baud):
            if baud is not None and baud not in BAUDS:
                raise SetupError(f"{baud} is no baud rate of M-Bus; there are {', '.join(map(str, BAUDS))}")
        if isinstance(self.address, int) and not 0 <= self.address <= LAST_PRIMARY and self.address != ADDRESS_ANY:
            raise SetupError(f"M-Bus has no meter address {self.address}; meters have 0 to 250, 254 means any")


class MbusMaster(Session):
    """Reads each of ``meters`` once; a ``meter.master.Master``.

    A telegram per meter: where a meter answers with several, their registers are joined, and ``raw`` is all of them.
    A meter that does not answer costs its time-outs and nothing else. ``zone`` is that of the meters' clocks, ``baud``
    what the line is set to; ``link_delay_s`` what the link takes to carry a question and an answer.
    """

    def __init__(
        self, meters: Sequence[MbusMeter], zone: tzinfo, *, baud: int = 2400, link_delay_s: float = 0.25
    ) -> None:
        self.failures: dict[MbusAddress, str] = {}
        """The meters that could not be read, or not to the end, and why."""
        self._meters = tuple(meters)
        self._zone = zone
        super().__init__(
            self._round(),
            baud=baud,
            link_delay_s=link_delay_s,
            questions=max(1, len(self._meters)) * _QUESTIONS_PER_METER,
            too_many=TransientError("the M-Bus round was given up: the meters have too much to say"),
        )

    def _round(self) -> Procedure:
        for meter in self._meters:
            yield SetLine(mbus_line(meter.baud))
            problem = yield from self._meter(meter)
            if problem:
                self.failures[meter.address] = problem
        if self.failures:
            return _failed(self.failures)
        return None

    def _meter(self, meter: MbusMeter) -> Reading:
        problem = yield from _reach(meter.address)
        if problem:
            return problem
        address = _link_address(meter.address)
        if meter.application_reset is not None:
            frame = long_frame(SND_UD, address, bytes((_APPLICATION_RESET, meter.application_reset & 0xFF)))
            answer = yield Ask(frame, address, Wants.ACK, REPEATS)
            if not answer or not answer.frame:
                return "it did not acknowledge the reset of its application"
        if meter.read_baud is not None and meter.read_baud != meter.baud:
            if not (yield from self._fast(meter, address, meter.read_baud)):
                return ""
            yield from _reach(meter.address)
        return (yield from self._telegrams(meter.address, address))

    def _fast(self, meter: MbusMeter, address: int, baud: int) -> Reading:
        """Read a meter at another baud rate, and return it to its own, whatever came of it."""
        answer = yield Ask(_baud_frame(address, baud), address, Wants.ACK, REPEATS)
        if not answer or not answer.frame:
            return "it did not acknowledge the change of its baud rate"
        yield SetLine(mbus_line(baud))
        problem = yield from self._telegrams(meter.address, address)
        yield Ask(_baud_frame(address, meter.baud), address, Wants.ACK, REPEATS)
        yield SetLine(mbus_line(meter.baud))
        return problem

    def _telegrams(self, wanted: MbusAddress, address: int) -> Reading:
        """Ask for data until there is no more; hand on what came as one telegram."""
        found: list[Telegram] = []
        problem = ""
        for count in range(TELEGRAMS_LIMIT):
            control = REQ_UD2 | (0 if count % 2 else FRAME_COUNT_BIT)
            readout = yield from ask_data(control, address, self._zone)
            if isinstance(readout, str):
                problem = readout
                break
            if readout.identity and isinstance(wanted, SecondaryAddress) and not wanted.matches(readout.identity):
                problem = f"another meter answers, {readout.identity}"
                break
            found.append(readout.telegram)
            if not readout.more:
                break
        else:
            problem = f"it has more than {TELEGRAMS_LIMIT} telegrams; the rest was left"
        if found:
            yield joined(found)
        return problem


def ask_data(control: int, address: int, zone: tzinfo) -> Generator[Ask | CodecError, Answer | None, Readout | str]:
    """Ask once for data; return them, or why there are none. What came and is wrong is handed on as an error."""
    answer = yield Ask(short_frame(control, address), address, Wants.DATA, REPEATS)
    if not answer or not answer.frame:
        return "its answers are damaged" if answer and answer.heard else "it does not answer"
    readout = read_answer(answer.frame, zone)
    if isinstance(readout, Readout):
        return readout
    yield readout
    return str(readout)


def joined(telegrams: Sequence[Telegram]) -> Telegram:
    """Return the telegrams of one readout as one."""
    if len(telegrams) == 1:
        return telegrams[0]
    first = telegrams[0]
    registers = tuple(register for telegram in telegrams for register in telegram.registers)
    time = next((telegram.time for telegram in telegrams if telegram.time), None)
    return Telegram(first.protocol, registers, b"".join(telegram.raw for telegram in telegrams), first.meter, time)


def _link_address(address: MbusAddress) -> int:
    return address if isinstance(address, int) else ADDRESS_SELECTED


def _reach(address: MbusAddress) -> Reading:
    """Reset the link to a meter, or select it; return why it cannot be reached."""
    if isinstance(address, int):
        frame = short_frame(SND_NKE, address)
        answer = yield Ask(frame, address, Wants.ACK, REPEATS)
    else:
        answer = yield Ask(address.select_frame(), ADDRESS_SELECTED, Wants.ACK, REPEATS)
    if answer and answer.heard:
        return ""
    return "it does not answer" if isinstance(address, int) else "no meter with this secondary address answers"


def _baud_frame(address: int, baud: int) -> bytes:
    return long_frame(SND_UD, address, bytes((_BAUD_CI + BAUDS.index(baud),)))


def _failed(failures: dict[MbusAddress, str]) -> MeterwayError:
    first, problem = next(iter(failures.items()))
    more = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
    return TransientError(f"M-Bus meter {first}: {problem}{more}; check address, baud rate and wiring")
