"""The ledger of virtual meters: one JSON line for each telegram that has left whole, and for each fault.

A test or a demo compares it with what is stored: what stands there as ``whole`` must have arrived.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

from meterway.core.errors import SetupError

_FLUSH_LINES = 512


class LedgerLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line. The fields of telegrams are absent from ``joined`` and ``left``."""

    meter_id: str
    state: Literal["whole", "spoilt", "silent", "joined", "left", "event"]
    """whole: the telegram was handed completely to the line of at least one reader. spoilt: so was what a fault made
    of it. silent: a fault swallowed it. joined, left: a reader came or went; around these the line itself may lose
    telegrams, since a meter does not know what was read. event: a fault of a town's meter began."""
    sent_time_s: float
    """Unix time at which the last byte was handed to the line."""
    protocol: str = ""
    n: int = 0
    """Counts the telegrams that the meter made, from 1."""
    instant: str = ""
    """The meter's own time, RFC 3339 in UTC."""
    fault: str | None = None
    values: dict[str, str] = msgspec.field(default_factory=dict)
    """What the telegram states: canonical OBIS code to number, as sent."""
    truth: dict[str, int] = msgspec.field(default_factory=dict)
    """Only in a town: what really went through the meter since 2020, exact, in watt-seconds and millilitres."""
    until: str = ""
    """Only with ``event``: when the fault ends, RFC 3339 in UTC; empty: it stays."""
    expects: str = ""
    """Only with ``event``: what a good system says of it."""
    unread_bytes: int = 0
    """Only with ``left``, on a pty: what the reader left behind unread."""


class Ledger:
    """Appends lines to a file; without a path, keeps none. Lines reach the file when a batch ends (``flush``)."""

    def __init__(self, path: Path | None) -> None:
        self._lines: list[bytes] = []
        self._encoder = msgspec.json.Encoder()
        try:
            self._file = path.open("ab") if path else None
        except OSError as error:
            raise SetupError(f"ledger {path}: cannot be written: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
        if self._file:
            self._file.close()

    def add(self, line: LedgerLine) -> None:
        """Take a line; every 512 lines are written at once."""
        if self._file is None:
            return
        self._lines.append(self._encoder.encode(line))
        if len(self._lines) >= _FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        """Hand all lines to the operating system."""
        if self._file and self._lines:
            self._file.write(b"\n".join(self._lines) + b"\n")
            self._file.flush()
            self._lines.clear()


def read_ledger(path: Path) -> Iterator[LedgerLine]:
    """Yield the lines of a ledger; a last line that is still being written is left out."""
    decoder = msgspec.json.Decoder(LedgerLine)
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield decoder.decode(line)
