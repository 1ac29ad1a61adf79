"""The DLMS master against a virtual meter: every transport, every security, every way to fail; a pty and a socket."""

from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterway.core.errors import SetupError, TransientError
from meterway.core.obis import Obis
from meterway.meter import axdr_write as write
from meterway.meter.dlms_access import Entries, Objects, Profile
from meterway.meter.dlms_apdu import Get, GetList
from meterway.meter.dlms_ask import DlmsAsk
from meterway.meter.dlms_hdlc import server_address
from meterway.meter.keys import NO_KEYS, Keys
from meterway.meter.master import Done
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.answer_dlms import AnsweringDlmsMeter
from meterway.meter.virtual.dlms_side import COUNTER, DlmsSide, Rows
from support.dlms_wire import (
    BERLIN,
    CLOCK,
    COLUMNS,
    EXPORT,
    IMPORT,
    KEYS,
    LAST_AVERAGE,
    LOAD,
    MAXIMUM,
    NOON,
    OBJECTS,
    OTHER_KEYS,
    POWER,
    READ,
    SIDE,
    WATTS,
    DlmsWire,
    SocketMeter,
    ask,
    master,
    rows,
    run_on_socket,
    written,
)
from support.iec_wire import Outcome, PtyMeter, run_on_pty

MORNING = Profile(datetime(2026, 7, 1, 6, tzinfo=BERLIN), datetime(2026, 7, 1, 8, tzinfo=BERLIN))
PASSWORD = replace(SIDE, client=1, security="password", password="12345678")
ASK_PASSWORD = DlmsAsk(client=1, security="password")
GMAC = replace(SIDE, client=1, security="gmac", keys=KEYS, is_ciphered=True)
ASK_GMAC = DlmsAsk(client=1, security="gmac", ciphered=True)


def telegram(outcome: Outcome) -> Telegram:
    assert outcome.done == Done(), outcome.done
    [found] = outcome.telegrams
    return found


def failure(outcome: Outcome, kind: type[Exception]) -> str:
    assert outcome.telegrams == []
    assert outcome.done is not None
    assert isinstance(outcome.done.error, kind), outcome.done
    return str(outcome.done.error)


@pytest.mark.parametrize("transport", ["hdlc", "wrapper"])
def test_what_the_meter_has_is_read(transport: str) -> None:
    found = telegram(ask(replace(SIDE, transport=transport), DlmsAsk(transport=transport)))  # type: ignore[arg-type]
    assert written(found) == READ
    assert (found.protocol, found.meter, found.time) == ("dlms-pull", "47110815", NOON)
    assert found.checked
    assert found.verified
    maximum = next(register for register in found.registers if register.obis == MAXIMUM)
    assert maximum.time == datetime(2026, 6, 28, 12, tzinfo=BERLIN)


@pytest.mark.parametrize(("most", "bauds"), [(19200, [300, 9600, 9600]), (2400, [300, 2400, 2400])])
@pytest.mark.parametrize("echo", [False, True])
def test_an_optical_head_is_signed_on_to_in_mode_e(most: int, bauds: list[int], echo: bool) -> None:
    side = replace(SIDE, identification="MWY5\\2VIRTUAL")
    outcome = ask(side, DlmsAsk(optical=True, highest_baud=most), wire={"echo": echo})
    assert written(telegram(outcome)) == READ
    assert outcome.bauds == bauds
    assert outcome.sent.startswith(b"/?!\r\n\x062" + (b"5" if most > 2400 else b"3") + b"2\r\n")


def test_a_meter_without_mode_e_is_told() -> None:
    outcome = ask(replace(SIDE, identification="MWYAVIRTUAL"), DlmsAsk(optical=True))
    assert "MWYAVIRTUAL offers no mode E" in failure(outcome, SetupError)


@pytest.mark.parametrize(
    ("logical", "physical", "size", "octets"),
    [(1, None, 1, "03"), (1, 17, 2, "0223"), (1, 17, 4, "00020023"), (16, 1234, 4, "002012a5"), (127, 0, 2, "fe01")],
)
def test_a_meter_is_found_at_an_address_of_every_length(
    logical: int, physical: int | None, size: int, octets: str
) -> None:
    address = server_address(logical, physical, size)
    assert address.hex() == octets
    asked = DlmsAsk(server=logical, physical=physical, address_bytes=size)  # type: ignore[arg-type]
    assert written(telegram(ask(replace(SIDE, address=address), asked))) == READ


def test_the_configured_address_is_the_meters_own() -> None:
    side = replace(SIDE, address=server_address(1, 42, 2))
    assert written(telegram(ask(side, DlmsAsk(address_bytes=2), address="42"))) == READ
    said = failure(ask(side, DlmsAsk(address_bytes=2), address="43"), TransientError)
    assert said == "the meter does not answer at 9600 baud; is its address 1/43, in 2 bytes? (2 attempts)"
    wrapper = replace(SIDE, transport="wrapper", port=7)
    assert written(telegram(ask(wrapper, DlmsAsk(transport="wrapper"), address="7"))) == READ
    said = failure(ask(wrapper, DlmsAsk(transport="wrapper")), TransientError)
    assert said == "the meter does not answer; is its port 1 of the wrapper right? (2 attempts)"


@pytest.mark.parametrize("address", ["0x11", "meter", "-1", "1/2"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(SetupError, match="is no address of a DLMS meter; it is a decimal number"):
        master(address=address)


def test_an_address_that_does_not_fit_is_refused() -> None:
    with pytest.raises(SetupError, match="does not fit into 2 bytes; each part is less than 128"):
        master(DlmsAsk(address_bytes=2), address="200")


def test_an_optical_head_that_nobody_answers_is_told() -> None:
    said = failure(ask(None, DlmsAsk(optical=True)), TransientError)
    assert said.startswith("the meter does not answer the sign-on; does the optical head sit right")


@pytest.mark.parametrize("transport", ["hdlc", "wrapper"])
@pytest.mark.parametrize("is_ciphered", [False, True])
@pytest.mark.parametrize("suite", [0, 1])
def test_keys_are_proven_and_answers_unsealed(transport: str, is_ciphered: bool, suite: int) -> None:
    side = replace(GMAC, transport=transport, is_ciphered=is_ciphered, suite=suite)  # type: ignore[arg-type]
    asked = DlmsAsk(client=1, security="gmac", ciphered=is_ciphered, transport=transport, suite=suite)  # type: ignore[arg-type]
    outcome = ask(side, asked, keys=KEYS)
    assert written(telegram(outcome)) == READ
    assert (bytes(IMPORT) in outcome.sent) != is_ciphered


def test_a_password_opens_a_ciphered_association() -> None:
    side = replace(PASSWORD, keys=KEYS, is_ciphered=True)
    asked = DlmsAsk(client=1, security="password", ciphered=True)
    assert written(telegram(ask(side, asked, password="12345678", keys=KEYS))) == READ


def test_the_counter_goes_on_where_the_meter_says_that_it_was() -> None:
    meter = AnsweringDlmsMeter(replace(GMAC, last_counter=1000))
    telegram(DlmsWire(meter).run(master(ASK_GMAC, keys=KEYS)))
    assert meter.session.last_counter == 1002
    again = DlmsWire(meter).run(master(ASK_GMAC, keys=KEYS))
    assert written(telegram(again)) == READ
    assert meter.session.last_counter == 1004


def test_a_counter_that_is_given_is_not_asked_for() -> None:
    outcome = ask(GMAC, ASK_GMAC, keys=KEYS, counter=77)
    assert written(telegram(outcome)) == READ
    assert bytes(COUNTER) not in outcome.sent


@pytest.mark.parametrize("transport", ["hdlc", "wrapper"])
def test_a_password_is_sent(transport: str) -> None:
    side, asked = replace(PASSWORD, transport=transport), DlmsAsk(client=1, security="password", transport=transport)  # type: ignore[arg-type]
    assert written(telegram(ask(side, asked, password="12345678"))) == READ


def test_a_wrong_password_is_told() -> None:
    said = failure(ask(PASSWORD, ASK_PASSWORD, password="wrong"), SetupError)
    assert said == (
        "the meter refuses the association as client 1: the authentication failed: wrong password or key; check "
        "client, password and keys"
    )
    assert "wrong" not in repr(master(ASK_PASSWORD, password="wrong"))


@pytest.mark.parametrize(
    ("keys", "is_ciphered", "said"),
    [
        (OTHER_KEYS, True, "it refuses, as it does with a wrong key"),
        (OTHER_KEYS, False, "the meter does not accept our proof: a key is wrong"),
        (Keys(KEYS.encryption, OTHER_KEYS.encryption), True, "it refuses, as it does with a wrong key"),
    ],
)
def test_a_wrong_key_is_told(keys: Keys, is_ciphered: bool, said: str) -> None:
    asked = DlmsAsk(client=1, security="gmac", ciphered=is_ciphered)
    assert said in failure(ask(replace(GMAC, is_ciphered=is_ciphered), asked, keys=keys), SetupError)


@pytest.mark.parametrize("keys", [NO_KEYS, Keys(KEYS.encryption)])
def test_keys_that_are_missing_are_asked_for(keys: Keys) -> None:
    with pytest.raises(SetupError, match="asks for an encryption key and an authentication key"):
        master(ASK_GMAC, keys=keys)


def test_a_password_that_is_missing_is_asked_for() -> None:
    with pytest.raises(SetupError, match="asks for a password; put it into the password file"):
        master(ASK_PASSWORD)


def test_a_client_that_the_meter_does_not_know_is_told() -> None:
    said = failure(ask(SIDE, DlmsAsk(client=5)), TransientError)
    assert said.startswith("the meter refuses the connection: it is busy, or does not know this client address")


def test_another_security_than_the_meters_is_told() -> None:
    said = failure(ask(PASSWORD, DlmsAsk(client=1)), SetupError)
    assert "it does not know this kind of authentication" in said
    said = failure(ask(replace(GMAC, security="gmac"), DlmsAsk(client=1, security="gmac"), keys=KEYS), SetupError)
    assert "the application context (plain or ciphered) is not the one it wants" in said


def test_a_counter_of_another_name_is_told() -> None:
    said = failure(ask(replace(GMAC, counter=Obis(0, 0, 43, 1, 5)), ASK_GMAC, keys=KEYS), SetupError)
    assert said.startswith("the meter does not tell the public client its invocation counter 0-0:43.1.0*255: ")


def test_objects_that_are_named_are_read_and_no_others() -> None:
    found = telegram(ask(task=Objects(((IMPORT, 3), (EXPORT, 3)))))
    assert written(found) == [("1-0:1.8.0", "1234567", "Wh"), ("1-0:2.8.0", "8900", "Wh")]
    assert found.meter == "MWY0000000000815"
    asked = DlmsAsk(objects=(("1-0:1.7.0", 3),))
    assert written(telegram(ask(asked=asked))) == [("1-0:1.7.0", "421.1", "W")]


def test_an_object_that_is_refused_does_not_hide_the_next() -> None:
    outcome = ask(task=Objects(((Obis(1, 0, 9, 9, 9), 3), (IMPORT, 3))))
    assert written(telegram(outcome)) == [("1-0:1.8.0", "1234567", "Wh")]
    [error] = outcome.errors
    assert error.reason == "refused"
    assert str(error) == "the meter refuses to read 1-0:9.9.9*255 (class 3, attribute 2): object undefined"


def test_a_client_without_rights_is_told() -> None:
    outcome = ask(replace(SIDE, client=1), task=Objects(((IMPORT, 3),)))
    said = failure(outcome, SetupError)
    assert said.startswith("none of 1 objects can be read as this client; the meter refuses to read 1-0:1.8.0")
    assert said.endswith("read or write denied")
    said = failure(ask(replace(SIDE, client=1)), SetupError)
    assert said.startswith("the meter does not tell which objects it has: read or write denied")


def test_a_last_average_is_read_where_the_code_says_so() -> None:
    demand = {2: write.uint16(300), 3: write.uint16(310), 4: WATTS, 6: write.octets(write.date_time(NOON))}
    found = telegram(ask(replace(SIDE, objects={**OBJECTS, (5, LAST_AVERAGE): demand})))
    assert ("1-0:1.5.0", "310", "W") in written(found)


def test_attributes_are_read_together_where_the_meter_can_do_that() -> None:
    meter = AnsweringDlmsMeter(SIDE)
    telegram(DlmsWire(meter).run(master()))
    assert sum(isinstance(request, GetList) for request in meter.session.requests) == 2
    single = AnsweringDlmsMeter(replace(SIDE, has_lists=False))
    assert written(telegram(DlmsWire(single).run(master()))) == READ
    assert all(isinstance(request, Get) for request in single.session.requests)


@pytest.mark.parametrize("apdu_bytes", [32, 50, 100, 300])
@pytest.mark.parametrize("frame_bytes", [128, 512, 2030])
def test_long_answers_come_in_blocks_and_segments(apdu_bytes: int, frame_bytes: int) -> None:
    outcome = ask(replace(SIDE, apdu_bytes=apdu_bytes, frame_bytes=frame_bytes), DlmsAsk(frame_bytes=frame_bytes))
    assert written(telegram(outcome)) == READ
    plain = ask(replace(SIDE, apdu_bytes=apdu_bytes), DlmsAsk(frame_bytes=128))
    assert written(telegram(plain)) == READ


def test_long_requests_leave_in_segments() -> None:
    many = tuple((IMPORT, 3) for _ in range(12))
    outcome = ask(asked=DlmsAsk(frame_bytes=128), task=Objects(many))
    assert len(telegram(outcome).registers) == 12


@pytest.mark.parametrize("transport", ["hdlc", "wrapper"])
def test_a_load_profile_is_read_by_range(transport: str) -> None:
    outcome = ask(replace(SIDE, transport=transport), DlmsAsk(transport=transport), MORNING)  # type: ignore[arg-type]
    assert outcome.done == Done()
    assert [row.time for row in outcome.telegrams] == [time for time, _ in rows(96)[24:33]]
    assert written(outcome.telegrams[0]) == [("1-0:1.8.0", "1024", "Wh"), ("1-0:2.8.0", "240", "Wh")]
    assert {row.meter for row in outcome.telegrams} == {"MWY0000000000815"}


def test_a_load_profile_is_read_by_entries() -> None:
    outcome = ask(task=Entries(2, 5))
    assert [row.registers[0].value for row in outcome.telegrams] == [Decimal(1000 + number) for number in range(1, 5)]
    assert len(ask(task=Entries(90, 0)).telegrams) == 7


def test_times_that_a_meter_leaves_out_follow_by_the_period() -> None:
    profile = Rows(columns=COLUMNS, rows=rows(96), leaves_out_times=True)
    outcome = ask(replace(SIDE, profiles={LOAD: profile}), task=MORNING)
    assert [row.time for row in outcome.telegrams] == [time for time, _ in rows(96)[24:33]]


def test_values_that_a_meter_leaves_out_are_those_before() -> None:
    early, late = rows(2)
    profile = Rows(columns=COLUMNS, rows=[early, (late[0], (b"\0", late[1][1]))])
    outcome = ask(replace(SIDE, profiles={LOAD: profile}), task=Entries(1, 0))
    assert [str(row.registers[0].value) for row in outcome.telegrams] == ["1000", "1000"]


def test_rows_outside_of_the_range_are_left_out() -> None:
    profile = Rows(columns=COLUMNS, rows=rows(96), ignores_selection=True)
    outcome = ask(replace(SIDE, profiles={LOAD: profile}), task=MORNING)
    assert len(outcome.telegrams) == 9


def test_the_hour_that_comes_twice_is_told_apart() -> None:
    night = datetime(2026, 10, 25, 1, 45, tzinfo=BERLIN)
    profile = Rows(columns=COLUMNS, rows=rows(10, night))
    asked = Profile(night, datetime(2026, 10, 25, 5, tzinfo=BERLIN))
    times = [row.time for row in ask(replace(SIDE, profiles={LOAD: profile}), task=asked).telegrams]
    assert len(set(times)) == 10
    assert times[0] is not None
    assert times[9] is not None
    assert (times[9] - times[0]).total_seconds() == 9 * 900


def test_a_year_of_days_is_read_over_a_slow_line() -> None:
    profile = Rows(columns=COLUMNS, rows=rows(96 * 40))
    outcome = ask(
        replace(SIDE, profiles={LOAD: profile}, frame_bytes=2030, apdu_bytes=4000),
        DlmsAsk(frame_bytes=2030),
        Entries(1, 0),
        session_s=2000.0,
    )
    assert outcome.done == Done()
    assert len(outcome.telegrams) == 96 * 40


def test_a_profile_that_is_not_there_is_told() -> None:
    said = failure(ask(task=Entries(1, 2, Obis(1, 0, 99, 2, 0))), SetupError)
    assert said == "the meter has no load profile 1-0:99.2.0*255 with 1 to 64 known columns: object undefined"


def test_a_profile_without_a_clock_has_no_range() -> None:
    profile = Rows(columns=((1, CLOCK, 2), (3, IMPORT, 2)), rows=[])
    said = failure(ask(replace(SIDE, profiles={LOAD: profile}), task=MORNING), SetupError)
    assert said.startswith("the load profile 1-0:99.1.0*255 has no clock")


def test_a_range_needs_a_time_zone() -> None:
    with pytest.raises(SetupError, match="has no time zone"):
        Profile(datetime(2026, 1, 1), datetime(2026, 1, 2, tzinfo=BERLIN))  # noqa: DTZ001 - the fault


FAULTS = st.fixed_dictionaries(
    {kind: st.frozensets(st.integers(0, 30), max_size=2) for kind in ("lost", "damaged", "unheard")}
)


@given(faults=FAULTS, is_ciphered=st.booleans(), apdu_bytes=st.sampled_from([60, 1024]))
@settings(max_examples=150, deadline=None)
def test_frames_that_are_lost_or_damaged_are_asked_for_again(
    faults: dict[str, frozenset[int]], is_ciphered: bool, apdu_bytes: int
) -> None:
    side = replace(GMAC, is_ciphered=is_ciphered, apdu_bytes=apdu_bytes, **faults)  # type: ignore[arg-type]
    outcome = ask(side, DlmsAsk(client=1, security="gmac", ciphered=is_ciphered), keys=KEYS)
    assert written(telegram(outcome)) == READ


def test_a_meter_that_falls_silent_is_given_up_in_time() -> None:
    outcome = ask(replace(SIDE, lost=frozenset(range(3, 1000))))
    said = failure(outcome, TransientError)
    assert said.endswith("(2 attempts)")
    assert outcome.lasted_s < 100


def test_a_socket_that_loses_an_answer_begins_anew() -> None:
    side = replace(SIDE, transport="wrapper", lost=frozenset({2}))
    outcome = ask(side, DlmsAsk(transport="wrapper"))
    assert written(telegram(outcome)) == READ
    assert outcome.sent.count(b"\x60\x1d") == 2


def test_a_meter_is_read_over_a_real_pty_with_a_change_of_baud_rate() -> None:
    meter = AnsweringDlmsMeter(replace(GMAC, identification="MWY5\\2VIRTUAL", apdu_bytes=100))
    with PtyMeter(meter) as far:  # type: ignore[arg-type]
        asked = DlmsAsk(optical=True, client=1, security="gmac", ciphered=True)
        outcome = run_on_pty(far, master(asked, keys=KEYS, counter=100, attempts=4))
        assert written(telegram(outcome)) == READ
        assert outcome.bauds[:3] == [300, 9600, 9600]
        assert set(far.spoken_bauds) == {300, 9600}


@pytest.mark.parametrize(("side", "asked"), [(SIDE, DlmsAsk(transport="wrapper")), (GMAC, ASK_GMAC)])
def test_a_meter_is_read_over_a_real_socket(side: DlmsSide, asked: DlmsAsk) -> None:
    meter = AnsweringDlmsMeter(replace(side, transport=asked.transport))
    with SocketMeter(meter) as far:
        outcome = run_on_socket(far.port, master(asked, keys=KEYS))
    assert written(telegram(outcome)) == READ
    assert POWER in {register.obis for register in outcome.telegrams[0].registers}
