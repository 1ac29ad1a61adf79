"""Asking a meter by DLMS/COSEM: sign on where an optical head wants it, associate, read registers or a load profile.

    [sign on in mode E, change of baud rate] --> connect --> associate --> read --> release --> disconnect
         ^                                                                   |
         +--------------------- again, ``attempts`` times -------------------+

The conversation is in ``dlms_client`` and ``dlms_read``, what frames do in ``dlms_hdlc`` and ``dlms_line``; here is the
time: how long an answer is waited for, when it is asked for again, when all is given up. What it does not: change
anything in the meter; only get is ever asked, and the action that proves who we are. Source of the sign-on: IEC
62056-21:2002, annex E.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import tzinfo
from enum import Enum
from typing import Final

import msgspec

from meterway.core.errors import MeterwayError, SetupError, TransientError
from meterway.meter import iec62056_21_frames as frames
from meterway.meter.codec import CodecError
from meterway.meter.dlms_access import DlmsAccess, Task
from meterway.meter.dlms_client import Call, Connect, Demand, Disconnect, Listen, converse
from meterway.meter.dlms_hdlc import HdlcLine
from meterway.meter.dlms_line import Broken, DlmsLine, Event, Heard, Reply
from meterway.meter.dlms_read import read
from meterway.meter.iec62056_21 import strip_parity
from meterway.meter.master import Deadline, Done, Send, SetLine, Steps, Wait
from meterway.meter.telegram import Telegram

SIGN_ON_S: Final = 2.5
"""The answer to a sign-on begins within 1.5 s, and may have to leave a buffer on its way."""
GAP_S: Final = 2.0
"""The next byte of a frame comes within this."""
REACTION_S: Final = 0.3
"""How long a meter needs to turn from sending to receiving, and to set its line."""
PAUSE_S: Final = 3.0
"""Before another attempt: what a meter still had to say has been said."""
REPEATS: Final = 3
"""So often an answer that does not come is asked for again."""
LIMIT_SESSION_BYTES: Final = 4 << 20
"""The most that all answers of a session may have, their frames included."""

_MODE_E: Final = b"2"
_LIMIT_SIGN_ON_BYTES: Final = frames.IDENTIFICATION_LIMIT_BYTES


class _State(Enum):
    SIGN_ON = "the answer to the sign-on"
    CONFIRM = "the confirmation of mode E"
    CONNECT = "the answer to the connection request"
    CALL = "the answer to a request"
    FAREWELL = "the answer to the release"
    LEAVE = "the end of the connection"
    BREAK = "the end of a connection that came to nothing"
    OVER = "nothing"


class DlmsMaster:
    """One session with one meter; a ``meter.master.Master``."""

    def __init__(
        self,
        access: DlmsAccess,
        task: Task,
        zone: tzinfo,
        *,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """``zone`` is that of the meter's clock; ``random_bytes`` makes challenges, and must not be foreseeable."""
        self._access = access
        self._task = task
        self._zone = zone
        self._random_bytes = random_bytes
        self._state = _State.OVER
        self._attempt = 0
        self._ends = 0.0
        self._repeats = 0
        self._talk = converse(access, lambda client: read(client, task, access.objects, zone), random_bytes)
        self._line: DlmsLine = access.open_line(access.ask.client)
        self._baud = access.line.baud
        self._buffer = bytearray()
        """What came of the sign-on."""
        self._has_echo = False
        self._identification = ""
        self._raw = bytearray()
        self._heard_bytes = 0
        """Since the last thing that was sent."""
        self._has_result = False

    def start(self, now: float) -> Steps:
        """Begin the session (see ``Master``)."""
        self._ends = now + self._access.session_s
        return self._begin()

    def feed(self, data: bytes, now: float) -> Steps:
        """Take the next bytes (see ``Master``); at most an APDU and its frames wait."""
        if self._state is _State.OVER:
            return []
        if now >= self._ends:
            return self._too_long()
        self._heard_bytes += len(data)
        if self._state in (_State.SIGN_ON, _State.CONFIRM):
            return self._sign_on_answer(data)
        line = self._line
        steps: Steps = []
        for event in line.feed(data):
            if line is self._line:
                steps += self._take(event)
        if not any(isinstance(step, Deadline | Done) for step in steps) and line.buffered_bytes:
            steps.append(Deadline(GAP_S))
        return steps

    def on_timeout(self, now: float) -> Steps:
        """Tell that the deadline has passed (see ``Master``)."""
        if self._state is _State.OVER:
            return []
        if now >= self._ends:
            return self._too_long()
        match self._state:
            case _State.CONFIRM:
                return self._leave_sign_on()
            case _State.FAREWELL | _State.LEAVE:
                return self._advance(None)
            case _State.BREAK:
                return [Wait(PAUSE_S), *self._begin()]
            case _:
                return self._ask_again()

    def _ask_again(self) -> Steps:
        """Ask once more for the answer that did not come; where that cannot be done, begin anew."""
        again = b"" if self._state is _State.SIGN_ON else self._line.repeat()
        if again and self._repeats < REPEATS:
            self._repeats += 1
            return self._send(again)
        return self._again(self._silence())

    def _begin(self) -> Steps:
        self._attempt += 1
        access, task, zone = self._access, self._task, self._zone
        self._talk = converse(access, lambda client: read(client, task, access.objects, zone), self._random_bytes)
        self._raw.clear()
        self._baud = access.line.baud
        if not access.ask.optical:
            return (
                [SetLine(access.line), *self._advance(None)] if access.ask.transport == "hdlc" else self._advance(None)
            )
        self._state = _State.SIGN_ON
        self._buffer.clear()
        self._heard_bytes = 0
        return [SetLine(access.line), Send(frames.request()), Deadline(SIGN_ON_S)]

    def _sign_on_answer(self, data: bytes) -> Steps:
        self._buffer += data
        heard = strip_parity(bytes(self._buffer))
        if self._state is _State.CONFIRM:
            told = heard.count(_option(self._baud))
            return self._leave_sign_on() if told > self._has_echo else []
        found = frames.find_identification(heard)
        if found is None:
            del self._buffer[:-_LIMIT_SIGN_ON_BYTES]
            return [Deadline(SIGN_ON_S)]
        self._has_echo = frames.request() in heard[: found.end]
        self._identification = found.text
        offered = frames.MODE_C_BAUD.get(found.baud_character)
        if offered is None:
            error = f"the meter {found.text} offers no mode E, so it is not asked by DLMS through an optical head"
            return self._over(SetupError(error))
        highest = min(offered, self._access.ask.highest_baud)
        self._baud = max(baud for baud in frames.MODE_C_BAUD.values() if baud <= highest)
        self._state = _State.CONFIRM
        self._buffer.clear()
        line = msgspec.structs.replace(self._access.line, baud=self._baud)
        return [Wait(REACTION_S), Send(_option(self._baud)), SetLine(line), Deadline(SIGN_ON_S)]

    def _leave_sign_on(self) -> Steps:
        """Speak HDLC, confirmed or not: some meters confirm at the old baud rate, which is not understood."""
        line = msgspec.structs.replace(self._access.line, baud=self._baud, data_bits=8, parity="N", stop_bits=1)
        return [SetLine(line), Wait(REACTION_S), *self._advance(None)]

    def _take(self, event: Event) -> Steps:
        match event:
            case CodecError():
                return [event]
            case Reply(data):
                return self._send(data)
            case Heard(apdu, raw):
                return self._hear(apdu, raw)
            case _ if self._state is _State.BREAK:
                return [Wait(PAUSE_S), *self._begin()]
            case Broken(why) if self._state is not _State.LEAVE:
                return self._again(f"the meter {why}")
            case _:
                return self._advance(None) if self._state in (_State.CONNECT, _State.LEAVE) else []

    def _hear(self, apdu: bytes, raw: bytes) -> Steps:
        self._raw += raw
        if len(self._raw) > LIMIT_SESSION_BYTES:
            return self._over(SetupError(f"the answers have more than {LIMIT_SESSION_BYTES} bytes; ask for less"))
        return self._advance(apdu) if self._state in (_State.CALL, _State.FAREWELL) else []

    def _advance(self, heard: bytes | None) -> Steps:
        """Have the conversation go on, up to the next thing that must be waited for."""
        steps: Steps = []
        self._repeats = 0
        try:
            demand = self._talk.send(heard)
            while (done := self._carry_out(demand)) is not None:
                steps += done
                demand = self._talk.send(None)
        except StopIteration:
            return [*steps, *self._over(None)]
        except TransientError as error:
            return [*steps, *self._again(str(error))]
        except MeterwayError as error:
            return [*steps, *self._over(error)]
        return steps + self._wait_for(demand)

    def _carry_out(self, demand: Demand) -> Steps | None:
        """Do what needs no answer; None: it needs one."""
        match demand:
            case Telegram():
                self._has_result = True
                return [replace(demand, meter=demand.meter or self._identification, raw=bytes(self._raw))]
            case CodecError():
                return [demand]
            case Connect(client):
                self._line = self._access.open_line(client)
                return None if isinstance(self._line, HdlcLine) else []
            case Disconnect():
                return None if isinstance(self._line, HdlcLine) else []
            case _:
                return None

    def _wait_for(self, demand: Demand) -> Steps:
        match demand:
            case Connect():
                self._state = _State.CONNECT
                return self._send(self._line.connect())
            case Disconnect():
                self._state = _State.LEAVE
                return self._send(self._line.disconnect())
            case Call(apdu, is_farewell):
                self._state = _State.FAREWELL if is_farewell else _State.CALL
                return self._send(self._line.send(apdu))
            case Listen():
                return [Deadline(self._access.ask.answer_s)]
        raise AssertionError(demand)

    def _send(self, data: bytes) -> Steps:
        self._heard_bytes = 0
        return [Send(data), Deadline(self._access.ask.answer_s)]

    def _too_long(self) -> Steps:
        if self._state in (_State.FAREWELL, _State.LEAVE) and self._has_result:
            return self._over(None)
        return self._over(TransientError(f"the session was not over after {self._access.session_s:g} s"))

    def _again(self, reason: str) -> Steps:
        """Begin anew, or give up and say why; what was handed over is not read twice."""
        farewell = self._line.disconnect() if self._state is _State.CALL else b""
        if self._attempt < self._access.attempts and not self._has_result:
            if not farewell:
                return [Wait(PAUSE_S), *self._begin()]
            self._state = _State.BREAK
            return self._send(farewell)
        steps: Steps = [Send(farewell)] if farewell else []
        tries = f" ({self._attempt} attempts)" if self._attempt > 1 else ""
        return steps + self._over(TransientError(f"{reason}{tries}"))

    def _over(self, error: MeterwayError | None) -> Steps:
        self._state = _State.OVER
        self._talk.close()
        return [Done(error)]

    def _silence(self) -> str:
        """Say what was waited for in vain."""
        if self._state is _State.SIGN_ON and not self._heard_bytes:
            return "the meter does not answer the sign-on; does the optical head sit right, and does the port do 7E1?"
        if self._state is _State.SIGN_ON:
            return f"{self._heard_bytes} bytes came and no identification; are the line settings right?"
        ask, own = self._access.ask, self._access.address
        rate = f" at {self._baud} baud" if ask.transport == "hdlc" else ""
        if not self._raw and not self._heard_bytes and ask.transport == "wrapper":
            return f"the meter does not answer; is its port {own or ask.server} of the wrapper right?"
        if self._state is _State.CONNECT and not self._heard_bytes:
            address = f"{ask.server}/{own or ask.physical or 0}"
            return f"the meter does not answer{rate}; is its address {address}, in {ask.address_bytes} bytes?"
        if not self._heard_bytes:
            return f"{self._state.value} did not come{rate}"
        return f"{self._state.value} did not come{rate}, only {self._heard_bytes} bytes that are none"


def _option(baud: int) -> bytes:
    """Return the choice of mode E, which the meter repeats to confirm it."""
    character = next(character for character, rate in frames.MODE_C_BAUD.items() if rate == baud)
    return frames.ACK + _MODE_E + character.encode("ascii") + _MODE_E + b"\r\n"
