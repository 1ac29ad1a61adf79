"""Visits to Modbus meters, in simulated time and over real lines: repeats, refusals, strangers, hostile units."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import cycle, repeat
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymodbus.framer import FramerRTU

from meterway.core.errors import SetupError, TransientError
from meterway.meter.family import Line, load_family
from meterway.meter.master import Done
from meterway.meter.modbus_frames import LIMIT_BYTES, Question, encode_answer, encode_refusal
from meterway.meter.modbus_map import Framing, ModbusMap, Quantity
from meterway.meter.modbus_master import LIMIT_MODELS, ModbusMaster
from meterway.meter.modbus_session import REPEATS, VISIT_LIMIT_S
from meterway.meter.virtual.modbus_slave import Fault, ModbusBus, ModbusSlave
from support.modbus import Damage, Endless, Heard, converse, drive, pty_meters, tcp_meters, untouched

FRAMINGS: list[Framing] = ["rtu", "tcp"]
VOLTS = Quantity(address=0, type="uint16", obis="1-0:32.7.0", unit="V", scale="0.1")
AMPERES = Quantity(address=1, type="uint16", obis="1-0:31.7.0", unit="A", scale="0.01")
ENERGY = Quantity(address=40, type="uint32", obis="1-0:1.8.0", unit="Wh")
TABLE = ModbusMap(values=(VOLTS, AMPERES, ENERGY))
GOOD = {"32.7.0": "231.4", "31.7.0": "4.50", "1.8.0": "12345678"}
ALL = {"1-0:32.7.0": Decimal("231.4"), "1-0:31.7.0": Decimal("4.5"), "1-0:1.8.0": Decimal(12345678)}


def slave(unit_id: int = 1, table: ModbusMap = TABLE, *, volts: str = "231.4", fault: object = None) -> ModbusSlave:
    values = {**ALL, "1-0:32.7.0": Decimal(volts)}
    faults: Callable[[int], Fault | None] = fault if callable(fault) else lambda _: None
    return ModbusSlave(table, lambda: values, unit_id=unit_id, fault=faults)


def read(
    *slaves: ModbusSlave,
    framing: Framing = "rtu",
    unit_id: int = 1,
    damage: Damage = untouched,
    table: ModbusMap = TABLE,
) -> Heard:
    master = ModbusMaster(table, unit_id=unit_id, framing=framing)
    return converse(master, ModbusBus(slaves, framing), damage=damage)


class Script:
    """A unit that says what a test says, question by question; then nothing."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = iter(answers)

    def feed(self, _data: bytes) -> bytes:
        return next(self.answers, b"")

    def idle(self) -> None:
        """See ``Bus``."""


def answered(registers: tuple[int, ...], *, unit_id: int = 1, function: int = 3, transaction: int = 0) -> bytes:
    question = Question(unit_id, function, 0, len(registers), transaction)
    return encode_answer(question, "tcp" if transaction else "rtu", registers)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("chunk_bytes", [1, 7, 64])
def test_each_unit_of_a_bus_is_read(framing: Framing, chunk_bytes: int) -> None:
    bus = ModbusBus([slave(1), slave(2, volts="229.5"), slave(247, volts="0")], framing)
    for unit_id, volts in ((1, "231.4"), (2, "229.5"), (247, "0.0")):
        master = ModbusMaster(TABLE, unit_id=unit_id, framing=framing)
        heard = converse(master, bus, chunk_bytes=chunk_bytes)
        assert (heard.error, heard.reasons) == (None, [])
        assert heard.values == {**GOOD, "32.7.0": volts}
        assert len(heard.sent) == 2


@pytest.mark.parametrize("framing", FRAMINGS)
def test_telegram_has_units_and_no_clock_and_its_answers(framing: Framing) -> None:
    answers: list[bytes] = []

    def tap(_number: int, answer: bytes) -> bytes:
        answers.append(answer)
        return answer

    [telegram] = read(slave(), framing=framing, damage=tap).telegrams
    assert (telegram.protocol, telegram.time, telegram.meter, telegram.checked) == ("modbus", None, "", True)
    assert [register.unit for register in telegram.registers] == ["V", "A", "Wh"]
    assert telegram.raw == b"".join(answers)


def test_question_is_repeated_three_times_and_then_the_unit_is_called_silent() -> None:
    heard = read(slave(2))
    assert len(heard.sent) == 1 + REPEATS
    assert heard.items == []
    assert isinstance(heard.error, TransientError)
    assert str(heard.error) == "Modbus unit 1 does not answer; check unit id, framing, baud rate, parity and wiring"
    assert heard.elapsed_s < (1 + REPEATS) * 1.5


def test_waits_are_as_long_as_the_line_is_slow() -> None:
    def elapsed(baud: int) -> float:
        master = ModbusMaster(TABLE, line=Line(baud=baud), link_delay_s=0.0)
        return converse(master, ModbusBus([])).elapsed_s

    assert elapsed(300) - elapsed(9600) > (1 + REPEATS) * 0.5


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("fault", ["silence", "damage"])
def test_what_fails_three_times_is_read_the_fourth(framing: Framing, fault: Fault) -> None:
    heard = read(slave(fault=lambda number: fault if number < REPEATS else None), framing=framing)
    assert heard.error is None
    assert heard.values == GOOD
    assert len(heard.sent) == REPEATS + 2
    damage = "bad-checksum" if framing == "rtu" else "bad-syntax"
    assert heard.reasons == ([damage] * REPEATS if fault == "damage" else [])


def test_damage_that_stays_is_said() -> None:
    heard = read(slave(fault=lambda _: "damage"))
    assert heard.telegrams == []
    assert heard.reasons == ["bad-checksum"] * (1 + REPEATS)
    assert str(heard.error).startswith("an answer of Modbus unit 1 is damaged: its CRC is wrong; check unit id")


def test_what_was_read_before_the_line_broke_is_handed_over() -> None:
    heard = read(slave(fault=lambda number: "silence" if number else None))
    assert heard.values == {"32.7.0": "231.4", "31.7.0": "4.50"}
    assert isinstance(heard.error, TransientError)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_exception_is_told_in_words(framing: Framing) -> None:
    heard = read(slave(fault=lambda _: "exception"), framing=framing)
    assert len(heard.sent) == 1
    assert str(heard.error) == "Modbus unit 1, asked for holding register 0, says its own failure"


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (1, SetupError, r"does not know function 3 \(read holding registers\); check family and unit id"),
        (6, TransientError, "says that it is busy"),
        (10, TransientError, "says that the gateway has no path to it; check the gateway's serial port"),
        (11, TransientError, "says that the gateway gets no answer from it; check unit id and wiring, and baud rate"),
        (0x60, TransientError, "says exception code 96"),
        (0, TransientError, "says exception code 0"),
    ],
)
def test_each_exception_has_its_sentence(code: int, kind: type[Exception], message: str) -> None:
    refusal = encode_refusal(Question(1, 3, 0, 2), "rtu", code)
    heard = converse(ModbusMaster(TABLE), Script(*repeat(refusal, 9)))
    with pytest.raises(kind, match=message):
        raise heard.error or AssertionError


def test_busy_meter_is_asked_again_a_little_later() -> None:
    question = Question(1, 3, 0, 2)
    busy = encode_refusal(question, "rtu", 6)
    bus = Script(busy, busy, answered((2314, 450)), answered((188, 24910)))
    heard = converse(ModbusMaster(TABLE), bus)
    assert heard.values == GOOD
    assert heard.sent_at[1] - heard.sent_at[0] > 0.2


def test_register_that_the_meter_lacks_is_named_and_costs_no_other() -> None:
    less = ModbusMap(values=(VOLTS, ENERGY))
    heard = read(slave(table=less))
    assert heard.error is None
    assert heard.values == {"32.7.0": "231.4", "1.8.0": "12345678"}
    assert heard.reasons == ["refused"]
    assert heard.messages == ["Modbus unit 1 has no holding register 1 (1-0:31.7.0): illegal data address"]


def test_meter_that_has_none_of_the_registers_is_of_another_family() -> None:
    other = ModbusMap(values=(Quantity(address=900, type="uint16", obis="1-0:32.7.0", unit="V"),))
    heard = read(slave(table=other))
    assert isinstance(heard.error, SetupError)
    assert str(heard.error) == "Modbus unit 1 has not one register of its family; check unit id and family"
    assert len(heard.reasons) == 3


def test_values_that_are_not_there_are_left_out() -> None:
    values: dict[str, Decimal] = {"1-0:32.7.0": Decimal("231.4")}
    bus = ModbusBus([ModbusSlave(TABLE, lambda: values)])
    assert converse(ModbusMaster(TABLE), bus).values == {"32.7.0": "231.4"}
    values.clear()
    heard = converse(ModbusMaster(TABLE), bus)
    assert heard.telegrams == []
    assert str(heard.error) == "Modbus unit 1 says of each of its registers that it has no value"


def test_identity_that_is_silent_is_asked_for_once_and_costs_no_value() -> None:
    table = load_family("modbus-eastron-sdm120").modbus
    assert table is not None
    values = {"1-0:32.7.0": Decimal(230)}
    unit = ModbusSlave(table, lambda: values, fault=lambda number: "silence" if number > 2 else None)
    heard = converse(ModbusMaster(table), ModbusBus([unit]))
    assert heard.error is None
    assert heard.values == {"32.7.0": "230"}
    assert heard.telegrams[0].meter == ""
    assert len(heard.sent) == 4


def test_echo_of_the_converter_is_no_answer() -> None:
    bus = ModbusBus([slave()])
    feed = bus.feed
    bus.feed = lambda data: data + feed(data)  # type: ignore[method-assign]
    for chunk_bytes in (1, 3, 64):
        heard = converse(ModbusMaster(TABLE), bus, chunk_bytes=chunk_bytes)
        assert (heard.values, heard.reasons) == (GOOD, [])


def test_echo_that_begins_like_an_answer_is_no_answer() -> None:
    table = ModbusMap(values=(Quantity(address=0x0200, type="uint16", obis="1-0:32.7.0", unit="V"),))
    bus = ModbusBus([slave(table=table)])
    feed = bus.feed
    bus.feed = lambda data: data + feed(data)  # type: ignore[method-assign]
    for chunk_bytes in (1, 7, 64):
        heard = converse(ModbusMaster(table), bus, chunk_bytes=chunk_bytes)
        assert (heard.values, heard.reasons) == ({"32.7.0": "231"}, [])


@pytest.mark.parametrize("noise", [b"\x00", b"\xff\xff", b"\x01", b"\x01\x03", b"\x01\x03\x04", b"\x01\x83\x02"])
def test_noise_before_an_answer_does_not_hide_it(noise: bytes) -> None:
    heard = read(slave(), damage=lambda _, answer: noise + answer)
    assert (heard.values, heard.reasons) == (GOOD, [])


def test_answer_of_another_unit_is_told_from_silence() -> None:
    heard = converse(ModbusMaster(TABLE), Script(*repeat(answered((1, 2), unit_id=7), 9)))
    assert heard.reasons == ["foreign"] * (1 + REPEATS)
    assert str(heard.error).startswith("Modbus unit 7 answers, and not 1, which was asked; check unit id")


def test_answer_of_another_unit_does_not_hide_the_right_one() -> None:
    heard = read(slave(), damage=lambda _, answer: answered((1, 2), unit_id=7) + answer)
    assert (heard.values, heard.reasons) == (GOOD, [])


def test_answer_of_another_length_is_late() -> None:
    heard = converse(ModbusMaster(TABLE), Script(*repeat(answered((1, 2, 3)), 9)))
    assert heard.reasons == ["late"] * (1 + REPEATS)
    assert "answers function 3 with 6 bytes, as if to another question; asked were 2 registers" in str(heard.error)


def test_late_answer_to_the_first_try_is_not_taken_for_one_to_the_next_question() -> None:
    """Both questions are for two registers: on a serial line nothing but time tells their answers apart."""

    def slow(number: int, answer: bytes) -> bytes:
        return [b"", answer + answer, answer][number]

    heard = read(slave(), damage=slow)
    assert (heard.values, heard.reasons) == (GOOD, [])
    assert heard.sent_at[2] - heard.sent_at[1] > 1.0


def test_transactions_tell_late_and_foreign_answers_apart() -> None:
    def mixed(number: int, answer: bytes) -> bytes:
        transaction = int.from_bytes(answer[:2], "big")
        other = {0: 0, 1: -1, 2: 40, 3: 0}.get(number, 0)
        stray = answered((1, 2), transaction=transaction + other)
        return stray if number in {1, 2} else answer if number else b""

    heard = converse(ModbusMaster(TABLE, framing="tcp", transaction=500), ModbusBus([slave()], "tcp"), damage=mixed)
    assert heard.values == GOOD
    assert heard.reasons == ["late", "foreign"]
    assert heard.messages == [
        "Modbus unit 1 answers late, to transaction 500, which is over",
        "Modbus unit 1 answers to transaction 542, which was never begun",
    ]


def test_late_answer_before_the_right_one_is_passed_over_on_tcp() -> None:
    late = answered((1, 2), transaction=499)
    master = ModbusMaster(TABLE, framing="tcp", transaction=500)
    heard = converse(master, ModbusBus([slave()], "tcp"), damage=lambda _, answer: late + answer)
    assert (heard.values, heard.reasons) == (GOOD, [])


def test_visits_one_after_the_other_have_transactions_of_their_own() -> None:
    sent = [
        converse(ModbusMaster(TABLE, framing="tcp"), ModbusBus([slave()], "tcp"), begin_s=begin_s).sent[0][:2]
        for begin_s in (100.0, 100.01, 160.0)
    ]
    assert len(set(sent)) == 3


@pytest.mark.parametrize("framing", FRAMINGS)
def test_wrong_framing_is_named(framing: Framing) -> None:
    other: Framing = "tcp" if framing == "rtu" else "rtu"
    answer = encode_answer(Question(1, 3, 0, 2, 77), other, (2314, 450))
    heard = converse(ModbusMaster(TABLE, framing=framing), Script(answer))
    assert heard.reasons == ["bad-syntax"]
    assert heard.messages == [f"Modbus unit 1 answers in another framing; set `framing` to {other}"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (answered((2314, 450))[:-1], "truncated"),
        (b"\x55\xaa\x55", "bad-syntax"),
        (bytes(LIMIT_BYTES + 1), "too-long"),
        (answered((2314, 450))[:-1] + b"\x00", "bad-checksum"),
    ],
)
def test_what_is_no_answer_has_its_reason(data: bytes, reason: str) -> None:
    heard = converse(ModbusMaster(TABLE), Script(data))
    assert heard.reasons == [reason]
    assert isinstance(heard.error, TransientError)


def pieces(seed: int) -> Iterator[bytes]:
    random = Random(seed)
    while True:
        yield random.randbytes(random.choice((1, 1, 5, 300, 5000)))


HOSTILE: dict[str, Callable[[], Iterator[bytes]]] = {
    "drip of zeros": lambda: repeat(b"\0"),
    "drip of an answer without its end": lambda: cycle((b"\x01", b"\x03", b"\x04")),
    "answers whose CRC is wrong": lambda: repeat(answered((1, 2))[:-1] + b"\0"),
    "heads of answers": lambda: repeat(b"\x01\x03\x04" * 1000),
    "answers of another unit": lambda: repeat(answered((1, 2), unit_id=9)),
    "other lengths": lambda: (answered(tuple(range(count % 125 + 3))) for count in range(10**9)),
    "noise": lambda: pieces(1),
    "lengths of TCP": lambda: repeat(b"\0\1\0\0\xff\xff\1\3\4"),
}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("every_s", [0.001, 0.9])
def test_hostile_unit_costs_bounded_time_and_memory(name: str, framing: Framing, every_s: float) -> None:
    master = ModbusMaster(TABLE, framing=framing, transaction=1)
    heard = Endless(HOSTILE[name]()).visit(master, every_s=every_s)
    assert heard.telegrams == []
    assert isinstance(heard.error, TransientError)
    assert heard.elapsed_s < (1 + REPEATS) * 2.5
    assert len(heard.reasons) <= 1 + REPEATS
    assert sum(len(item.data) for item in heard.items if not hasattr(item, "registers")) <= (1 + REPEATS) * LIMIT_BYTES


def test_unit_that_refuses_all_and_takes_its_time_does_not_keep_the_line() -> None:
    many = [
        Quantity(address=3 * at, type="uint16", obis=f"1-0:{at % 100}.{at // 100}.0", unit="V") for at in range(256)
    ]
    table = ModbusMap(values=tuple(many), answer_s=10.0)

    master = ModbusMaster(table)
    now = 0.0
    steps = master.start(now)
    while not isinstance(steps[-1], Done):
        now += 9.9
        steps = master.feed(encode_refusal(Question(1, 3, 0, 1), "rtu", 2), now)
    assert str(steps[-1].error) == "the visit to Modbus unit 1 was given up: it takes too long"
    assert now < VISIT_LIMIT_S + 20


@pytest.mark.parametrize("length", [0, 1, 0xFFF0])
def test_models_without_an_end_are_bounded(length: int) -> None:
    table = load_family("modbus-sunspec").modbus
    assert table is not None

    class Models(Script):
        """Says at each place that a model of no meter begins there."""

        def feed(self, data: bytes) -> bytes:
            question = Question(1, 3, 0, data[11], int.from_bytes(data[:2], "big"))
            words = (0x5375, 0x6E53, 103, length) if data[11] == 4 else (103, length)
            return encode_answer(question, "tcp", words)

    heard = converse(ModbusMaster(table), Models())
    assert isinstance(heard.error, SetupError)
    assert "speaks SunSpec without a meter: it has the models 103" in str(heard.error)
    assert len(heard.sent) <= LIMIT_MODELS + 1


def test_model_that_is_cut_short_is_read_as_far_as_it_goes() -> None:
    family = load_family("modbus-sunspec").modbus
    assert family is not None
    values = {"1-0:32.7.0": Decimal("231.4"), "1-0:16.7.0": Decimal(-718), "1-0:1.8.0": Decimal(5)}
    unit = ModbusSlave(family, lambda: values, maker="M", model="T", serial="7")

    def cut(_number: int, answer: bytes) -> bytes:
        header = (201).to_bytes(2, "big") + (105).to_bytes(2, "big")
        return answer.replace(header, header[:2] + (22).to_bytes(2, "big"))

    heard = converse(ModbusMaster(family), ModbusBus([unit], "tcp"), damage=cut)
    assert heard.error is None
    assert heard.values == {"32.7.0": "231.4", "16.7.0": "-718", "96.1.0": "7"}


@pytest.mark.parametrize("number", [201, 202, 203, 204, 211, 212, 213, 214])
def test_each_model_of_a_sunspec_meter_is_read(number: int) -> None:
    family = load_family("modbus-sunspec").modbus
    assert family is not None
    values = {"1-0:32.7.0": Decimal("231.5"), "1-0:16.7.0": Decimal(-718), "1-0:2.8.0": Decimal(12345678)}
    unit = ModbusSlave(family, lambda: values, unit_id=240, maker="M", sunspec_model=number)
    heard = converse(ModbusMaster(family, unit_id=240), ModbusBus([unit], "tcp"))
    assert heard.values == {"32.7.0": "231.5", "16.7.0": "-718", "2.8.0": "12345678"}
    assert heard.telegrams[0].meter == "M"


def test_virtual_meter_knows_its_models() -> None:
    family = load_family("modbus-sunspec").modbus
    assert family is not None
    with pytest.raises(SetupError, match="no SunSpec model 101 with values"):
        ModbusSlave(family, dict, sunspec_model=101)


def test_virtual_meter_refuses_what_it_does_not_have() -> None:
    bus = ModbusBus([slave()])

    def code(function: int, address: int, count: int) -> int:
        body = bytes((1, function)) + address.to_bytes(2, "big") + count.to_bytes(2, "big")
        answer = bus.feed(body + FramerRTU.compute_CRC(body).to_bytes(2, "big"))
        return answer[2] if answer[1] == function | 0x80 else 0

    assert code(3, 0, 2) == 0
    assert code(6, 0, 2) == 1
    assert code(3, 3, 1) == 2
    assert code(3, 0, 126) == 3
    assert code(3, 0, 0) == 3


def test_unit_that_is_not_behind_a_gateway_is_told_by_it() -> None:
    heard = read(slave(2), framing="tcp")
    assert "the gateway gets no answer from it" in str(heard.error)
    assert len(heard.sent) == 1 + REPEATS


def test_wrong_unit_id_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(SetupError, match="'250' is no Modbus unit id; write a number from 1 to 247"):
        ModbusMaster(TABLE, unit_id=250)


@given(st.integers(0, 2**32), st.sampled_from(["flip", "cut", "insert", "swap"]), st.sampled_from([1, 2, 9, 64]))
@settings(max_examples=200, deadline=None, derandomize=True)  # one damaged answer in 65,536 passes the CRC
def test_damaged_answers_never_become_values(seed: int, kind: str, chunk_bytes: int) -> None:
    random = Random(seed)

    def damage(_number: int, answer: bytes) -> bytes:
        data = bytearray(answer)
        at = random.randrange(len(data)) if data else 0
        if kind == "flip" and data:
            data[at] ^= 1 << random.randrange(8)
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = random.randbytes(1)
        elif data:
            data[at:] = reversed(data[at:])
        return bytes(data)

    master = ModbusMaster(TABLE)
    heard = converse(master, ModbusBus([slave()]), damage=damage, chunk_bytes=chunk_bytes)
    for telegram in heard.telegrams:
        assert {r.obis.reduced: str(r.value) for r in telegram.registers}.items() <= GOOD.items()


def test_meters_are_read_over_a_pty() -> None:
    bus = ModbusBus([slave(1), slave(2, volts="229.5", fault=lambda number: "damage" if number == 0 else None)])
    with pty_meters(bus) as line:
        first = drive(ModbusMaster(TABLE), line)
        second = drive(ModbusMaster(TABLE, unit_id=2), line)
    assert (first.values, first.reasons, first.error) == (GOOD, [], None)
    assert (second.values, second.reasons) == ({**GOOD, "32.7.0": "229.5"}, ["bad-checksum"])


@pytest.mark.parametrize("framing", FRAMINGS)
def test_meters_are_read_over_tcp(framing: Framing) -> None:
    with tcp_meters(ModbusBus([slave(1), slave(2, volts="229.5")], framing)) as line:
        first = drive(ModbusMaster(TABLE, framing=framing), line)
        second = drive(ModbusMaster(TABLE, framing=framing, unit_id=2), line)
    assert (first.values, first.error) == (GOOD, None)
    assert (second.values, second.error) == ({**GOOD, "32.7.0": "229.5"}, None)


def test_pymodbus_is_imported_with_the_first_frame() -> None:
    code = (
        "import sys; from meterway.meter.family import load_family;"
        "from meterway.meter.modbus_master import ModbusMaster;"
        "master = ModbusMaster(load_family('modbus-eastron-sdm120').modbus); assert 'pymodbus' not in sys.modules;"
        "master.start(0.0); assert 'pymodbus' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
