"""A wire in simulated time between a DLMS master and a virtual meter, and a meter of our own making to ask."""

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Self
from zoneinfo import ZoneInfo

from meterway.core.obis import Obis
from meterway.meter import axdr_write as write
from meterway.meter.codec import CodecError
from meterway.meter.dlms_access import DlmsAccess, Objects, Task
from meterway.meter.dlms_ask import DlmsAsk
from meterway.meter.dlms_master import DlmsMaster
from meterway.meter.family import Line
from meterway.meter.keys import Keys
from meterway.meter.master import Deadline, Done, Effect, Master, Send, SetLine, Steps, Wait
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.answer_dlms import AnsweringDlmsMeter
from meterway.meter.virtual.dlms_side import DlmsSide, Rows
from support.iec_wire import Outcome

BERLIN = ZoneInfo("Europe/Berlin")
KEYS = Keys(bytes(range(16)), bytes(range(16, 32)))
OTHER_KEYS = Keys(bytes(range(50, 66)), bytes(range(16, 32)))

NAME = Obis(0, 0, 42, 0, 0)
SERIAL = Obis(0, 0, 96, 1, 0)
CLOCK = Obis(0, 0, 1, 0, 0)
IMPORT = Obis(1, 0, 1, 8, 0)
EXPORT = Obis(1, 0, 2, 8, 0)
POWER = Obis(1, 0, 1, 7, 0)
MAXIMUM = Obis(1, 0, 1, 6, 0)
AVERAGE = Obis(1, 0, 1, 4, 0)
LAST_AVERAGE = Obis(1, 0, 1, 5, 0)
LOAD = Obis(1, 0, 99, 1, 0)

NOON = datetime(2026, 7, 1, 12, 0, tzinfo=BERLIN)
WATT_HOURS = write.structure(write.int8(0), write.enum(30))
TEN_WATT_HOURS = write.structure(write.int8(1), write.enum(30))
TENTH_WATTS = write.structure(write.int8(-1), write.enum(27))
WATTS = write.structure(write.int8(0), write.enum(27))

OBJECTS = {
    (1, NAME): {2: write.octets(b"MWY0000000000815")},
    (1, SERIAL): {2: write.octets(b"47110815")},
    (8, CLOCK): {2: write.octets(write.date_time(NOON))},
    (3, IMPORT): {2: write.uint32(1234567), 3: WATT_HOURS},
    (3, EXPORT): {2: write.uint32(890), 3: TEN_WATT_HOURS},
    (3, POWER): {2: write.uint32(4211), 3: TENTH_WATTS},
    (4, MAXIMUM): {
        2: write.uint16(5120),
        3: WATTS,
        4: write.uint8(0),
        5: write.octets(write.date_time(NOON - timedelta(days=3))),
    },
    (5, AVERAGE): {2: write.uint16(300), 3: write.uint16(310), 4: WATTS, 6: write.octets(write.date_time(NOON))},
}
READ = [
    ("0-0:42.0.0", "MWY0000000000815", None),
    ("0-0:96.1.0", "47110815", None),
    ("0-0:1.0.0", "2026-07-01T12:00:00+02:00", None),
    ("1-0:1.8.0", "1234567", "Wh"),
    ("1-0:2.8.0", "8900", "Wh"),
    ("1-0:1.7.0", "421.1", "W"),
    ("1-0:1.6.0", "5120", "W"),
    ("1-0:1.4.0", "300", "W"),
]

COLUMNS = ((8, CLOCK, 2), (3, IMPORT, 2), (3, EXPORT, 2))


def rows(count: int, first: datetime = datetime(2026, 7, 1, tzinfo=BERLIN)) -> list[tuple[datetime, tuple[bytes, ...]]]:
    begin = first.astimezone(UTC)
    return [
        (
            (begin + timedelta(minutes=15 * number)).astimezone(BERLIN),
            (write.uint32(1000 + number), write.uint32(number)),
        )
        for number in range(count)
    ]


SIDE = DlmsSide(objects=OBJECTS, profiles={LOAD: Rows(columns=COLUMNS, rows=rows(96))})
OPTICAL_LINE = Line(baud=300, data_bits=7, parity="E")


def written(telegram: Telegram) -> list[tuple[str, str, str | None]]:
    return [(str(each.obis).removesuffix("*255"), str(each.value), each.unit) for each in telegram.registers]


def access(ask: DlmsAsk = DlmsAsk(), **kwargs: object) -> DlmsAccess:  # noqa: B008
    if ask.optical:
        kwargs = {"line": OPTICAL_LINE, **kwargs}
    return DlmsAccess(ask=ask, **kwargs)  # type: ignore[arg-type]


def master(
    ask: DlmsAsk = DlmsAsk(),  # noqa: B008
    task: Task = Objects(),  # noqa: B008
    **kwargs: object,
) -> DlmsMaster:
    return DlmsMaster(access(ask, **kwargs), task, BERLIN, random_bytes=Random(1).randbytes)


@dataclass
class DlmsWire:
    """Bytes take their time; at the wrong baud rate they are rubbish."""

    meter: "AnsweringDlmsMeter | Recording | None"
    echo: bool = False
    damage: Callable[[bytes], bytes] = bytes
    """Done to everything the meter sends."""
    chunk_bytes: int = 64
    limit_s: float = 4000.0

    def run(self, asking: Master) -> Outcome:  # noqa: PLR0912 - one case for each effect
        outcome = Outcome()
        now, deadline = 0.0, float("inf")
        self.reader_baud = self.meter_baud = 9600
        coming: deque[bytes] = deque()
        steps: Steps = asking.start(now)
        while True:
            for step in steps:
                match step:
                    case Telegram():
                        outcome.telegrams.append(step)
                    case CodecError():
                        outcome.errors.append(step)
                    case Send(data):
                        outcome.sent += data
                        now += len(data) * 10 / self.reader_baud
                        if self.echo:
                            coming.append(data)
                        heard = data if self.reader_baud == self.meter_baud else b"\x55" * len(data)
                        self._answer(self.meter.feed(heard) if self.meter else (), coming)
                    case SetLine(line):
                        self.reader_baud = line.baud
                        if not outcome.bauds:
                            self.meter_baud = line.baud
                        outcome.bauds.append(line.baud)
                    case Wait(seconds_s):
                        now += seconds_s
                        if self.meter and seconds_s > 1.5:
                            self._answer(self.meter.idle(), coming)
                    case Deadline(seconds_s):
                        deadline = now + seconds_s
                    case Done():
                        outcome.done, outcome.lasted_s = step, now
                        return outcome
            assert now < self.limit_s, "the master hangs"
            if coming:
                data = coming.popleft()
                head, rest = data[: self.chunk_bytes], data[self.chunk_bytes :]
                if rest:
                    coming.appendleft(rest)
                now += len(head) * 10 / self.reader_baud
                steps = asking.feed(head, now) if head else []
            else:
                now = max(now, deadline)
                steps = asking.on_timeout(now)

    def _answer(self, effects: Iterable[Effect], coming: deque[bytes]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                coming.append(self.damage(effect.data))
            elif isinstance(effect, SetLine):
                self.meter_baud = effect.line.baud


def ask(
    side: DlmsSide | None = SIDE,
    asked: DlmsAsk = DlmsAsk(),  # noqa: B008
    task: Task = Objects(),  # noqa: B008
    *,
    wire: dict[str, object] | None = None,
    **kwargs: object,
) -> Outcome:
    """Ask a virtual meter in simulated time; ``kwargs`` are of ``DlmsAccess``."""
    meter = AnsweringDlmsMeter(side) if side else None
    return DlmsWire(meter, **(wire or {})).run(master(asked, task, **kwargs))  # type: ignore[arg-type]


class SocketMeter:
    """A virtual meter that listens on a port of this machine, for one client at a time."""

    def __init__(self, meter: AnsweringDlmsMeter) -> None:
        self._meter = meter
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client:
                while data := client.recv(4096):
                    for effect in self._meter.feed(data):
                        if isinstance(effect, Send):
                            client.sendall(effect.data)


def run_on_socket(port: int, asking: Master, *, limit_s: float = 60.0) -> Outcome:
    """Carry out a master's effects on a connection, as an adapter does."""
    outcome = Outcome()
    begin = time.monotonic()
    deadline = begin + limit_s
    with socket.create_connection(("127.0.0.1", port), timeout=limit_s) as line:
        steps = asking.start(begin)
        while True:
            for step in steps:
                match step:
                    case Telegram():
                        outcome.telegrams.append(step)
                    case CodecError():
                        outcome.errors.append(step)
                    case Send(data):
                        line.sendall(data)
                    case Wait(seconds_s):
                        time.sleep(seconds_s)
                    case Deadline(seconds_s):
                        deadline = time.monotonic() + seconds_s
                    case Done():
                        outcome.done = step
                        return outcome
            now = time.monotonic()
            assert now - begin < limit_s, "the master hangs"
            ready, _, _ = select.select([line], [], [], max(deadline - now, 0))
            now = time.monotonic()
            steps = asking.feed(line.recv(4096), now) if ready else asking.on_timeout(now)


class Recording:
    """The meter's side of a session, message by message: each thing that is sent is answered by the next of them."""

    def __init__(self, data: bytes) -> None:
        self._messages = deque(_messages(data))

    def feed(self, _heard: bytes) -> list[Effect]:
        return [Send(self._messages.popleft())] if self._messages else []

    def idle(self) -> list[Effect]:
        return []


def _messages(data: bytes) -> Iterable[bytes]:
    at = 0
    while at < len(data):
        if data[at] == 0x7E:
            end = at + 2 + ((data[at + 1] & 7) << 8 | data[at + 2])
        elif data[at : at + 2] == b"\0\1":
            end = at + 8 + int.from_bytes(data[at + 6 : at + 8], "big")
        else:
            end = data.index(b"\n", at) + 1
        yield data[at:end]
        at = end
