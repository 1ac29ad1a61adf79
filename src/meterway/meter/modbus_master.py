"""Reading a Modbus meter: one visit, few questions, one telegram.

The registers of the family's map are joined to as few questions as the meter takes. Where it refuses registers that
were asked for together, each value is asked for alone, so that one that this meter lacks does not cost the others; what
it refuses even so is handed on as an error that names it, at each visit. The identity comes last and may be missing.

Source: MODBUS Application Protocol Specification V1.1b3, 6.3, 6.4, 7; SunSpec Device Information Model Specification
1.1, 3 (discovery).
"""

from collections.abc import Generator, Sequence
from decimal import Decimal
from typing import Final

from meterway.core.errors import MeterwayError, SetupError, TransientError
from meterway.core.obis import Obis
from meterway.meter.codec import CodecError
from meterway.meter.family import Line
from meterway.meter.master import Deadline, Done, Send
from meterway.meter.modbus_frames import FUNCTION_CODES, ILLEGAL_ADDRESS, ILLEGAL_FUNCTION, ILLEGAL_VALUE, split_answers
from meterway.meter.modbus_map import (
    LAST_ADDRESS,
    Block,
    Framing,
    Function,
    ModbusMap,
    Place,
    Quantity,
    Span,
    Spot,
    spans,
)
from meterway.meter.modbus_session import Procedure, Reply, Session, Timing, Wish
from meterway.meter.modbus_values import number, scaled, text
from meterway.meter.telegram import Register, Telegram

SERIAL_NUMBER: Final = Obis(1, 0, 96, 1, 0)
"""The register that has the meter's own number."""

LIMIT_MODELS: Final = 64
"""So many models of SunSpec are walked through."""

_TCP_UNIT_AT: Final = 6
_SUNS: Final = (0x5375, 0x6E53)
"""The letters SunS."""
_NO_MODEL: Final = 0xFFFF
_HEADER_REGISTERS: Final = 2
_NOT_THERE: Final = (ILLEGAL_ADDRESS, ILLEGAL_VALUE)
_WORDS: Final = {
    4: "its own failure",
    5: "that it still works on it",
    6: "that it is busy",
    7: "that it cannot do this",
    8: "an error of its memory",
    10: "that the gateway has no path to it; check the gateway's serial port",
    11: "that the gateway gets no answer from it; check unit id and wiring, and baud rate and parity at the gateway",
}
"""What exception codes say (V1.1b3, 7)."""

DEFAULT_LINE: Final = Line(baud=9600)

_Reading = Generator[Wish | Telegram | CodecError, Reply | None, MeterwayError | None]
_Blocks = Sequence[tuple[int, Block]]
"""Blocks, and where they begin."""


class ModbusMaster(Session):
    """Reads one unit once; a ``meter.master.Master``.

    One telegram, without a clock; ``raw`` is the answers. With several meters on a line, each has its own master, one
    after the other. Single registers that the meter refuses are errors in the list, and no reason for ``Done`` to have
    one; a line that breaks is, and what was read before is handed over.
    """

    def __init__(
        self,
        modbus: ModbusMap,
        *,
        unit_id: int | None = None,
        framing: Framing | None = None,
        line: Line = DEFAULT_LINE,
        link_delay_s: float = 0.25,
        transaction: int | None = None,
    ) -> None:
        """Prepare the visit; unit id and framing are the map's where they are None.

        ``line`` is the meter's, also where it is behind a gateway.

        Raises:
            SetupError: the framing has no such unit id.
        """
        self._map = modbus
        framing = framing or modbus.framing
        self._unit = modbus.unit("" if unit_id is None else str(unit_id), framing)
        self._contents: dict[tuple[Function, int], int] = {}
        self._raw: list[bytes] = []
        timing = Timing(line.baud, modbus.answer_s, modbus.pause_s, link_delay_s)
        super().__init__(self._visit(), unit_id=self._unit, framing=framing, timing=timing, transaction=transaction)

    def _visit(self) -> Procedure:
        blocks: _Blocks | MeterwayError = [(0, self._map)]
        if self._map.bases:
            blocks = yield from self._discover()
        if isinstance(blocks, MeterwayError):
            return blocks
        problem = yield from self._read([spot for base, block in blocks for spot in self._map.spots(block, base)])
        if problem is None:
            yield from self._identify(blocks)
        telegram = self._telegram(blocks)
        if telegram.registers:
            yield telegram
        return problem if telegram.registers or problem else self._nothing()

    def _nothing(self) -> MeterwayError:
        if self._contents:
            return TransientError(f"Modbus unit {self._unit} says of each of its registers that it has no value")
        return SetupError(f"Modbus unit {self._unit} has not one register of its family; check unit id and family")

    def _read(self, spots: Sequence[Spot]) -> _Reading:
        """Read all; stop at what concerns not only the registers asked for."""
        for span in spans(spots, most_registers=self._map.most_registers, most_gap=self._map.most_gap):
            refusal = yield from self._ask(Wish(span))
            if isinstance(refusal, MeterwayError):
                return refusal
            if refusal and len(span.spots) == 1:
                yield self._refused(span.spots[0], refusal)
            elif refusal:
                problem = yield from self._read_alone(span.spots)
                if problem:
                    return problem
        return None

    def _read_alone(self, spots: Sequence[Spot]) -> _Reading:
        for spot in spots:
            refusal = yield from self._ask(Wish(Span(*spot[:3], (spot,))))
            if isinstance(refusal, MeterwayError):
                return refusal
            if refusal:
                yield self._refused(spot, refusal)
        return None

    def _ask(self, wish: Wish) -> Generator[Wish, Reply | None, int | MeterwayError]:
        """Read registers; return 0, or the exception code that says that there are none, or what else went wrong."""
        reply = yield wish
        answer = reply and reply.answer
        if reply is None or answer is None:
            words = reply.problem if reply and reply.problem else f"Modbus unit {self._unit} does not answer"
            return TransientError(f"{words}; check unit id, framing, baud rate, parity and wiring")
        span = wish.span
        if answer.registers:
            self._raw.append(answer.raw)
            self._contents.update(
                {(span.function, span.address + at): word for at, word in enumerate(answer.registers)}
            )
            return 0
        if answer.refusal in _NOT_THERE:
            self._raw.append(answer.raw)
            return answer.refusal
        if answer.refusal == ILLEGAL_FUNCTION:
            return SetupError(
                f"Modbus unit {self._unit} does not know function {FUNCTION_CODES[span.function]}"
                f" (read {span.function} registers); check family and unit id"
            )
        words = _WORDS.get(answer.refusal, f"exception code {answer.refusal}")
        return TransientError(
            f"Modbus unit {self._unit}, asked for {span.function} register {span.address}, says {words}"
        )

    def _refused(self, spot: Spot, refusal: int) -> CodecError:
        why = "illegal data address" if refusal == ILLEGAL_ADDRESS else "illegal data value"
        return CodecError(
            f"Modbus unit {self._unit} has no {spot.function} register {spot.address} ({spot.meaning}): {why}",
            reason="refused",
            data=self._raw[-1] if self._raw else b"",
        )

    def _identify(self, blocks: _Blocks) -> Generator[Wish, Reply | None, None]:
        """Read what the meter says of itself, once; whether it does is its own affair."""
        spots = [self._map.spot(place, base, "identity") for base, block in blocks for place in block.identity]
        for span in spans(spots, most_registers=self._map.most_registers, most_gap=0):
            yield from self._ask(Wish(span, repeats=0))

    def _discover(self) -> Generator[Wish | CodecError, Reply | None, _Blocks | MeterwayError]:
        """Find the models of SunSpec."""
        for base in self._map.bases:
            refusal = yield from self._ask(self._wish_for(base, 2 * _HEADER_REGISTERS))
            if isinstance(refusal, MeterwayError):
                return refusal
            if not refusal and self._words(base, _HEADER_REGISTERS) == _SUNS:
                return (yield from self._walk(base + _HEADER_REGISTERS))
        where = ", ".join(map(str, self._map.bases))
        return SetupError(f"Modbus unit {self._unit} has no SunSpec map at {where}; check unit id and family")

    def _walk(self, address: int) -> Generator[Wish | CodecError, Reply | None, _Blocks | MeterwayError]:
        """Go from model to model, from the one at ``address``, whose number and length are read, to one with values."""
        known = {number: model for model in self._map.models for number in model.numbers}
        seen: list[str] = []
        identity: list[tuple[int, Block]] = []
        for _ in range(LIMIT_MODELS):
            kind, length = self._words(address, _HEADER_REGISTERS)
            if kind == _NO_MODEL:
                break
            seen.append(str(kind))
            model = known.get(kind)
            if model is not None:
                block = model.within(length + _HEADER_REGISTERS)
                if block.values:
                    return [*identity, (address, block)]
                identity = [(address, block)]
            address += length + _HEADER_REGISTERS
            if address + _HEADER_REGISTERS > LAST_ADDRESS + 1:
                break
            refusal = yield from self._ask(self._wish_for(address, _HEADER_REGISTERS))
            if isinstance(refusal, MeterwayError):
                return refusal
            if refusal:
                break
        return SetupError(
            f"Modbus unit {self._unit} speaks SunSpec without a meter: it has the models {', '.join(seen) or 'none'},"
            f" a meter has one of {', '.join(str(number) for number, model in known.items() if model.values)}"
        )

    def _wish_for(self, address: int, count: int) -> Wish:
        return Wish(Span(self._map.function, address, min(count, LAST_ADDRESS + 1 - address), ()))

    def _words(self, address: int, count: int) -> tuple[int, ...]:
        return self._at(Spot(self._map.function, address, count, "")) or (_NO_MODEL, 0)

    def _at(self, spot: Spot) -> tuple[int, ...] | None:
        """Return what is in registers, if they were read."""
        places = [(spot.function, spot.address + at) for at in range(spot.registers)]
        found = [self._contents[place] for place in places if place in self._contents]
        return tuple(found) if len(found) == spot.registers else None

    def _telegram(self, blocks: _Blocks) -> Telegram:
        registers = [
            register
            for base, block in blocks
            for value in block.values
            if (register := self._register(base, value)) is not None
        ]
        said = {place: self._said(base, place) for base, block in blocks for place in block.identity}
        serial = next((said[block.serial] for _, block in reversed(blocks) if block.serial is not None), "")
        if serial and registers:
            registers.append(Register(SERIAL_NUMBER, serial))
        meter = " ".join(words for words in said.values() if words)
        return Telegram("modbus", tuple(registers), b"".join(self._raw), meter)

    def _register(self, base: int, value: Quantity) -> Register | None:
        words = self._at(self._map.spot(value, base, ""))
        obis = Obis.parse(value.obis)
        if words is None:
            return None
        if value.type == "string":
            spelled = text(words)
            return Register(obis, spelled) if spelled else None
        content = number(words, value.type, value.words or self._map.words, self._map.absent.get(value.type, ()))
        power = None
        if value.scale_at is not None:
            scale = self._at(Spot(value.function or self._map.function, base + value.scale_at, 1, ""))
            power = number(scale, "int16", "big") if scale else None
            if power is None:
                return None
        result = None if content is None else scaled(content, Decimal(value.scale), power)
        return None if result is None else Register(obis, result, value.unit or None)

    def _said(self, base: int, place: Place) -> str:
        words = self._at(self._map.spot(place, base, ""))
        if words is None:
            return ""
        if place.type == "string":
            return text(words)
        content = number(words, place.type, place.words or self._map.words)
        return "" if content is None else str(content)


def replay(modbus: ModbusMap, answers: bytes) -> list[Telegram | CodecError]:
    """Return what a visit makes of the ``answers`` of a meter, one after the other: a telegram's ``raw``, a sample.

    The master asks as it asks the meter; there is no answer to what the recording lacks.
    """
    framing, frames = split_answers(answers)
    first = frames[0] if frames else bytes(_TCP_UNIT_AT + 1)
    try:
        master = ModbusMaster(
            modbus,
            unit_id=first[_TCP_UNIT_AT if framing == "tcp" else 0],
            framing=framing,
            transaction=int.from_bytes(first[:2], "big"),
        )
    except SetupError:
        return []
    items: list[Telegram | CodecError] = []
    now = 0.0
    steps = master.start(now)
    while True:
        sent = False
        for step in steps:
            match step:
                case Send():
                    sent = True
                case Deadline(seconds_s):
                    now += seconds_s
                case Done():
                    return items
                case Telegram() | CodecError():
                    items.append(step)
        steps = master.feed(frames.pop(0), now) if sent and frames else master.on_timeout(now)
