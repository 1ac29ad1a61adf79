"""Asking a meter by IEC 62056-21: sign on, change the baud rate, read out, or read registers and load profiles.

Source: IEC 62056-21:2002, 6.4 (modes A to D, programming mode), annex B (meters with batteries); ranges of load
profiles as in the VDEW specification 2.0. A session goes

    wake up, sign on --> identification --+-- mode A, B: the data come --------------------------> readout
         ^                                +-- mode C:    option select, readout ------------------> readout
         |                                +-- mode C:    option select, P0, [P1], R1 ... , B0 ----> registers
         +--- again, ``attempts`` times, after any failure

What it does: echoes of the optical head are dropped, parity is made and taken off where the line has 8 bits, what
was damaged is asked for again, every wait has an end, and the last failure is said in a sentence. What it does not:
change anything in the meter; only P1, R1 to R6 and B0 are ever sent, the password only if one is given.
"""

from dataclasses import replace
from datetime import datetime, tzinfo
from enum import Enum
from typing import Final, Literal

import msgspec

from meterway.core.errors import MeterwayError, SetupError, TransientError
from meterway.meter import iec62056_21_frames as frames
from meterway.meter.codec import CodecError
from meterway.meter.iec62056_21 import PROTOCOL, ReadoutDecoder, strip_parity
from meterway.meter.iec62056_21_access import Access, Profile, Readout, Registers, read_commands
from meterway.meter.iec62056_21_lines import read_lines
from meterway.meter.master import Deadline, Done, Send, SetLine, Steps, Wait
from meterway.meter.telegram import Register, Telegram

ANSWER_S: Final = 2.5
"""The first byte of an answer comes within 1.5 s, and may have to leave a buffer on its way."""
GAP_S: Final = 2.0
"""The next byte comes within 1.5 s."""
REACTION_S, FAST_REACTION_S = 0.2, 0.02
"""How long the other side needs to turn from sending to receiving."""
PAUSE_S: Final = 2.0
"""After it, a meter has forgotten a sign-on that came to nothing."""
REPEATS: Final = 2
"""So often one damaged block is asked for again before the session begins anew."""
BLOCK_LIMIT_BYTES: Final = 256 * 1024
"""The most that is buffered of one answer: a load profile of six columns over forty days."""
LIMIT_BYTES: Final = 2 << 20
"""The most that all answers of a session may have."""

_ENDS: Final = frozenset(frames.ETX + frames.EOT + frames.ACK + frames.NAK + b"\x84\x95")
"""What ends a message, also with its parity."""


class _State(Enum):
    SIGN_ON = "the answer to the sign-on"
    DATA = "the readout"
    PROGRAM = "the password request P0"
    PASSWORD = "the answer to the password"  # noqa: S105 - a name
    READ = "the answer to a read command"
    OVER = "nothing"


class Iec62056Master:
    """One session with one meter; a ``meter.master.Master``."""

    def __init__(self, zone: tzinfo, access: Access, task: Readout | Registers | Profile) -> None:
        """``zone`` is that of the meter's clock; in it the range of a profile is written.

        Raises:
            SetupError: address, password or codes cannot be sent; or more than a readout is asked of mode A, B or D.
        """
        self._zone = zone
        self._access = access
        self._task = task
        self._request = frames.request(access.address)
        self._reads = [] if isinstance(task, Readout) else read_commands(task, zone)
        self._password = None if access.password is None else frames.command("P1", f"({access.password})")
        if access.mode in ("A", "B", "D") and self._reads:
            raise SetupError(f"mode {access.mode} has no programming mode; only a readout can be had")
        self._state = _State.OVER
        self._attempt = 0
        self._ends = 0.0
        self._repeats = 0
        self._buffer = bytearray()
        """What came in this state and is not used up; as it came."""
        self._has_end = False
        """Whether something came in this state that may end a message: a long one is looked through only then."""
        self._heard_bytes = 0
        """In this state."""
        self._sent = b""
        """The message that an echo would repeat, and that is sent again after NAK."""
        self._echo = b""
        self._reaction_s = REACTION_S
        self._baud = access.line.baud
        self._identification = b""
        self._meter = ""
        self._decoder = ReadoutDecoder(zone)
        self._index = 0
        """Which of the reads is under way."""
        self._blocks: list[str] = []
        self._answers = bytearray()
        self._registers: list[Register] = []
        self._rows: list[Telegram] = []
        self._errors: list[CodecError] = []
        self._time: datetime | None = None

    def start(self, now: float) -> Steps:
        """Begin the session (see ``Master``)."""
        self._ends = now + self._access.session_s
        return self._sign_on()

    def feed(self, data: bytes, now: float) -> Steps:
        """Take the next bytes (see ``Master``). Handshakes keep few bytes, readouts ``iec62056_21.LIMIT_BYTES``."""
        if self._state is _State.OVER:
            return []
        if now >= self._ends:
            return self._give_up(f"the session was not over after {self._access.session_s:g} s")
        self._heard_bytes += len(data)
        if self._state is _State.DATA:
            return self._take_data(data)
        self._buffer += data
        self._has_end = self._has_end or not _ENDS.isdisjoint(data)
        self._drop_echo()
        return (self._identify() if self._state is _State.SIGN_ON else self._take_message()) or [Deadline(GAP_S)]

    def on_timeout(self, now: float) -> Steps:
        """Tell that the deadline has passed (see ``Master``)."""
        if self._state is _State.OVER:
            return []
        if now >= self._ends:
            return self._give_up(f"the session was not over after {self._access.session_s:g} s")
        if self._state is _State.DATA:
            return self._end_data(self._decoder.idle(now) if self._heard_bytes else [])
        return self._again(self._silence())

    def _sign_on(self) -> Steps:
        self._attempt += 1
        self._repeats = 0
        self._baud = self._access.line.baud
        self._index, self._answers = 0, bytearray()
        self._registers, self._rows, self._time = [], [], None
        steps: Steps = [SetLine(self._access.line)]
        if self._access.mode == "D":
            self._identification = b""
            return steps + self._expect_data()
        self._enter(_State.SIGN_ON)
        if self._access.wake_up_bytes:
            steps += [Send(bytes(self._access.wake_up_bytes)), Wait(self._access.wake_up_pause_s)]
        return [*steps, self._send(self._request), Deadline(ANSWER_S)]

    def _identify(self) -> Steps:
        found = frames.find_identification(strip_parity(bytes(self._buffer)))
        if found is None:
            del self._buffer[: -frames.IDENTIFICATION_LIMIT_BYTES]
            return []
        self._meter = found.text
        self._identification = bytes(self._buffer[: found.end])
        rest = bytes(self._buffer[found.end :])
        self._reaction_s = FAST_REACTION_S if found.is_fast else REACTION_S
        mode = self._access.mode or _mode(found.baud_character)
        if self._reads and mode != "C":
            error = f"meter {self._meter} speaks mode {mode}, which has no programming mode; only a readout can be had"
            return self._over(SetupError(error))
        if mode == "C":
            return self._select(found.baud_character)
        steps: Steps = self._change_baud(frames.MODE_B_BAUD.get(found.baud_character, 2400)) if mode == "B" else []
        return steps + self._expect_data() + (self._take_data(rest) if rest else [])

    def _select(self, offered: str) -> Steps:
        """Choose the baud rate: the meter's, but not above what is allowed; on the last attempt, none but the first."""
        highest = min(frames.MODE_C_BAUD.get(offered, 300), self._access.highest_baud)
        if self._attempt == self._access.attempts > 1:
            highest = 300
        character, baud = max(
            (pair for pair in frames.MODE_C_BAUD.items() if pair[1] <= highest),
            default=("0", 300),
            key=lambda pair: pair[1],
        )
        choice = frames.PROGRAMMING if self._reads else frames.READOUT
        steps: Steps = [Wait(self._reaction_s)]
        if not self._reads:
            return [
                *steps,
                self._send(frames.option_select(character, choice)),
                *self._change_baud(baud),
                *self._expect_data(),
            ]
        self._enter(_State.PROGRAM)
        return [
            *steps,
            self._send(frames.option_select(character, choice)),
            *self._change_baud(baud),
            Deadline(ANSWER_S),
        ]

    def _change_baud(self, baud: int) -> Steps:
        if baud == self._baud:
            return []
        self._baud = baud
        return [SetLine(msgspec.structs.replace(self._access.line, baud=baud))]

    def _expect_data(self) -> Steps:
        self._enter(_State.DATA)
        self._decoder = ReadoutDecoder(self._zone)
        self._decoder.feed(self._identification, 0.0)
        return [Deadline(ANSWER_S)]

    def _take_data(self, data: bytes) -> Steps:
        items = self._decoder.feed(data, 0.0)
        if all(isinstance(item, CodecError) and item.reason == "truncated" for item in items):
            return [*items, Deadline(GAP_S)]  # nothing yet, or noise between identification and data
        return self._end_data(items)

    def _end_data(self, items: list[Telegram | CodecError]) -> Steps:
        """Take what became of a readout that has come to its end."""
        if any(isinstance(item, Telegram) for item in items):
            named = (
                replace(item, meter=item.meter or self._meter) if isinstance(item, Telegram) else item for item in items
            )
            return [*named, *self._over(None)]
        is_damaged = any(isinstance(item, CodecError) and item.reason == "bad-checksum" for item in items)
        if is_damaged and self._mode_is_c and self._repeats < REPEATS:
            self._repeats += 1
            return [*items, Wait(self._reaction_s), self._send(frames.NAK), *self._expect_data()]
        return [*items, *self._again(str(items[-1]) if items else self._silence())]

    @property
    def _mode_is_c(self) -> bool:
        """Whether a block can be asked for again."""
        return self._sent[:1] in (frames.ACK, frames.NAK)

    def _take_message(self) -> Steps:
        found = frames.find_message(strip_parity(bytes(self._buffer))) if self._has_end else None
        if found is None:
            return self._again(f"{self._state.value} does not end") if len(self._buffer) > BLOCK_LIMIT_BYTES else []
        if self._state is _State.PROGRAM and found.command == "ACK":  # what is left of a damaged echo
            del self._buffer[: found.end]
            return self._take_message()
        raw = bytes(self._buffer[: found.end])
        del self._buffer[: found.end]
        if not found.is_right or found.command == "NAK":
            return self._repeat(resend=found.command == "NAK")
        self._repeats = 0
        return self._take_right_message(found, raw)

    def _take_right_message(self, found: frames.Message, raw: bytes) -> Steps:
        if found.command == "B0":
            return self._broken_off()
        if self._state is _State.PROGRAM:
            return self._begin_reads(found)
        if self._state is _State.PASSWORD:
            return self._after_password(found)
        return self._take_answer(found, raw)

    def _begin_reads(self, found: frames.Message) -> Steps:
        if found.command != "P0":
            return self._again("the meter did not enter programming mode")
        if self._password is None:
            return self._next_read()
        self._enter(_State.PASSWORD)
        return [Wait(self._reaction_s), self._send(self._password), Deadline(ANSWER_S)]

    def _after_password(self, found: frames.Message) -> Steps:
        if found.command != "ACK":
            return self._over(SetupError(f"meter {self._meter} refused the password: {found.data or found.command}"))
        return self._next_read()

    def _broken_off(self) -> Steps:
        if self._state is _State.PASSWORD:
            return self._over(SetupError(f"meter {self._meter} refused the password"))
        return self._again("the meter broke off")

    def _next_read(self) -> Steps:
        self._enter(_State.READ)
        self._blocks = []
        if self._index == len(self._reads):
            return self._finish()
        return [Wait(self._reaction_s), self._send(self._reads[self._index][1]), Deadline(ANSWER_S)]

    def _take_answer(self, found: frames.Message, raw: bytes) -> Steps:
        self._answers += raw
        self._blocks.append(found.data)
        if len(self._answers) > LIMIT_BYTES:
            return self._over(TransientError(f"meter {self._meter}: the answers have more than {LIMIT_BYTES} bytes"))
        if found.has_more:
            self._enter(_State.READ)
            return [Wait(self._reaction_s), self._send(frames.ACK), Deadline(ANSWER_S)]
        code = self._reads[self._index][0]
        text = "".join(self._blocks)
        self._index += 1
        if text.startswith("(ER") or "(ERROR)" in text:
            message = f"meter {self._meter} refuses to read {code}: {text[:40]}"
            return [CodecError(message, reason="bad-syntax", data=raw), *self._next_read()]
        return [*self._read_answer(code, text, raw), *self._next_read()]

    def _read_answer(self, code: str, text: str, raw: bytes) -> Steps:
        lines = read_lines(code + text if text.startswith("(") else text, self._zone, strict=False)
        self._registers += lines.registers
        self._time = lines.time or self._time
        self._rows += [Telegram(PROTOCOL, row.registers, raw, self._meter, row.time) for row in lines.rows]
        if not lines.odd:
            return []
        message = f"the answer to {code} has parts of no known form, the first begins {lines.odd[0][:24]!r}"
        return [CodecError(message, reason="bad-syntax", data=raw)]

    def _finish(self) -> Steps:
        steps: Steps = [*self._rows]
        if self._registers:
            registers = tuple(self._registers)
            steps.append(Telegram(PROTOCOL, registers, bytes(self._answers), self._meter, self._time))
        return [*steps, Wait(self._reaction_s), self._send(frames.command("B0")), *self._over(None)]

    def _repeat(self, *, resend: bool) -> Steps:
        """Ask for a damaged block again, or say again what the meter did not understand."""
        if self._repeats == REPEATS:
            return self._again(f"{self._state.value} was damaged {REPEATS + 1} times")
        self._repeats += 1
        message = self._sent if resend else frames.NAK
        self._buffer.clear()
        sent, effect = self._sent, self._send(message)
        self._sent = sent
        return [Wait(self._reaction_s), effect, Deadline(ANSWER_S)]

    def _again(self, reason: str) -> Steps:
        """Begin anew, or give up and say why."""
        if self._attempt >= self._access.attempts:
            return self._give_up(reason)
        steps: Steps = []
        if self._state in (_State.PROGRAM, _State.PASSWORD, _State.READ):
            steps = [self._send(frames.command("B0"))]
        return [*steps, Wait(PAUSE_S), *self._sign_on()]

    def _give_up(self, reason: str) -> Steps:
        tries = f" ({self._attempt} attempts)" if self._attempt > 1 else ""
        return self._over(TransientError(f"{self._meter and f'meter {self._meter}: '}{reason}{tries}"))

    def _over(self, error: MeterwayError | None) -> Steps:
        self._state = _State.OVER
        self._buffer.clear()
        return [Done(error)]

    def _silence(self) -> str:
        """Say what was waited for in vain."""
        if self._state is _State.SIGN_ON and not self._heard_bytes:
            return (
                "the meter does not answer the sign-on; does the optical head sit right, with its cable downward, and "
                "is the device address right?"
            )
        if self._state is _State.SIGN_ON:
            line = self._access.line
            return (
                f"{self._heard_bytes} bytes came and no identification; wrong line settings "
                f"({line.baud} baud, {line.data_bits}{line.parity}{line.stop_bits}), or only the head's own echo?"
            )
        if not self._heard_bytes:
            return f"{self._state.value} did not come at {self._baud} baud"
        return f"{self._state.value} broke off after {self._heard_bytes} bytes at {self._baud} baud"

    def _enter(self, state: _State) -> None:
        self._state = state
        self._buffer.clear()
        self._has_end = False
        self._heard_bytes = 0

    def _send(self, message: bytes) -> Send:
        self._sent = self._echo = message
        return Send(_with_parity(message) if self._access.line.data_bits == 8 else message)  # noqa: PLR2004 - 8N1

    def _drop_echo(self) -> None:
        """Take what an optical head repeats off the front of the buffer."""
        if not self._echo:
            return
        heard = strip_parity(bytes(self._buffer)).lstrip(b"\x00")
        if heard.startswith(self._echo):
            del self._buffer[: len(self._buffer) - len(heard) + len(self._echo)]
            self._echo = b""
        elif not self._echo.startswith(heard):
            self._echo = b""


def _mode(baud_character: str) -> Literal["A", "B", "C"]:
    if baud_character in frames.MODE_C_BAUD:
        return "C"
    return "B" if baud_character in frames.MODE_B_BAUD else "A"


_PARITY: Final = bytes(byte | (byte.bit_count() & 1) << 7 for byte in range(128)) + bytes(range(128, 256))


def _with_parity(data: bytes) -> bytes:
    return data.translate(_PARITY)
