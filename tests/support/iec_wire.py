"""A wire between a master and a virtual IEC 62056-21 meter: one in simulated time, one a real pty."""

import os
import select
import termios
import threading
import time
import tty
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Self

from meterway.meter.codec import CodecError
from meterway.meter.iec62056_21 import strip_parity
from meterway.meter.master import Deadline, Done, Effect, Master, Send, SetLine, Steps, Wait
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.answer_iec62056_21 import AnsweringMeter
from meterway.meter.virtual.encode_iec62056_21 import with_even_parity

BITS_A_BYTE = 10
REACTION_S = 0.2
"""The least time that a meter takes to answer (IEC 62056-21: 200 ms to 1.5 s). A reader throws away what comes while
it sets its line, and that is a moment longer than the line shows."""
FORGETS_S = 1.5
"""A silence after which a meter forgets its session."""
SPEEDS = {baud: getattr(termios, f"B{baud}") for baud in (300, 600, 1200, 2400, 4800, 9600, 19200)}


@dataclass
class Outcome:
    """What a session came to."""

    telegrams: list[Telegram] = field(default_factory=list)
    errors: list[CodecError] = field(default_factory=list)
    done: Done | None = None
    lasted_s: float = 0.0
    bauds: list[int] = field(default_factory=list)
    """As the master set them, in order."""
    sent: bytes = b""
    """What the master sent."""

    @property
    def reason(self) -> str:
        assert self.done is not None
        assert self.done.error is not None
        return str(self.done.error)


@dataclass
class SimulatedWire:
    """Bytes take their time; the wrong baud rate, or none, makes rubbish of them."""

    meter: AnsweringMeter | None
    echo: bool = False
    parity: bool = False
    """Whether the reader's line has 8 bits, so that it sees and makes the parity itself."""
    damage: Callable[[bytes], bytes] = bytes
    """Done to everything the meter sends."""
    chunk_bytes: int = 7
    limit_s: float = 2000.0

    def run(self, master: Master) -> Outcome:  # noqa: PLR0912 - one case for each effect
        outcome = Outcome()
        now = 0.0
        deadline = float("inf")
        reader_baud = meter_baud = 300
        coming: deque[tuple[bytes, int | None]] = deque()
        steps: Steps = master.start(now)
        while True:
            for step in steps:
                match step:
                    case Telegram():
                        outcome.telegrams.append(step)
                    case CodecError():
                        outcome.errors.append(step)
                    case Send(data):
                        outcome.sent += data
                        now += len(data) * BITS_A_BYTE / reader_baud
                        if self.echo:
                            coming.append((data, None))
                        heard = data if reader_baud == meter_baud else bytes(len(data))
                        meter_baud = self._answer(strip_parity(heard), coming, meter_baud)
                    case SetLine(line):
                        reader_baud = line.baud
                        outcome.bauds.append(line.baud)
                    case Wait(seconds_s):
                        now += seconds_s
                        if self.meter and seconds_s > FORGETS_S and self.meter.idle():
                            meter_baud = 300
                    case Deadline(seconds_s):
                        deadline = now + seconds_s
                    case Done():
                        outcome.done, outcome.lasted_s = step, now
                        return outcome
            assert now < self.limit_s, "the master hangs"
            if coming:
                data, baud = coming.popleft()
                if baud not in (None, reader_baud):
                    data = Random(len(data)).randbytes(len(data))
                head, rest = data[: self.chunk_bytes], data[self.chunk_bytes :]
                if rest:
                    coming.appendleft((rest, None))
                now += len(head) * BITS_A_BYTE / reader_baud
                steps = master.feed(head, now) if head else []
            else:
                now = max(now, deadline)
                steps = master.on_timeout(now)

    def _answer(self, heard: bytes, coming: deque[tuple[bytes, int | None]], meter_baud: int) -> int:
        effects: Iterable[Effect] = self.meter.feed(heard) if self.meter else ()
        for effect in effects:
            if isinstance(effect, Send):
                sent = with_even_parity(effect.data) if self.parity else effect.data
                coming.append((self.damage(sent), meter_baud))
            elif isinstance(effect, SetLine):
                meter_baud = effect.line.baud
        return meter_baud


class PtyMeter:
    """A virtual meter on the far side of a real pty. It looks which speed the reader has set.

    At another speed than its own, rubbish goes both ways.
    """

    def __init__(self, meter: AnsweringMeter) -> None:
        self._meter = meter
        self._far, near = os.openpty()
        tty.setraw(near)
        self._near = near
        self.device = os.ttyname(near)
        self._baud = 300
        self._has_changed = False
        """Whether its speed is another one since it last spoke."""
        self._stop_out, self._stop_in = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.spoken_bauds: list[int] = []
        self._read_bytes = 0
        self._has_read = threading.Condition()

    def drain(self, sent_bytes: int) -> None:
        """Wait until all that was ever sent has been read at the speed it was sent with: a pty does not by itself."""
        with self._has_read:
            assert self._has_read.wait_for(lambda: self._read_bytes >= sent_bytes, 10)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        os.write(self._stop_in, b"x")
        self._thread.join(10)
        for descriptor in (self._far, self._near, self._stop_in, self._stop_out):
            os.close(descriptor)

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._far, self._stop_out], [], [], FORGETS_S)
            if self._stop_out in ready:
                return
            if not ready:
                for effect in self._meter.idle():
                    self._carry_out(effect)
                continue
            data = os.read(self._far, 1024)
            heard = data if self._is_same_speed() else bytes(len(data))
            with self._has_read:
                self._read_bytes += len(data)
                self._has_read.notify()
            for effect in self._meter.feed(heard):
                self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Wait(seconds_s):
                time.sleep(seconds_s)
            case SetLine(line):
                self._has_changed = self._has_changed or line.baud != self._baud
                self._baud = line.baud
            case Send(data):
                until = time.monotonic() + 1
                while not self._is_same_speed() and time.monotonic() < until:
                    time.sleep(0.001)
                if self._has_changed:
                    time.sleep(REACTION_S)
                    self._has_changed = False
                self.spoken_bauds.append(self._baud)
                os.write(self._far, data if self._is_same_speed() else bytes(byte ^ 0x55 for byte in data))
            case _:
                raise AssertionError(effect)

    def _is_same_speed(self) -> bool:
        return bool(termios.tcgetattr(self._far)[5] == SPEEDS[self._baud])


def run_on_pty(meter: PtyMeter, master: Master, *, limit_s: float = 60.0) -> Outcome:
    """Carry out a master's effects on the meter's device, as an adapter does."""
    outcome = Outcome()
    port = os.open(meter.device, os.O_RDWR | os.O_NOCTTY)
    try:
        tty.setraw(port)
        begin = time.monotonic()
        deadline = begin + limit_s
        steps = master.start(begin)
        while True:
            for step in steps:
                match step:
                    case Telegram():
                        outcome.telegrams.append(step)
                    case CodecError():
                        outcome.errors.append(step)
                    case Send(data):
                        outcome.sent += data
                        os.write(port, data)
                    case SetLine(line):
                        meter.drain(len(outcome.sent))
                        attributes = termios.tcgetattr(port)
                        attributes[4] = attributes[5] = SPEEDS[line.baud]
                        termios.tcsetattr(port, termios.TCSADRAIN, attributes)
                        outcome.bauds.append(line.baud)
                    case Wait(seconds_s):
                        time.sleep(seconds_s)
                    case Deadline(seconds_s):
                        deadline = time.monotonic() + seconds_s
                    case Done():
                        outcome.done, outcome.lasted_s = step, time.monotonic() - begin
                        return outcome
            now = time.monotonic()
            assert now - begin < limit_s, "the master hangs"
            ready, _, _ = select.select([port], [], [], max(deadline - now, 0))
            steps = master.feed(os.read(port, 4096), time.monotonic()) if ready else master.on_timeout(time.monotonic())
    finally:
        os.close(port)
