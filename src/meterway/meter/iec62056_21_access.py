"""What is asked of a meter by IEC 62056-21, and how it is signed on to."""

from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Final, Literal, Self

from meterway.core.errors import SetupError
from meterway.meter.family import Family, Line
from meterway.meter.iec62056_21_frames import command

FIRST_LINE: Final = Line(baud=300, data_bits=7, parity="E")
"""Where every sign-on begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How one meter is signed on to."""

    line: Line = FIRST_LINE
    """As it is before a baud change. With 8 data bits the parity is made here: for links that cannot do 7E1."""
    mode: Literal["A", "B", "C", "D"] | None = None
    """None: the identification tells; D: the meter sends by itself and is only listened to."""
    address: str = ""
    """The device address, where several meters share the line."""
    wake_up_bytes: int = 0
    """Zero bytes that are sent before the request to a meter with a battery; 40 to 65."""
    wake_up_pause_s: float = 1.6
    """Between them and the request."""
    highest_baud: int = 19_200
    """In mode C the reader chooses; optical heads differ in what they stand."""
    password: str | None = field(default=None, repr=False)
    """For P1; None: it is not sent."""
    attempts: int = 3
    session_s: float = 300.0
    """When all is given up; a long readout at 300 baud takes three minutes."""

    @classmethod
    def of(cls, family: Family, *, address: str = "", password: str | None = None) -> Self:
        """Return how the meters of a family are signed on to; one without ``sign_on`` is listened to."""
        sign_on = family.sign_on
        if sign_on is None:
            return cls(line=family.line, mode="D")
        return cls(
            line=family.line,
            mode=sign_on.mode,
            address=address,
            wake_up_bytes=sign_on.wake_up_bytes,
            wake_up_pause_s=sign_on.wake_up_pause_s,
            highest_baud=sign_on.highest_baud,
            password=password,
        )


@dataclass(frozen=True, slots=True)
class Readout:
    """Everything that the meter puts into its list."""


@dataclass(frozen=True, slots=True)
class Registers:
    """Single registers, in programming mode; together they become one telegram."""

    codes: tuple[str, ...]
    """As the meter writes them: ``1.8.0``."""
    command: str = "R1"


@dataclass(frozen=True, slots=True)
class Profile:
    """A load profile; each row becomes a telegram."""

    start: datetime
    """Aware; rows from here on,"""
    end: datetime
    """to here, itself included."""
    code: str = "P.01"
    command: str = "R5"
    """Some meters want R6, which makes them send it in blocks."""


def read_commands(task: Registers | Profile, zone: tzinfo) -> list[tuple[str, bytes]]:
    """Return the code and the command of each read.

    Raises:
        SetupError: no such command; a code has characters that cannot be sent; a time is naive.
    """
    if task.command not in ("R1", "R2", "R3", "R4", "R5", "R6"):
        raise SetupError(f"{task.command!r} is no read command; there are R1 to R6")
    if isinstance(task, Registers):
        return [(code, command(task.command, f"{code}()")) for code in task.codes]
    limits = f"({_profile_time(task.start, zone)};{_profile_time(task.end, zone)})"
    return [(task.code, command(task.command, task.code + limits))]


def _profile_time(instant: datetime, zone: tzinfo) -> str:
    """Return sYYMMDDhhmm; s is 1 in daylight saving time, else 0."""
    if instant.tzinfo is None:
        raise SetupError(f"the limit {instant} of a load profile has no time zone")
    local = instant.astimezone(zone)
    return f"{int(bool(local.dst()))}{local:{'%y%m%d%H%M'}}"
