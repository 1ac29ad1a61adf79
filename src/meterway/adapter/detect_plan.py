"""What is tried at a place, and in which order: what is likely and quick comes first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from meterway.adapter.config import HttpSource, MqttSource, Rfc2217Source, SerialSource, Source, TcpSource
from meterway.adapter.detect_dlms import dlms_hdlc, dlms_optical, dlms_wrapper
from meterway.adapter.detect_modbus import modbus_rtu, modbus_tcp
from meterway.adapter.detect_questions import Known, Question, iec62056_21, iec62056_21_wake_up, mbus
from meterway.meter.family import Line
from meterway.meter.wmbus_receivers import RECEIVERS

LISTEN_S: Final = 3.0
"""At each line setting, where nobody says how long."""
WHOLE_S: Final = 15.0
"""So long is waited for the rest of a telegram that has begun; some meters send every 10 s."""
RADIO_S: Final = 60.0
"""So long a receiver that answers is listened to; most radio meters send every 10 s to 2 min."""
MESSAGE_S: Final = 60.0
"""So long is waited for the first message of a topic."""
POLL_S: Final = 15.0
"""For the answer of a device that is asked over HTTP."""
LINES: Final = (
    Line(baud=9600),
    Line(baud=9600, data_bits=7, parity="E"),
    Line(baud=115_200),
    Line(baud=2400, parity="E"),
)
"""SML heads; mode D heads and old P1; P1; DLMS on M-Bus."""
_RECEIVER_ANSWER_S: Final = 1.0
_SILENT_RECEIVER_S: Final = 20.0
"""A receiver without commands says something only when it hears a meter."""
_RADIO_MODES: Final = {"im871a": "T", "cul": "T", "amber": "CT"}
"""Receivers that answer to what tells them to listen."""
_MODBUS_PORT: Final = 502
_DLMS_PORT: Final = 4059


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Listening at one setting of the line."""

    what: str
    """For people, behind "listening" and "listened": "at 9600 8N1"."""
    line: Line
    first_s: float
    """So long is waited for the first byte,"""
    listen_s: float
    """and so long altogether, unless a telegram begins; from the first message on, where there are messages."""
    receiver: str | None = None
    """A receiver of wireless M-Bus, which is told to listen,"""
    radio_mode: str = "T"
    """to this."""

    @property
    def limit_s(self) -> float:
        """So long it takes at most."""
        return max(self.first_s, self.listen_s) + WHOLE_S


Step = Listening | Question


def plan(source: Source, known: Known, *, listen_s: float = LISTEN_S, ask: bool = True) -> list[Step]:
    """Return what is tried at ``source``; without ``ask`` nothing is sent."""
    match source:
        case HttpSource():
            return [Listening(what="to what it answers", line=Line(), first_s=POLL_S, listen_s=0.0)]
        case MqttSource():
            first_s = max(MESSAGE_S, listen_s)
            return [Listening(what="to the topic", line=Line(), first_s=first_s, listen_s=listen_s)]
        case SerialSource() | Rfc2217Source():
            listening = [_listening(line, f"at {named(line)}", listen_s) for line in LINES]
            return [*listening, *(_serial(known, listen_s) if ask else ())]
        case _:
            listening = [_listening(LINES[0], "to what it sends", listen_s)]
            return [*listening, *(_network(source, known) if ask else ())]


def limit_s(steps: Sequence[Step]) -> float:
    """Return how long steps take at most, if everybody answers and talks for ever."""
    return sum(step.limit_s for step in steps)


def named(line: Line) -> str:
    """Return a line's settings as people write them: 9600 8N1."""
    return f"{line.baud} {line.data_bits}{line.parity}{line.stop_bits}"


def other_mode(step: Listening) -> list[Listening]:
    """Return how a receiver is listened to that has heard no meter: in its next radio mode."""
    if step.receiver is None or step.radio_mode != "T":
        return []
    return [_receiver(step.receiver, "C", step.listen_s)]


def _listening(line: Line, what: str, listen_s: float) -> Listening:
    return Listening(what=what, line=line, first_s=listen_s, listen_s=listen_s)


def _serial(known: Known, listen_s: float) -> list[Step]:
    first_mbus, *other_mbus = mbus(known)
    first_modbus, *other_modbus = modbus_rtu(known)
    return [
        iec62056_21(known),
        *(_receiver(name, mode, max(RADIO_S, listen_s)) for name, mode in _RADIO_MODES.items()),
        first_mbus,
        first_modbus,
        dlms_optical(known),
        dlms_hdlc(known),
        iec62056_21_wake_up(known),
        *other_modbus,
        *other_mbus,
        _silent_receiver(listen_s),
    ]


def _network(source: Source, known: Known) -> list[Step]:
    port = source.port if isinstance(source, TcpSource) else 0
    steps: list[Step] = [
        modbus_tcp(known),
        iec62056_21(known),
        *mbus(known),
        *modbus_rtu(known),
        dlms_wrapper(known),
        dlms_hdlc(known),
        dlms_optical(known),
        iec62056_21_wake_up(known),
    ]
    likely = {_DLMS_PORT: "DLMS", _MODBUS_PORT: "Modbus"}.get(port, "")
    return sorted(steps, key=lambda step: not likely or likely not in step.what)


def _receiver(name: str, mode: str, listen_s: float) -> Listening:
    return Listening(
        what=f"as radio receiver {name}, mode {mode}",
        line=Line(baud=RECEIVERS[name].baud),
        first_s=_RECEIVER_ANSWER_S,
        listen_s=listen_s,
        receiver=name,
        radio_mode=mode,
    )


def _silent_receiver(listen_s: float) -> Listening:
    receiver = RECEIVERS["rc1180"]
    wait_s = max(_SILENT_RECEIVER_S, listen_s)
    return _listening(Line(baud=receiver.baud), f"at {receiver.baud} 8N1 ({receiver.title})", wait_s)
