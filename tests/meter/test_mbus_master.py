"""Reading an M-Bus segment: rounds, repeats, more telegrams, secondary addresses, search, baud rates, schedule."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterway.core.errors import BadDataError, SetupError, TransientError
from meterway.meter.codec import CodecError
from meterway.meter.mbus import Identity
from meterway.meter.mbus_address import SecondaryAddress
from meterway.meter.mbus_frames import ADDRESS_ANY, short_frame
from meterway.meter.mbus_master import TELEGRAMS_LIMIT, MbusMaster, MbusMeter
from meterway.meter.mbus_search import MbusSearch
from meterway.meter.mbus_session import Timing
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.encode_mbus import Header
from meterway.meter.virtual.mbus_slave import MbusSegment, MbusSlave
from support.mbus import BERLIN, HEAT, WATER, Heard, converse, volume_slave


def read(*meters: MbusMeter, slaves: list[MbusSlave], **options: object) -> tuple[Heard, MbusMaster]:
    master = MbusMaster(meters, BERLIN)
    return converse(master, MbusSegment(slaves), **options), master  # type: ignore[arg-type]


def test_round_reads_each_meter_of_the_segment() -> None:
    slaves = [volume_slave(HEAT, 1, 1111), volume_slave(WATER, 2, 2222)]
    heard, _ = read(MbusMeter(1), MbusMeter(2), slaves=slaves)
    assert heard.values == [["1.111"], ["2.222"]]
    assert [item.meter for item in heard.items if isinstance(item, Telegram)] == ["6MWY0720264711", "8MWY0720264712"]
    assert heard.error is None
    assert heard.sent == [short_frame(control, address) for address in (1, 2) for control in (0x40, 0x7B)]


def test_meter_that_is_alone_is_read_without_knowing_its_address() -> None:
    heard, _ = read(MbusMeter(ADDRESS_ANY), slaves=[volume_slave(HEAT, 77)])
    assert heard.values == [["1.000"]]


def test_further_telegrams_are_fetched_and_joined_to_one() -> None:
    slave = volume_slave(HEAT, 1, 500, telegrams=3)
    heard, _ = read(MbusMeter(1), slaves=[slave])
    assert heard.values == [["0.500", "0.501", "0.502"]]
    assert [frame[1] for frame in heard.sent] == [0x40, 0x7B, 0x5B, 0x7B]
    assert slave.answers == 3
    [telegram] = heard.items
    assert isinstance(telegram, Telegram)
    assert telegram.raw.count(b"\x68") >= 6


def test_damaged_answer_is_asked_for_again_with_the_same_count_bit() -> None:
    slave = volume_slave(HEAT, 1, 500, telegrams=2)

    def damage(number: int, answer: bytes) -> bytes:
        return answer[:9] + bytes((answer[9] ^ 1,)) + answer[10:] if number == 2 else answer

    heard, master = read(MbusMeter(1), slaves=[slave], damage=damage)
    assert heard.values == [["0.500", "0.501"]]
    assert [frame[1] for frame in heard.sent] == [0x40, 0x7B, 0x5B, 0x5B]
    assert master.failures == {}


def test_lost_acknowledgement_and_lost_answer_are_repeated() -> None:
    heard, _ = read(
        MbusMeter(1), slaves=[volume_slave(HEAT, 1)], damage=lambda number, answer: b"" if number in (0, 2) else answer
    )
    assert heard.values == [["1.000"]]
    assert [frame[1] for frame in heard.sent] == [0x40, 0x40, 0x7B, 0x7B]


def test_silent_meter_costs_its_time_outs_and_not_the_others() -> None:
    heard, master = read(MbusMeter(9), MbusMeter(1), slaves=[volume_slave(HEAT, 1)])
    assert heard.values == [["1.000"]]
    assert master.failures == {9: "it does not answer"}
    assert isinstance(heard.error, TransientError)
    assert str(heard.error) == "M-Bus meter 9: it does not answer; check address, baud rate and wiring"
    assert heard.elapsed_s < 5 * Timing(2400, 0.25).first_byte_s


def test_answer_of_another_meter_is_not_taken_for_it() -> None:
    master = MbusMaster([MbusMeter(1)], BERLIN)
    segment = MbusSegment([volume_slave(HEAT, 1)])
    late = MbusSegment([volume_slave(WATER, 2, 9999)]).feed(short_frame(0x7B, 2), 2400)
    heard = converse(master, segment, damage=lambda number, answer: (late if number == 1 else b"") + answer)
    assert heard.values == [["1.000"]]


def test_echo_of_the_level_converter_is_no_answer() -> None:
    frames: list[bytes] = []

    def echo(number: int, answer: bytes) -> bytes:
        return frames[number] + answer

    master = MbusMaster([MbusMeter(1), MbusMeter(SecondaryAddress("20264712"))], BERLIN)
    segment = MbusSegment([volume_slave(HEAT, 1, 1111), volume_slave(WATER, 2, 2222)])
    hear = segment.feed

    def feed(data: bytes, baud: int) -> bytes:
        frames.append(data)
        return hear(data, baud)

    segment.feed = feed  # type: ignore[method-assign]
    assert converse(master, segment, damage=echo).values == [["1.111"], ["2.222"]]


def test_endless_telegrams_are_bounded_and_said() -> None:
    slave = volume_slave(HEAT, 1, telegrams=TELEGRAMS_LIMIT + 5)
    heard, master = read(MbusMeter(1), slaves=[slave])
    assert [len(values) for values in heard.values] == [TELEGRAMS_LIMIT]
    assert master.failures == {1: f"it has more than {TELEGRAMS_LIMIT} telegrams; the rest was left"}


def test_refusal_of_the_meter_is_handed_on() -> None:
    busy = bytes.fromhex("680404680801700881 16".replace(" ", ""))
    heard, master = read(
        MbusMeter(1), slaves=[volume_slave(HEAT, 1)], damage=lambda number, answer: busy if number == 1 else answer
    )
    assert heard.reasons == ["refused"]
    assert "application busy" in master.failures[1]


def test_meter_is_read_by_its_secondary_address() -> None:
    slaves = [volume_slave(HEAT, 0, 1111), volume_slave(WATER, 0, 2222)]
    for text, expected in (("20264712", "2.222"), ("20264711F9360704", "1.111"), ("FFFFFF12", "2.222")):
        heard, _ = read(MbusMeter(SecondaryAddress.parse(text)), slaves=slaves)
        assert heard.values == [[expected]]


def test_secondary_address_that_nobody_has_is_a_failure() -> None:
    address = SecondaryAddress.parse("99999999")
    heard, master = read(MbusMeter(address), slaves=[volume_slave(HEAT, 1)])
    assert heard.values == []
    assert master.failures == {address: "no meter with this secondary address answers"}


def test_secondary_addresses_are_written_as_tools_print_them() -> None:
    address = SecondaryAddress.parse("20264711F9360704")
    assert str(address) == "20264711F9360704"
    assert (address.maker, address.version, address.device_type) == (b"\xf9\x36", 7, 4)
    assert str(SecondaryAddress.parse("2026471f")) == "2026471FFFFFFFFF"
    assert address.matches(Identity("20264711", "MWY", 7, 4, b"\xf9\x36"))
    assert not address.matches(Identity("20264711", "MWY", 7, 7, b"\xf9\x36"))
    with pytest.raises(BadDataError, match=r"'2026' is not an M-Bus secondary address of 8 or 16 hex digits"):
        SecondaryAddress.parse("2026")


def test_baud_rate_is_changed_for_the_reading_and_set_back() -> None:
    slave = volume_slave(HEAT, 1, telegrams=2)
    heard, master = read(MbusMeter(1, read_baud=9600), slaves=[slave])
    assert heard.values == [["1.000", "1.001"]]
    assert heard.bauds == [9600, 2400]
    assert slave.baud == 2400
    assert master.failures == {}


def test_meter_that_is_not_heard_at_the_new_baud_rate_is_read_at_the_old_one() -> None:
    slave = volume_slave(HEAT, 1)
    deaf = slave.hear
    slave.hear = lambda frame: b"" if slave.baud == 38400 and frame.control == 0x7B else deaf(frame)  # type: ignore[method-assign]
    heard, master = read(MbusMeter(1, read_baud=38400), slaves=[slave])
    assert heard.values == [["1.000"]]
    assert heard.bauds == [38400, 2400]
    assert master.failures == {}


def test_line_is_left_at_the_baud_rate_it_began_with() -> None:
    slaves = [volume_slave(HEAT, 1, baud=300), volume_slave(WATER, 2)]
    heard, _ = read(MbusMeter(1, baud=300), MbusMeter(2), MbusMeter(1, baud=300), slaves=slaves)
    assert len(heard.values) == 3
    assert heard.bauds == [300, 2400, 300, 2400]


def test_application_is_reset_before_the_reading() -> None:
    heard, _ = read(MbusMeter(1, application_reset=0x10), slaves=[volume_slave(HEAT, 1)])
    assert heard.values == [["1.000"]]
    assert heard.sent[1] == bytes.fromhex("68 04 04 68 53 01 50 10 B4 16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": 251}, "M-Bus has no meter address 251; meters have 0 to 250, 254 means any"),
        ({"address": 1, "baud": 1234}, "1234 is no baud rate of M-Bus"),
    ],
)
def test_wrong_meter_is_a_setup_error(options: dict[str, int], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        MbusMeter(**options)


def headers(*numbers: str, device_type: int = 7) -> list[Header]:
    return [Header(number, "MWY", 1, device_type) for number in numbers]


def test_search_finds_every_meter_though_they_speak_at_once() -> None:
    wanted = headers("10000001", "10000002", "10300002", "97531864", "97531865", "00000000")
    slaves = [volume_slave(header, 0, 100 + index) for index, header in enumerate(wanted)]
    search = MbusSearch(BERLIN)
    heard = converse(search, MbusSegment(slaves))
    assert sorted(found.identity.number for found in search.found if found.identity) == sorted(
        header.number for header in wanted
    )
    assert heard.error is None
    assert len(heard.values) == len(wanted)
    assert search.asked < 500


def test_meters_with_the_same_number_are_told_apart_by_device_type() -> None:
    slaves = [volume_slave(headers("12345678", device_type=kind)[0], 0, kind) for kind in (4, 7)]
    search = MbusSearch(BERLIN, pattern=SecondaryAddress("1234567F"))
    converse(search, MbusSegment(slaves))
    assert sorted(found.identity.device_type for found in search.found if found.identity) == [4, 7]


def test_twins_are_a_collision_that_is_said() -> None:
    slaves = [volume_slave(HEAT, 0, litres) for litres in (1234, 5678)]
    search = MbusSearch(BERLIN, pattern=SecondaryAddress("2026471F"))
    heard = converse(search, MbusSegment(slaves))
    assert heard.reasons == ["collision"]
    assert "cannot be told apart" in str(heard.items[0])


def test_search_tries_primary_addresses_and_baud_rates() -> None:
    slaves = [volume_slave(HEAT, 3, baud=300), volume_slave(WATER, 5, baud=9600)]
    search = MbusSearch(BERLIN, bauds=(2400, 300, 9600), primary=range(7), secondary=False)
    heard = converse(search, MbusSegment(slaves))
    assert [(found.baud, found.primary) for found in search.found] == [(300, 3), (9600, 5)]
    assert heard.bauds == [300, 9600, 2400]


def test_search_without_any_answer_says_what_was_tried() -> None:
    heard = converse(MbusSearch(BERLIN, bauds=(2400, 300)), MbusSegment([]))
    assert str(heard.error) == "no M-Bus meter answered at 2400, 300 baud; check power and wiring of the bus"


def test_search_on_a_line_that_is_all_noise_ends() -> None:
    search = MbusSearch(BERLIN, pattern=SecondaryAddress("1234FFFF"))
    noise = Random(7)
    heard = converse(search, MbusSegment([]), damage=lambda _number, _answer: noise.randbytes(3).replace(b"\xe5", b""))
    assert "given up after 20000 questions" in str(heard.error)
    assert heard.done


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), rate=st.sampled_from([0.1, 0.5, 1.0]))
def test_no_damage_on_the_line_makes_a_session_hang_or_read_wrong(seed: int, rate: float) -> None:
    random = Random(seed)

    def damage(_number: int, answer: bytes) -> bytes:
        if random.random() > rate:
            return answer
        kind = random.randrange(4)
        if kind == 0 and answer:
            spoilt = bytearray(answer)
            spoilt[random.randrange(len(spoilt))] ^= 1 << random.randrange(8)
            return bytes(spoilt)
        if kind == 1:
            return answer[: random.randrange(len(answer) + 1)]
        return random.randbytes(random.randrange(400)) + answer if kind == 2 else b""

    slaves = [volume_slave(HEAT, 1, 1111, telegrams=2), volume_slave(WATER, 2, 2222)]
    heard, _ = read(
        MbusMeter(1, read_baud=9600), MbusMeter(SecondaryAddress("20264712")), slaves=slaves, damage=damage, limit_s=300
    )
    assert heard.done
    assert all(value in ("1.111", "1.112", "2.222") for values in heard.values for value in values)


def test_slow_drip_is_given_up_in_bounded_time() -> None:
    master = MbusMaster([MbusMeter(1)], BERLIN)
    steps, now, fed = master.start(0.0), 0.0, 0
    while "Done" not in str(steps):
        now += 0.2
        steps = master.feed(b"\x68", now)
        fed += 1
        assert fed < 200
    assert now < 20


def test_bytes_after_the_end_are_dropped() -> None:
    master = MbusMaster([], BERLIN)
    assert "Done" in str(master.start(0.0))
    assert master.feed(b"\xe5", 1.0) == []
    assert master.on_timeout(2.0) == []


def test_items_of_a_session_are_telegrams_and_errors_only() -> None:
    heard, _ = read(MbusMeter(1), slaves=[volume_slave(HEAT, 1)])
    assert all(isinstance(item, Telegram | CodecError) for item in heard.items)
