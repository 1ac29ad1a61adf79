"""Virtual meters on a Modbus line: bytes of the master in, what comes back on the line out. No I/O, no clock.

A meter has the registers of a family's map, and refuses all others. Which values are in them is asked for at every
question. With a map of SunSpec, a meter has the models that have an identity, then the one that it is told to be.

Source: MODBUS Application Protocol Specification V1.1b3, 6.3, 6.4, 7; SunSpec Device Information Model Specification
1.1, 3 and 4.2.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final, Literal

from meterway.core.errors import SetupError
from meterway.meter.modbus_frames import (
    FUNCTION_CODES,
    ILLEGAL_ADDRESS,
    ILLEGAL_FUNCTION,
    ILLEGAL_VALUE,
    NO_GATEWAY_ANSWER,
    Question,
    QuestionReader,
    encode_answer,
    encode_refusal,
)
from meterway.meter.modbus_map import (
    LIMIT_REGISTERS,
    Block,
    Framing,
    Function,
    ModbusMap,
    Model,
    Place,
    Quantity,
    WordOrder,
    spans,
)
from meterway.meter.modbus_values import LARGEST_SCALE, UNIMPLEMENTED, float_bytes

Fault = Literal["exception", "silence", "damage"]
Values = Callable[[], Mapping[str, Decimal]]
"""Returns the values by the OBIS codes of the map, each in the map's unit; what is missing is not implemented."""

_DEVICE_FAILURE: Final = 4
_PROTOCOL_AT: Final = 2
"""Of TCP, which has no checksum of its own: damage is seen in the header only."""
_SUNS: Final = [0x5375, 0x6E53]
_END: Final = [0xFFFF, 0]
_NO_SCALE: Final = 0x8000
_NAN: Final = {"float32": 0x7FC0_0000, "float64": 0x7FF8_0000_0000_0000}
_LARGEST_SCALED: Final = 32_767
_LARGEST_LONG: Final = 2**31 - 1

_Bank = dict[tuple[Function, int], int]


def encode(value: Decimal | str | None, place: Place, words: WordOrder) -> list[int]:
    """Return the registers that say ``value``, which is scaled already; None says that there is none.

    Raises:
        ValueError: a number that the type has no room for.
    """
    size = 2 * place.registers
    if isinstance(value, str) and place.type == "string":
        data = value.encode("latin-1", "replace")[:size].ljust(size, b"\0")
        return _split(data)
    if value is None:
        data = bytes(size)
        if place.type != "string":
            data = _NAN.get(place.type, UNIMPLEMENTED.get(place.type, (0,))[0]).to_bytes(size, "big")
    elif place.type in _NAN:
        data = float_bytes(str(value), place.type)
    else:
        whole = int(Decimal(value).to_integral_value(ROUND_HALF_EVEN))
        try:
            data = whole.to_bytes(size, "big", signed=place.type.startswith("int"))
        except OverflowError:
            raise ValueError(f"{value} has no room in register {place.address}, {place.type}") from None
    found = _split(data)
    return found if words == "big" else found[::-1]


def _split(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]


class ModbusSlave:
    """One meter."""

    def __init__(
        self,
        modbus: ModbusMap,
        values: Values,
        *,
        unit_id: int = 1,
        maker: str = "",
        model: str = "",
        serial: str = "",
        sunspec_model: int | None = None,
        fault: Callable[[int], Fault | None] = lambda _: None,
    ) -> None:
        """Make a meter; ``fault`` says what it does wrong at its n-th question, from 0 on.

        Raises:
            SetupError: the map has no such model of SunSpec.
        """
        self.unit_id = unit_id
        self.questions = 0
        """Heard so far."""
        self._map = modbus
        self._values = values
        self._names = {"maker": maker, "model": model, "serial": serial}
        self._fault = fault
        self._model = self._choose(sunspec_model) if modbus.bases else None

    def hear(self, question: Question, framing: Framing) -> bytes:
        """Return what the meter sends to a question for its unit."""
        fault = self._fault(self.questions)
        self.questions += 1
        if fault == "silence":
            return b""
        answer = (
            encode_refusal(question, framing, _DEVICE_FAILURE) if fault == "exception" else self._say(question, framing)
        )
        if fault != "damage":
            return answer
        at = -3 if framing == "rtu" else _PROTOCOL_AT
        damaged = bytearray(answer)
        damaged[at] ^= 0x10
        return bytes(damaged)

    def _say(self, question: Question, framing: Framing) -> bytes:
        functions = {code: function for function, code in FUNCTION_CODES.items()}
        if question.function not in functions:
            return encode_refusal(question, framing, ILLEGAL_FUNCTION)
        if not 1 <= question.count <= min(LIMIT_REGISTERS, self._map.most_registers):
            return encode_refusal(question, framing, ILLEGAL_VALUE)
        bank = self.bank()
        function = functions[question.function]
        words = [bank.get((function, question.address + at)) for at in range(question.count)]
        found = tuple(word for word in words if word is not None)
        if len(found) != question.count:
            return encode_refusal(question, framing, ILLEGAL_ADDRESS)
        return encode_answer(question, framing, found)

    def bank(self) -> _Bank:
        """Return what is in the registers now, by function and address."""
        values = self._values()
        if self._model is None:
            bank: _Bank = {}
            spots = self._map.spots(self._map, 0)
            for span in spans(spots, most_registers=self._map.most_registers, most_gap=self._map.most_gap):
                bank.update({(span.function, span.address + at): 0 for at in range(span.registers)})
            bank.update(self._block(self._map, 0, values))
            return bank
        words = list(_SUNS)
        base = self._map.bases[0]
        for model in [*(model for model in self._map.models if model.identity), self._model]:
            start = base + len(words)
            number = model.numbers[0] if model is not self._model else self._number
            places = self._block(model, start, values)
            end = max(start + model.length + 2, *(address + 1 for _, address in places))
            words += [number, end - start - 2] + [
                places.get((self._map.function, at), _NO_SCALE) for at in range(start + 2, end)
            ]
        words += _END
        return {(self._map.function, base + at): word for at, word in enumerate(words)}

    def _choose(self, number: int | None) -> Model:
        for model in self._map.models:
            if model.values and (number is None or number in model.numbers):
                self._number = number or model.numbers[0]
                return model
        raise SetupError(f"the register map has no SunSpec model {number} with values")

    def _block(self, block: Block, base: int, values: Mapping[str, Decimal]) -> _Bank:
        bank: _Bank = {}
        powers = self._powers(block, values)
        for name, place in (("maker", block.maker), ("model", block.model), ("serial", block.serial)):
            if place is not None:
                said = self._names[name]
                content = said if place.type == "string" else Decimal(said) if said else None
                self._put(bank, place, base, content)
        for value in block.values:
            content = _unscaled(values, value)
            if content is not None:
                content = content.scaleb(-powers[value.scale_at]) if value.scale_at in powers else content
            self._put(bank, value, base, content)
        for address, power in powers.items():
            bank[self._map.function, base + address] = power & 0xFFFF
        return bank

    def _put(self, bank: _Bank, place: Place, base: int, content: Decimal | str | None) -> None:
        spot = self._map.spot(place, base, "")
        for at, word in enumerate(encode(content, place, place.words or self._map.words)):
            bank[spot.function, spot.address + at] = word

    @staticmethod
    def _powers(block: Block, values: Mapping[str, Decimal]) -> dict[int, int]:
        """Return the power of ten in each scale register: it leaves all digits, or as many as there is room for."""
        scaled: dict[int, list[tuple[Decimal, int]]] = {}
        for value in block.values:
            content = _unscaled(values, value)
            if value.scale_at is not None:
                room = _LARGEST_SCALED if value.registers == 1 else _LARGEST_LONG
                scaled.setdefault(value.scale_at, []).append((content or Decimal(0), room))
        return {address: _power(contents) for address, contents in scaled.items()}


def _unscaled(values: Mapping[str, Decimal], quantity: Quantity) -> Decimal | None:
    value = values.get(quantity.obis)
    return None if value is None else value / Decimal(quantity.scale)


def _power(contents: Sequence[tuple[Decimal, int]]) -> int:
    power = min(0, *(int(value.normalize().as_tuple().exponent) for value, _ in contents))
    power = max(power, -LARGEST_SCALE)
    while power < LARGEST_SCALE and any(abs(value.scaleb(-power)) > room for value, room in contents):
        power += 1
    return power


class ModbusBus:
    """Meters on one pair of wires, or behind one address of TCP."""

    def __init__(self, slaves: Iterable[ModbusSlave], framing: Framing = "rtu") -> None:
        self.slaves = {slave.unit_id: slave for slave in slaves}
        self._framing = framing
        self._reader = QuestionReader(framing)

    def feed(self, data: bytes) -> bytes:
        """Take what the master sends; return what it hears. A unit that is not there is silent; a gateway says so."""
        heard = bytearray()
        for question in self._reader.feed(data):
            slave = self.slaves.get(question.unit_id)
            if slave is not None:
                heard += slave.hear(question, self._framing)
            elif self._framing == "tcp":
                heard += encode_refusal(question, "tcp", NO_GATEWAY_ANSWER)
        return bytes(heard)

    def idle(self) -> None:
        """Tell that the master paused: what it began is forgotten."""
        self._reader.idle()
