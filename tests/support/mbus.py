"""A segment of virtual M-Bus meters, and what a driver does: in simulated time, and over a real pty."""

import os
import select
import termios
import time
import tty
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from types import TracebackType
from typing import Self
from zoneinfo import ZoneInfo

from meterway.core.errors import MeterwayError
from meterway.meter.codec import CodecError
from meterway.meter.master import Deadline, Done, Master, Send, SetLine, Steps, Wait
from meterway.meter.mbus import MbusDecoder
from meterway.meter.telegram import Register, Telegram
from meterway.meter.virtual.encode_mbus import BCD8, Header, Where, bcd, day, encode_answer
from meterway.meter.virtual.mbus_slave import MbusSegment, MbusSlave

BERLIN = ZoneInfo("Europe/Berlin")
VOLUME_L = b"\x13"
HEAT = Header("20264711", "MWY", 0x07, 0x04)
WATER = Header("20264712", "MWY", 0x07, 0x07)
STEP_S = 0.02
"""How much simulated time passes for each piece of an answer."""

Damage = Callable[[int, bytes], bytes]
"""What the master hears of an answer, which has a number from 0 on."""


def untouched(_number: int, answer: bytes) -> bytes:
    return answer


def decode(data: bytes) -> list[Telegram | CodecError]:
    decoder = MbusDecoder(BERLIN)
    return decoder.feed(data, 0.0) + decoder.idle(0.0)


def registers(*records: bytes, header: Header = HEAT) -> list[Register]:
    """Return what records mean, without the status that the header adds."""
    [telegram] = decode(encode_answer(header, records, address=1, access=1))
    assert isinstance(telegram, Telegram), telegram
    return [register for register in telegram.registers if register.name != "status"]


def volume_slave(
    header: Header, address: int, litres: int = 1000, *, baud: int = 2400, telegrams: int = 1
) -> MbusSlave:
    """Return a meter whose n-th telegram says ``litres`` + n, and when it was put in."""
    made = [
        [bcd(VOLUME_L, BCD8, litres + n), day(b"\x6c", date(2026, 1, 31), Where(storage=1))] for n in range(telegrams)
    ]
    return MbusSlave(header, address, lambda: made, baud=baud)


@dataclass
class Heard:
    """What a session gave."""

    items: list[Telegram | CodecError] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    bauds: list[int] = field(default_factory=list)
    done: bool = False
    error: MeterwayError | None = None
    elapsed_s: float = 0.0

    @property
    def values(self) -> list[list[str]]:
        """Numbers of each telegram, without the status."""
        return [
            [str(r.value) for r in item.registers if r.unit is not None]
            for item in self.items
            if isinstance(item, Telegram)
        ]

    @property
    def reasons(self) -> list[str]:
        return [item.reason for item in self.items if isinstance(item, CodecError)]


def converse(
    master: Master,
    segment: MbusSegment,
    *,
    baud: int = 2400,
    damage: Damage = untouched,
    chunk_bytes: int = 64,
    limit_s: float = 100_000.0,
) -> Heard:
    """Drive ``master`` against ``segment`` in simulated time; fails when it takes longer than ``limit_s``."""
    heard = Heard()
    now = deadline = 0.0
    coming = b""
    answers = 0
    steps: Steps = master.start(now)
    while True:
        for step in steps:
            match step:
                case Send(data):
                    heard.sent.append(data)
                    segment.idle()
                    answer = segment.feed(data, baud)
                    coming += damage(answers, answer)
                    answers += 1
                case SetLine(line):
                    baud = line.baud
                    assert (line.data_bits, line.parity, line.stop_bits) == (8, "E", 1)
                    heard.bauds.append(baud)
                case Wait(seconds_s):
                    now += seconds_s
                case Deadline(seconds_s):
                    assert seconds_s > 0
                    deadline = now + seconds_s
                case Done(error):
                    heard.done, heard.error, heard.elapsed_s = True, error, now
                    return heard
                case _:
                    heard.items.append(step)
        assert now < limit_s, "the session does not end"
        if coming and now + STEP_S < deadline:
            now += STEP_S
            piece, coming = coming[:chunk_bytes], coming[chunk_bytes:]
            steps = master.feed(piece, now)
        else:
            coming = b""
            now = max(now, deadline)
            steps = master.on_timeout(now)


class PtyBus:
    """A pty with virtual meters at its far end; they hear at the baud rate that the near end is set to."""

    def __init__(self, slaves: Sequence[MbusSlave]) -> None:
        self.segment = MbusSegment(slaves)
        self._far, self.near = os.openpty()
        tty.setraw(self.near)
        self.set_baud(2400)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.near)
        os.close(self._far)

    def set_baud(self, baud: int) -> None:
        settings = termios.tcgetattr(self.near)
        settings[4] = settings[5] = getattr(termios, f"B{baud}")
        termios.tcsetattr(self.near, termios.TCSADRAIN, settings)

    @property
    def baud(self) -> int:
        speed = termios.tcgetattr(self._far)[5]
        return next(rate for rate in (300, 2400, 9600, 38400) if getattr(termios, f"B{rate}") == speed)

    def serve(self, wait_s: float) -> None:
        """Let the meters answer what has arrived at the far end."""
        if select.select([self._far], [], [], wait_s)[0]:
            answer = self.segment.feed(os.read(self._far, 4096), self.baud)
            if answer:
                os.write(self._far, answer)

    def run(self, master: Master) -> Heard:
        """Drive ``master`` in real time."""
        heard = Heard()
        deadline = begin = time.monotonic()
        steps: Steps = master.start(begin)
        while True:
            for step in steps:
                match step:
                    case Send(data):
                        heard.sent.append(data)
                        self.segment.idle()
                        os.write(self.near, data)
                    case SetLine(line):
                        self.set_baud(line.baud)
                        heard.bauds.append(line.baud)
                    case Wait(seconds_s):
                        time.sleep(seconds_s)
                    case Deadline(seconds_s):
                        deadline = time.monotonic() + seconds_s
                    case Done(error):
                        heard.done, heard.error, heard.elapsed_s = True, error, time.monotonic() - begin
                        return heard
                    case _:
                        heard.items.append(step)
            self.serve(0.0)
            # What came in time is heard, also where this process had no time to look.
            ready = select.select([self.near, self._far], [], [], max(0.0, deadline - time.monotonic()))[0]
            if self.near in ready:
                steps = master.feed(os.read(self.near, 4096), time.monotonic())
            else:
                is_late = not ready and time.monotonic() >= deadline
                steps = master.on_timeout(time.monotonic()) if is_late else []
