"""The IEC 62056-21 master against a virtual meter: every mode, every way to fail, and a real pty."""

import dataclasses
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterway.core.errors import SetupError, TransientError
from meterway.meter.codec import CodecError
from meterway.meter.family import Line
from meterway.meter.iec62056_21_access import Access, Profile, Readout, Registers
from meterway.meter.iec62056_21_frames import command, find_message, request
from meterway.meter.iec62056_21_master import BLOCK_LIMIT_BYTES, REPEATS, Iec62056Master
from meterway.meter.master import Deadline, Done, Send, SetLine, Steps
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.answer_iec62056_21 import AnsweringMeter, MeterSide
from meterway.meter.virtual.encode_iec62056_21 import encode_profile, encode_push, with_even_parity
from support.iec_wire import Outcome, PtyMeter, SimulatedWire, run_on_pty

BERLIN = ZoneInfo("Europe/Berlin")
LINES = ("F.F(00000000)", "0.0.0(00471100)", "1.8.0(001234.567*kWh)", "2.8.0(000089.010*kWh)", "C.7.0(0003)")
SIDE = MeterSide(identification="MWY5VIRTUAL", lines=LINES)
EIGHT_BITS = Access(line=Line(baud=300))
ROWS = [[Decimal("0.125"), Decimal("0.000")], [Decimal("1.500"), Decimal("0.250")], [Decimal("2.000"), Decimal("0.5")]]
PROFILE = encode_profile(
    datetime(2026, 7, 1, 0, 15, tzinfo=BERLIN), ROWS, [("1.5", "kW"), ("2.5", "kW")], period_min=15
)
RANGE = "P.01(12607010000;12607020000)"
JULY = Profile(datetime(2026, 7, 1, tzinfo=BERLIN), datetime(2026, 7, 2, tzinfo=BERLIN))


def run(side: MeterSide | None = SIDE, access: Access = Access(), task: object = Readout(), **wire: object) -> Outcome:  # noqa: B008
    assert isinstance(task, Readout | Registers | Profile)
    master = Iec62056Master(BERLIN, access, task)
    return SimulatedWire(AnsweringMeter(side) if side else None, **wire).run(master)  # type: ignore[arg-type]


def energy(outcome: Outcome) -> Decimal | str:
    assert outcome.done == Done(), outcome.done
    [telegram] = outcome.telegrams
    return next(register.value for register in telegram.registers if register.obis.reduced == "1.8.0")


@pytest.mark.parametrize(
    ("character", "bauds"),
    [
        ("5", [300, 9600]),
        ("6", [300, 19200]),
        ("3", [300, 2400]),
        ("0", [300]),
        ("A", [300, 600]),
        ("C", [300, 2400]),
        ("F", [300, 19200]),
        ("@", [300]),
        ("Z", [300]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("echo", [False, True], ids=["", "echo"])
@pytest.mark.parametrize("parity", [False, True], ids=["7E1", "8N1"])
def test_every_mode_is_read(character: str, bauds: list[int], echo: bool, parity: bool) -> None:
    side = dataclasses.replace(SIDE, identification=f"MWY{character}VIRTUAL")
    outcome = run(side, EIGHT_BITS if parity else Access(), echo=echo, parity=parity)
    assert energy(outcome) == Decimal("1234.567")
    assert outcome.bauds == bauds
    assert outcome.errors == []
    [telegram] = outcome.telegrams
    assert telegram.checked
    assert telegram.meter == f"MWY{character}VIRTUAL"
    assert len(telegram.registers) == len(LINES)


def test_mode_a_and_b_are_never_acknowledged() -> None:
    for character in "@C":
        outcome = run(dataclasses.replace(SIDE, identification=f"MWY{character}VIRTUAL"))
        assert outcome.sent == b"/?!\r\n"


def test_parity_is_made_where_the_line_has_eight_bits() -> None:
    outcome = run(access=EIGHT_BITS, parity=True)
    assert outcome.sent == with_even_parity(b"/?!\r\n\x06050\r\n")


def test_a_head_that_is_slow_keeps_its_baud_rate() -> None:
    assert run(access=Access(highest_baud=4800)).bauds == [300, 4800]


def test_the_last_attempt_does_without_a_change_of_baud_rate() -> None:
    """Here no answer ever arrives at 9600 baud."""

    class DeafAtHighSpeed(AnsweringMeter):
        def _set_baud(self, baud: int) -> list[SetLine]:  # type: ignore[override]
            super()._set_baud(baud)
            return []

    outcome = SimulatedWire(DeafAtHighSpeed(SIDE)).run(Iec62056Master(BERLIN, Access(), Readout()))
    assert energy(outcome) == Decimal("1234.567")
    assert outcome.bauds == [300, 9600, 300, 9600, 300]


def test_a_meter_that_sleeps_is_woken() -> None:
    side = dataclasses.replace(SIDE, identification="MWYCHEAT", sleeps=True)
    asleep = run(side)
    assert asleep.telegrams == []
    outcome = run(side, Access(wake_up_bytes=40, wake_up_pause_s=0.0), echo=True)
    assert outcome.sent.startswith(bytes(40) + b"/?!")
    assert energy(outcome) == Decimal("1234.567")


def test_a_device_address_finds_its_meter_only() -> None:
    side = dataclasses.replace(SIDE, address="47110815")
    assert energy(run(side, Access(address="47110815"))) == Decimal("1234.567")
    assert energy(run(side)) == Decimal("1234.567")
    outcome = run(side, Access(address="4711"))
    assert isinstance(outcome.done, Done)
    assert isinstance(outcome.done.error, TransientError)
    assert outcome.reason.startswith("the meter does not answer the sign-on; does the optical head sit right")
    assert outcome.reason.endswith("(3 attempts)")
    assert outcome.lasted_s < 20


def test_a_request_that_was_not_heard_is_said_again() -> None:
    outcome = run(dataclasses.replace(SIDE, silent_requests=2))
    assert energy(outcome) == Decimal("1234.567")
    assert outcome.sent.count(b"/?!") == 3


@pytest.mark.parametrize("times", [1, 2])
def test_a_damaged_block_is_asked_for_again(times: int) -> None:
    outcome = run(dataclasses.replace(SIDE, damaged_blocks=times))
    assert energy(outcome) == Decimal("1234.567")
    assert [error.reason for error in outcome.errors] == ["bad-checksum"] * times
    assert outcome.sent.count(b"\x15") == times
    assert outcome.sent.count(b"/?!") == 1


def test_what_stays_damaged_is_asked_for_from_the_start() -> None:
    outcome = run(dataclasses.replace(SIDE, damaged_blocks=REPEATS + 1))
    assert energy(outcome) == Decimal("1234.567")
    assert outcome.sent.count(b"/?!") == 2


def test_mode_b_is_begun_again_after_damage() -> None:
    outcome = run(dataclasses.replace(SIDE, identification="MWYCVIRTUAL", damaged_blocks=1))
    assert energy(outcome) == Decimal("1234.567")
    assert b"\x15" not in outcome.sent
    assert outcome.sent.count(b"/?!") == 2


def test_a_meter_that_only_sends_damage_is_given_up() -> None:
    outcome = run(dataclasses.replace(SIDE, damaged_blocks=99))
    assert outcome.telegrams == []
    assert "meter MWY5VIRTUAL: a readout of" in outcome.reason
    assert "says BCC" in outcome.reason


def test_an_echo_alone_is_no_answer() -> None:
    outcome = run(None, echo=True)
    assert outcome.reason.startswith("5 bytes came and no identification")
    assert "or only the head's own echo?" in outcome.reason


def test_silence_after_the_identification_says_what_was_waited_for() -> None:
    outcome = run(dataclasses.replace(SIDE, lines=()), damage=lambda data: data if data[:1] == b"/" else b"")
    assert outcome.reason == "meter MWY5VIRTUAL: the readout did not come at 300 baud (3 attempts)"


def test_a_readout_that_breaks_off_is_no_reading() -> None:
    outcome = run(damage=lambda data: data if data[:1] == b"/" else data[:60])
    assert outcome.telegrams == []
    assert "broke off after" in outcome.reason
    assert {error.reason for error in outcome.errors} == {"truncated"}


def test_a_slow_drip_ends_with_the_session() -> None:
    master = Iec62056Master(BERLIN, Access(session_s=60), Readout())
    master.start(0.0)
    steps: Steps = master.feed(b"/MWY@DRIP\r\n\x02", 1.0)
    now = 1.0
    while not any(isinstance(step, Done) for step in steps):
        assert any(isinstance(step, Deadline) for step in steps)
        now += 1.0
        steps = master.feed(b"1", now)
    assert now == 60.0
    assert steps == [Done(steps[-1].error)] if isinstance(steps[-1], Done) else False
    assert "was not over after 60 s" in str(steps[-1])
    assert master.feed(b"1", now) == []
    assert master.on_timeout(now) == []


def test_endless_noise_is_bounded_in_every_state() -> None:
    for beginning in (b"", b"/MWY@NOISE\r\n\x021.8.0(", b"/MWY5NOISE\r\n"):
        master = Iec62056Master(
            BERLIN, Access(attempts=1), Readout() if beginning[4:5] != b"5" else Registers(("1.8.0",))
        )
        steps = master.start(0.0) + (master.feed(beginning, 0.0) if beginning else [])
        for _ in range(BLOCK_LIMIT_BYTES // 512 + 2):
            steps += master.feed(b"0" * 512, 1.0)
            assert len(master._buffer) <= BLOCK_LIMIT_BYTES + 512
            assert master._decoder.buffered_bytes <= 64 * 1024
        if beginning:
            assert isinstance(steps[-1], Done)


def test_a_pushing_meter_is_listened_to() -> None:
    push = encode_push("MWY5PUSH", LINES)
    master = Iec62056Master(BERLIN, Access(line=Line(baud=9600, data_bits=7, parity="E"), mode="D"), Readout())
    steps = master.start(0.0) + master.feed(push[50:] + push, 0.0)
    assert not any(isinstance(step, Send) for step in steps)
    [telegram] = [step for step in steps if isinstance(step, Telegram)]
    assert not telegram.checked
    assert steps[-1] == Done()


def test_registers_are_read_in_programming_mode_and_the_session_is_ended() -> None:
    side = dataclasses.replace(SIDE, answers={"1.8.0()": ["1.8.0(001234.567*kWh)"], "32.7.0()": ["(231.4*V)"]})
    for echo in (False, True):
        outcome = run(side, task=Registers(("1.8.0", "32.7.0")), echo=echo)
        assert energy(outcome) == Decimal("1234.567")
        [telegram] = outcome.telegrams
        assert [(str(r.obis), str(r.value), r.unit) for r in telegram.registers] == [
            ("1-0:1.8.0*255", "1234.567", "kWh"),
            ("1-0:32.7.0*255", "231.4", "V"),
        ]
        assert outcome.sent.endswith(b"\x01B0\x03q")
        assert b"P1" not in outcome.sent


def test_a_register_that_the_meter_refuses_does_not_hide_the_others() -> None:
    side = dataclasses.replace(SIDE, answers={"1.8.0()": ["1.8.0(001234.567*kWh)"]})
    outcome = run(side, task=Registers(("9.9.9", "1.8.0"), command="R2"))
    assert energy(outcome) == Decimal("1234.567")
    assert [str(error) for error in outcome.errors] == ["meter MWY5VIRTUAL refuses to read 9.9.9: (ER01)"]


def test_the_password_is_sent_only_if_there_is_one_and_never_shown() -> None:
    side = dataclasses.replace(SIDE, password="00002222", answers={"1.8.0()": ["1.8.0(001234.567*kWh)"]})
    access = Access(password="00002222")
    assert energy(run(side, access, Registers(("1.8.0",)), echo=True)) == Decimal("1234.567")
    assert "2222" not in repr(access)
    assert "2222" not in repr(Send(command("P1", "(00002222)")))
    outcome = run(side, task=Registers(("1.8.0",)))
    assert [error.reason for error in outcome.errors] == ["bad-syntax"]


def test_a_wrong_password_stops_at_once() -> None:
    outcome = run(dataclasses.replace(SIDE, password="1"), Access(password="2"), Registers(("1.8.0",)))
    assert outcome.done is not None
    assert isinstance(outcome.done.error, SetupError)
    assert outcome.reason == "meter MWY5VIRTUAL refused the password"
    assert outcome.sent.count(b"P1") == 1


@pytest.mark.parametrize("blocks", [[PROFILE], [PROFILE[:90], PROFILE[90:130], PROFILE[130:]]], ids=["one", "blocks"])
@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_a_load_profile_becomes_a_telegram_a_row(blocks: list[str], damaged: int) -> None:
    side = dataclasses.replace(SIDE, answers={RANGE: blocks}, damaged_blocks=damaged)
    outcome = run(side, task=JULY)
    assert outcome.done == Done()
    first = datetime(2026, 6, 30, 22, 15, tzinfo=UTC)
    assert [telegram.time for telegram in outcome.telegrams] == [first + timedelta(minutes=15 * i) for i in range(3)]
    values = [[str(register.value) for register in telegram.registers[1:]] for telegram in outcome.telegrams]
    assert values == [[str(value) for value in row] for row in ROWS]
    assert {str(register.unit) for telegram in outcome.telegrams for register in telegram.registers[1:]} == {"kW"}
    assert outcome.telegrams[0].checked
    assert outcome.telegrams[0].meter == "MWY5VIRTUAL"


def test_programming_mode_needs_mode_c() -> None:
    outcome = run(dataclasses.replace(SIDE, identification="MWYCVIRTUAL"), task=JULY)
    assert outcome.reason == "meter MWYCVIRTUAL speaks mode B, which has no programming mode; only a readout can be had"
    with pytest.raises(SetupError, match="mode A has no programming mode"):
        Iec62056Master(BERLIN, Access(mode="A"), JULY)


@pytest.mark.parametrize(
    ("access", "task", "message"),
    [
        (Access(address="no/slash"), Readout(), "'no/slash' is no device address"),
        (Access(password="a\x03b"), Readout(), "the data of a command P1 may only have printable"),
        (Access(), Registers(("1.8.0\r\n",)), "the data of a command R1"),
        (Access(), Registers(("1.8.0",), command="W1"), "'W1' is no read command"),
        (Access(), Profile(datetime(2026, 1, 1), datetime(2026, 1, 2)), "has no time zone"),  # noqa: DTZ001
    ],
)
def test_what_cannot_be_sent_is_refused_at_once(
    access: Access, task: Readout | Registers | Profile, message: str
) -> None:
    with pytest.raises(SetupError, match=message):
        Iec62056Master(BERLIN, access, task)


def test_a_meter_that_does_not_enter_programming_mode_is_given_up() -> None:
    outcome = run(damage=lambda data: data if data[:1] == b"/" else b"\x021.8.0(1*kWh)\x03\x00", task=JULY)
    assert "was damaged 3 times" in outcome.reason
    outcome = run(damage=lambda data: data if data[:1] == b"/" else b"", task=JULY)
    assert "the password request P0 did not come" in outcome.reason


def test_messages_are_found_with_their_block_check() -> None:
    message = find_message(b"noise" + command("R1", "1.8.0()") + b"rest")
    assert message is not None
    assert (message.command, message.data, message.is_right) == ("R1", "1.8.0()", True)
    broken = find_message(command("P0", "(1)")[:-1] + b"!")
    assert broken is not None
    assert not broken.is_right
    assert command("B0") == b"\x01B0\x03\x71"
    assert request("12 AB") == b"/?12 AB!\r\n"


@pytest.mark.parametrize("seed", range(60))
def test_seeded_damage_never_gives_a_wrong_reading_and_always_ends(seed: int) -> None:
    random = Random(seed)

    def damage(data: bytes) -> bytes:
        if random.random() < 0.5:
            return data
        spoilt = bytearray(data)
        kind = random.randrange(4)
        place = random.randrange(len(data))
        if kind == 0:
            spoilt[place] ^= 1 << random.randrange(8)
        elif kind == 1:
            del spoilt[place : place + 1]
        elif kind == 2:
            del spoilt[place:]
        else:
            spoilt[:0] = random.randbytes(5)
        return bytes(spoilt)

    character = random.choice("5C@")
    answers = {"1.8.0()": ["1.8.0(001234.567*kWh)"], RANGE: [PROFILE[:100], PROFILE[100:]]}
    side = dataclasses.replace(SIDE, identification=f"MWY{character}VIRTUAL", answers=answers)
    tasks = (Readout(), Registers(("1.8.0",)), JULY) if character == "5" else (Readout(),)
    task = random.choice(tasks)
    outcome = run(side, task=task, damage=damage, echo=bool(seed % 2), chunk_bytes=random.choice((1, 5, 64)))
    assert outcome.lasted_s <= 310
    for telegram in outcome.telegrams:
        if telegram.checked and isinstance(task, Readout | Registers):
            assert {"1-0:1.8.0*255": Decimal("1234.567")}.items() <= {
                str(register.obis): register.value for register in telegram.registers
            }.items()
    assert outcome.done is not None
    assert outcome.telegrams or outcome.errors or outcome.done.error


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [
                    b"/MWY5X\r\n",
                    b"/MWYCX\r\n",
                    b"\x06",
                    b"\x15",
                    command("P0", "(1)"),
                    command("B0"),
                    b"\x021.8.0(1)\x03",
                ]
            ),
            st.none(),
        ),
        max_size=30,
    ),
    st.sampled_from([Readout(), Registers(("1.8.0", "2.8.0")), JULY]),
)
def test_any_bytes_and_silences_raise_nothing_and_leave_a_deadline(
    pieces: list[bytes | None], task: Readout | Registers | Profile
) -> None:
    master = Iec62056Master(BERLIN, Access(password="1"), task)
    now = 0.0
    steps = master.start(now)
    is_over = False
    for piece in pieces:
        assert is_over or any(isinstance(step, Deadline | Done) for step in steps)
        is_over = is_over or any(isinstance(step, Done) for step in steps)
        now += 1.0
        steps = master.on_timeout(now) if piece is None else master.feed(piece, now)
        assert not (is_over and steps)
        assert all(not isinstance(step, CodecError) or step.reason for step in steps)


@pytest.mark.parametrize("character", ["5", "C", "@"])
def test_a_readout_over_a_real_line_with_its_change_of_baud_rate(character: str) -> None:
    side = dataclasses.replace(SIDE, identification=f"MW{'y' if character == '5' else 'Y'}{character}PTY")
    with PtyMeter(AnsweringMeter(side)) as meter:
        outcome = run_on_pty(meter, Iec62056Master(BERLIN, Access(), Readout()))
    assert energy(outcome) == Decimal("1234.567")
    last = {"5": 9600, "C": 2400, "@": 300}[character]
    assert meter.spoken_bauds == [300, last]
    assert outcome.bauds[-1] == last


def test_a_load_profile_over_a_real_line() -> None:
    answers = {RANGE: [PROFILE[:100], PROFILE[100:]]}
    side = dataclasses.replace(SIDE, identification="MWy6PTY", answers=answers, password="1", damaged_blocks=1)
    with PtyMeter(AnsweringMeter(side)) as meter:
        outcome = run_on_pty(meter, Iec62056Master(BERLIN, Access(password="1"), JULY))
    assert outcome.done == Done()
    assert len(outcome.telegrams) == 3
    assert set(meter.spoken_bauds[1:]) == {19200}


def test_a_real_line_with_the_wrong_speed_gives_no_reading() -> None:
    side = dataclasses.replace(SIDE, identification="MWy5PTY")
    access = Access(line=Line(baud=1200, data_bits=7, parity="E"), attempts=1)
    with PtyMeter(AnsweringMeter(side)) as meter:
        outcome = run_on_pty(meter, Iec62056Master(BERLIN, access, Readout()))
    assert outcome.telegrams == []
    assert "the meter does not answer the sign-on" in outcome.reason
