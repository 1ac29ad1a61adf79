"""Virtual meters on an M-Bus segment: bytes of the master in, what comes back on the wire out. No I/O, no clock.

A meter understands SND_NKE, REQ_UD2 with the frame count bit, selection by secondary address, application reset,
change of baud rate, and setting of its primary address. Where several answer at once, what the master hears is every
bit that any of them pulls down, as on the wire.

Source: EN 13757-2:2018, 5.7; EN 13757-3:2018, 11; EN 13757-7:2018.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from meterway.meter.mbus_frames import (
    ACK,
    ADDRESS_ANY,
    ADDRESS_SELECTED,
    ADDRESS_SILENT,
    FRAME_COUNT_BIT,
    REQ_UD2,
    SND_NKE,
    SND_UD,
    Frame,
    Framer,
)
from meterway.meter.mbus_master import BAUDS
from meterway.meter.virtual.encode_mbus import Header, encode_answer

_ACKNOWLEDGED: Final = bytes((ACK,))
_APPLICATION_RESET: Final = 0x50
_SELECT: Final = 0x52
_DATA: Final = 0x51
_SET_ADDRESS: Final = b"\x01\x7a"
_FIRST_BAUD: Final = 0xB8
_NUMBER_BYTES: Final = 4
_SELECTION_BYTES: Final = 8
_ANY_BYTE: Final = 0xFF

Telegrams = Callable[[], Sequence[Sequence[bytes]]]
"""Returns the records of each telegram of a readout; called when a readout begins."""


class MbusSlave:
    """One meter."""

    def __init__(
        self, header: Header, address: int, telegrams: Telegrams, *, baud: int = 2400, status: int = 0
    ) -> None:
        self.header = header
        self.address = address
        self.baud = baud
        """What it listens at; the master can change it."""
        self.answers = 0
        """Telegrams sent so far, repeats included."""
        self._telegrams = telegrams
        self._status = status
        self._selected = False
        self._count_bit: bool | None = None
        """The frame count bit of the last request; None after a reset."""
        self._waiting: list[Sequence[bytes]] = []
        self._last = b""
        self._access = 0

    def hear(self, frame: Frame) -> bytes:
        """Return the answer to a frame of the master; empty if it is not for this meter."""
        is_selection = frame.address == ADDRESS_SELECTED and frame.body[:1] == bytes((_SELECT,))
        if is_selection and frame.control & ~FRAME_COUNT_BIT == SND_UD:
            self._selected = _matches(frame.body[1:], self.header.secondary)
            if self._selected:
                self._reset()
            return _ACKNOWLEDGED if self._selected else b""
        meant = frame.address in {self.address, ADDRESS_ANY, ADDRESS_SILENT}
        if not meant and not (self._selected and frame.address == ADDRESS_SELECTED):
            return b""
        answer = self._obey(frame)
        return b"" if frame.address == ADDRESS_SILENT else answer

    def _obey(self, frame: Frame) -> bytes:
        if frame.control == SND_NKE:
            self._reset()
            if frame.address == ADDRESS_SELECTED:
                self._selected = False
            return _ACKNOWLEDGED
        if frame.control & ~FRAME_COUNT_BIT == REQ_UD2:
            return self._answer(count_bit=bool(frame.control & FRAME_COUNT_BIT))
        if frame.control & ~FRAME_COUNT_BIT == SND_UD and frame.body:
            self._take(frame.body)
            return _ACKNOWLEDGED
        return b""

    def _reset(self) -> None:
        self._count_bit = None
        self._waiting = []

    def _answer(self, *, count_bit: bool) -> bytes:
        """Send the next telegram; the last one again if the count bit has not changed."""
        self.answers += 1
        if count_bit == self._count_bit:
            return self._last
        self._count_bit = count_bit
        if not self._waiting:
            self._waiting = list(self._telegrams())
        records = self._waiting.pop(0)
        self._access += 1
        self._last = encode_answer(
            self.header,
            records,
            address=self.address,
            access=self._access,
            status=self._status,
            more=bool(self._waiting),
        )
        return self._last

    def _take(self, body: bytes) -> None:
        if body[0] == _APPLICATION_RESET:
            self._waiting = []
        elif body[0] == _DATA and body[1:3] == _SET_ADDRESS and len(body) == len(_SET_ADDRESS) + 2:
            self.address = body[3]
        elif 0 <= body[0] - _FIRST_BAUD < len(BAUDS):
            self.baud = BAUDS[body[0] - _FIRST_BAUD]


class MbusSegment:
    """Meters on one pair of wires."""

    def __init__(self, slaves: Iterable[MbusSlave]) -> None:
        self.slaves = list(slaves)
        self.questions = 0
        """Frames heard so far."""
        self._framer = Framer()

    def feed(self, data: bytes, baud: int) -> bytes:
        """Take what the master sends at ``baud``; return what it hears. Meters at another baud rate hear nothing."""
        heard = bytearray()
        for item in self._framer.feed(data):
            if isinstance(item, Frame):
                self.questions += 1
                listening = [slave for slave in self.slaves if slave.baud == baud]
                heard += _overlaid([slave.hear(item) for slave in listening])
        return bytes(heard)

    def idle(self) -> None:
        """Tell that the master paused: what it began is forgotten."""
        list(self._framer.flush())


def _matches(selection: bytes, secondary: bytes) -> bool:
    if len(selection) < _SELECTION_BYTES:
        return False
    digits = zip(selection[:_NUMBER_BYTES].hex(), secondary[:_NUMBER_BYTES].hex(), strict=True)
    return (
        all(wanted in ("f", own) for wanted, own in digits)
        and selection[4:6] in (b"\xff\xff", secondary[4:6])
        and selection[6] in (_ANY_BYTE, secondary[6])
        and selection[7] in (_ANY_BYTE, secondary[7])
    )


def _overlaid(answers: Iterable[bytes]) -> bytes:
    """Return what the master hears of answers that come at the same time."""
    spoken = [answer for answer in answers if answer]
    heard = bytearray(b"\xff" * max(map(len, spoken), default=0))
    for answer in spoken:
        for index, byte in enumerate(answer):
            heard[index] &= byte
    return bytes(heard)
