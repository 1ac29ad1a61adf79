"""What a virtual DLMS meter is: objects, load profiles, security, and what it does wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import starmap
from typing import Final, Literal

from meterway.core.obis import Obis
from meterway.meter import axdr_write as write
from meterway.meter.axdr import GrammarError
from meterway.meter.dlms_apdu import Refusal, read_value
from meterway.meter.dlms_hdlc import LEAST_INFORMATION_BYTES
from meterway.meter.dlms_layout import clock
from meterway.meter.keys import NO_KEYS, Keys

Row = tuple[datetime, Sequence[bytes]]
"""Its time, and the other columns as A-XDR elements."""

UNDEFINED: Final = Refusal(4)
COUNTER: Final = Obis(0, 0, 43, 1, 0)
_MISMATCH: Final = Refusal(12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A load profile."""

    columns: Sequence[tuple[int, Obis, int]]
    """Class, code and attribute; the first is the clock."""
    rows: Sequence[Row]
    period_s: int = 900
    leaves_out_times: bool = False
    """Whether only the first row has its time; the others follow it by the period."""
    ignores_selection: bool = False
    """Whether it always sends all of them."""

    def value(self, number: int, selector: int, access: bytes) -> bytes | Refusal:
        """Return an attribute of the profile: rows (2), columns (3), period (4)."""
        match number:
            case 2:
                try:
                    return self._rows(self._wanted(selector, access))
                except (GrammarError, ValueError, TypeError, IndexError):
                    return _MISMATCH
            case 3:
                return write.array(*starmap(_column, self.columns))
            case 4:
                return write.uint32(self.period_s)
        return UNDEFINED

    def _rows(self, wanted: Sequence[Row]) -> bytes:
        rows = []
        for place, (time, values) in enumerate(wanted):
            has_time = not (self.leaves_out_times and place)
            rows.append(write.structure(write.octets(write.date_time(time)) if has_time else b"\0", *values))
        return write.array(*rows)

    def _wanted(self, selector: int, access: bytes) -> Sequence[Row]:
        """Return the rows of a range (1) or of entries (2)."""
        if not selector or self.ignores_selection:
            return self.rows
        match read_value(access):
            case [_, bytes(start), bytes(end), _] if selector == 1:
                zone = self.rows[0][0].tzinfo or UTC
                first, last = clock(start, zone), clock(end, zone)
                return [row for row in self.rows if first and last and first <= row[0] <= last]
            case [int(first_number), int(last_number), _, _]:
                return self.rows[first_number - 1 : last_number or None]
        raise GrammarError("this selection is not known")


def _column(class_id: int, obis: Obis, number: int) -> bytes:
    return write.structure(write.uint16(class_id), write.octets(bytes(obis)), write.int8(number), write.uint16(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class DlmsSide:
    """What a virtual DLMS meter is and does, right and wrong."""

    objects: Mapping[tuple[int, Obis], Mapping[int, bytes]] = field(default_factory=dict)
    """Attributes as A-XDR elements, by class and code."""
    profiles: Mapping[Obis, Rows] = field(default_factory=dict)
    transport: Literal["hdlc", "wrapper"] = "hdlc"
    address: bytes = b"\x03"
    """The HDLC address, as on the line."""
    port: int = 1
    """The port of the wrapper."""
    identification: str = ""
    """With it HDLC must be signed on to: ``MWY5\\\\2VIRTUAL`` offers mode E at 9600 baud."""
    client: int = 16
    """Who may read everything; client 16 may always read name and invocation counter."""
    security: Literal["none", "password", "gmac"] = "none"
    password: str = field(default="", repr=False)
    keys: Keys = NO_KEYS
    is_ciphered: bool = False
    suite: int = 0
    title: bytes = b"MWY\0\0\0\0\x47"
    last_counter: int = 41
    """The last invocation counter that the client used."""
    counter: Obis = COUNTER
    challenge: bytes = b"challenge of the virtual meter"
    apdu_bytes: int = 1024
    """Longer answers leave in blocks."""
    frame_bytes: int = LEAST_INFORMATION_BYTES
    has_lists: bool = True
    reaction_s: float = 0.02
    lost: frozenset[int] = frozenset()
    """Numbers, from 0 on, of the messages that it does not send,"""
    damaged: frozenset[int] = frozenset()
    """of those that leave with a turned bit,"""
    unheard: frozenset[int] = frozenset()
    """and of those of the client that it does not hear."""
