"""JSON sources: what is a document, what is noise, what a hostile one costs."""

import tracemalloc
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterway.meter.codec import CodecError
from meterway.meter.json_documents import GATHERED_BYTES, LIMIT_BYTES, LIMIT_COMMAS, LIMIT_DEPTH, JsonDecoder
from meterway.meter.json_map import ClockPlace, JsonMap, JsonValue
from meterway.meter.telegram import Telegram
from meterway.testing import check_codec

BERLIN = ZoneInfo("Europe/Berlin")
ENERGY = JsonValue(obis="1-0:1.8.0", unit="kWh", paths=("e",))
PLAIN = JsonMap(values=(ENERGY,), any_of=("e",))
TOPICS = JsonMap(
    values=(
        JsonValue(obis="1-0:1.8.0", unit="kWh", topics=("energy",)),
        JsonValue(obis="1-0:1.7.0", unit="W", topics=("power",)),
    ),
    gather_s=2,
)
GOOD = b'{"e":1.50}'

Items = list[Telegram | CodecError]


def decoder(profile: JsonMap = PLAIN, address: str = "") -> JsonDecoder:
    return JsonDecoder(profile, BERLIN, address)


def decode(data: bytes, profile: JsonMap = PLAIN) -> Items:
    made = decoder(profile)
    return [*made.feed(data, 0.0), *made.idle(0.0)]


def values(items: Items) -> list[str]:
    return [str(register.value) for item in items if isinstance(item, Telegram) for register in item.registers]


def reasons(items: Items) -> list[str]:
    return [item.reason for item in items if isinstance(item, CodecError)]


def message(topic: str, payload: str) -> bytes:
    return f'{{"topic":"{topic}","payload":{payload}}}\n'.encode()


def test_each_line_is_a_document_on_a_stream() -> None:
    made = decoder()
    items = made.feed(GOOD + b"\r\n" + b'\n{"e":2}\n{"e":', 0.0)
    assert values(items) == ["1.50", "2"]
    assert made.buffered_bytes == len(b'{"e":')
    assert values(made.feed(b"3}\n", 0.0)) == ["3"]
    assert made.buffered_bytes == 0


def test_raw_is_the_document_as_it_came() -> None:
    [telegram] = decode(b'  {"e": 1.50 }\r\n')
    assert isinstance(telegram, Telegram)
    assert telegram.raw == b'{"e": 1.50 }'
    assert telegram.protocol == "json"
    assert telegram.checked
    assert telegram.time is None


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n\r\n"])
def test_body_over_many_lines_is_one_message(end: bytes) -> None:
    body = b'{\n  "x": [\n    {\n      "y": {}\n    },\n    {}\n  ],\n\n  "e": 1.50\n}' + end
    assert values(decode(body)) == ["1.50"]
    made = decoder()
    assert values([item for byte in body for item in made.feed(bytes((byte,)), 0.0)] + made.idle(0.0)) == ["1.50"]


def test_body_over_many_lines_may_be_an_array() -> None:
    profile = JsonMap(values=(JsonValue(obis="1-0:1.8.0", unit="kWh", paths=("0/e",)),))
    assert values(decode(b'[\n {\n  "e": 1.50\n }\n]\n', profile)) == ["1.50"]
    assert values(decode(b'[{"e": 1.50}]', profile)) == ["1.50"]


def test_body_without_indents_ends_at_a_bracket_that_makes_it_whole() -> None:
    made = decoder()
    assert values(made.feed(b'{\n"x":{\n"y":1\n},\n"e":2\n}\n', 0.0)) == ["2"]


def test_a_cut_line_does_not_hide_the_next_document() -> None:
    for end in range(1, len(GOOD)):
        items = decode(GOOD[:end] + b"\n" + GOOD + b"\n")
        assert values(items) == ["1.50"], end
        assert len(reasons(items)) == 1, end


def test_a_cut_document_without_line_end_does_not_hide_the_next() -> None:
    for end in range(1, len(GOOD)):
        items = decode(GOOD[:end] + GOOD + b"\n")
        assert values(items) == ["1.50"], end
        assert len(reasons(items)) == 1, end


def test_what_a_program_prints_beside_is_noise() -> None:
    made = decoder()
    log = b"Started config rtlwmbus\n[00:01] listening\n42\n(meter) {id} {\n"
    items = made.feed(log + GOOD + b"\nWARN again: " + GOOD + b"\n", 0.0)
    assert values(items) == ["1.50", "1.50"]
    assert reasons(items) == []
    assert made.skipped_bytes == len(log) + len(b"WARN again: ")


def test_other_documents_of_the_same_source_are_passed_over() -> None:
    made = decoder()
    assert made.feed(b'{"uptime":5}\n{"e2":1}\n[{"e":1}]\n', 0.0) == []
    assert made.skipped_bytes > 0


def test_an_accepted_document_without_any_value_says_what_was_missing() -> None:
    profile = JsonMap(values=tuple(JsonValue(obis=f"1-0:{n}.8.0", paths=(f"a/{n}", f"b{n}")) for n in range(1, 4)))
    [error] = decode(b'{"c":1}\n', profile)
    assert isinstance(error, CodecError)
    assert error.reason == "bad-syntax"
    assert str(error) == (
        "a document of 7 bytes: no value is at a/1, b1, a/2, b2, a/3 and 1 more; is the meter of another family?"
    )


@pytest.mark.parametrize("sent", ["null", '""', '"nan"', '"NaN"', '"unavailable"'])
def test_a_device_may_say_that_it_has_no_value_now(sent: str) -> None:
    assert decode(f'{{"e":{sent}}}\n'.encode()) == []


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("0", "0"),
        ("-0.0", "-0.0"),
        ("1.500", "1.500"),
        ("12345678901234567890123456", "12345678901234567890123456"),
        ("0.1000000000000000055511151231", "0.1000000000000000055511151231"),
        ("1e3", "1000"),
        ("1.5E-3", "0.0015"),
        ('"000123.40"', "123.40"),
        ('" 7 "', "7"),
        ('"-1."', "-1"),
    ],
)
def test_numbers_keep_exactly_the_digits_sent(sent: str, value: str) -> None:
    assert values(decode(f'{{"e":{sent}}}\n'.encode())) == [value]


@pytest.mark.parametrize(
    "sent",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "1e-999",
        "1e999999999999999999",
        "1e41",
        "1e-41",
        "9" * 41,
        "9" * 100_000,
        "0." + "9" * 100_000,
        "true",
        "[1]",
        '{"a":1}',
        '"1,5"',
        '"12 kWh"',
        '"0x10"',
        '"' + "9" * 100_000 + '"',
        '"\\ud800"',
        "01",
        "+1",
        "1.",
        "1_000",
    ],
)
def test_what_is_no_number_is_no_reading(sent: str) -> None:
    items = decode(f'{{"e":{sent}}}\n'.encode())
    assert values(items) == []
    assert set(reasons(items)) <= {"bad-syntax", "truncated"}
    assert len(items) == 1


def test_of_a_name_that_comes_twice_the_last_counts() -> None:
    assert values(decode(b'{"e":1,"e":2}\n')) == ["2"]


@pytest.mark.parametrize("sent", [b'{"e":1,"x":"\xff"}', b'{"e":1,"x":"\xed\xa0\x80"}', b'{"e":1,"x":"\\ud800"}'])
def test_text_that_is_no_unicode_spoils_its_document_only(sent: bytes) -> None:
    items = decode(sent + b"\n" + GOOD + b"\n")
    assert values(items) == ["1.50"]
    assert len(reasons(items)) == 1


def test_a_byte_order_mark_is_noise() -> None:
    assert values(decode(b"\xef\xbb\xbf" + GOOD)) == ["1.50"]


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"a":['])
def test_deep_nesting_is_refused_at_any_depth(opening: bytes) -> None:
    closing = opening.replace(b'{"a":', b"{").translate(bytes.maketrans(b"{[", b"}]"))[::-1]
    for depth in (LIMIT_DEPTH, 500, 5000, 50_000):
        body = b'{"e":1,"x":' + opening * depth + b"1" + closing * depth + b"}\n"
        items = decode(body + GOOD + b"\n")
        assert values(items) == ["1.50"], depth
        assert reasons(items) == ["too-deep"], depth
    shallow = b'{"e":1,"x":' + b"[" * (LIMIT_DEPTH - 2) + b"]" * (LIMIT_DEPTH - 2) + b"}\n"
    assert values(decode(shallow)) == ["1"]


def test_deep_nesting_in_a_payload_is_refused() -> None:
    payload = '"' + "[" * 5000 + "]" * 5000 + '"'
    assert reasons(decode(message("x", payload), PLAIN)) == ["too-deep"]


def test_a_document_has_a_limit_of_elements() -> None:
    body = b'{"e":1,"x":[' + b"{}," * LIMIT_COMMAS + b"{}]}\n"
    assert reasons(decode(body)) == ["too-long"]


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(b'{"e":1,"x":"' + b"a" * 10_000_000 + b'"}\n', id="a long string"),
        pytest.param(b"0" * 4_000_000, id="no line end"),
        pytest.param(b'{"a":' * 500_000, id="openings"),
        pytest.param(b'{"a":\n' * 150_000, id="openings on lines"),
        pytest.param(b"{\n" + b'"a":[\n],\n' * 150_000, id="brackets on lines"),
        pytest.param((b"{" * 1000 + b"\n") * 1000, id="braces"),
        pytest.param((b'{"' * 500 + b"\n") * 1000, id="objects"),
        pytest.param(b'{"a":1},' * 120_000 + b"\n", id="documents side by side"),
        pytest.param(b'{"e"' * 300_000 + b"\n", id="a long line of beginnings"),
        pytest.param(b"[1,\n" * 150_000, id="arrays on lines"),
    ],
)
def test_hostile_bytes_cost_bounded_memory(hostile: bytes) -> None:
    made = decoder()
    most_bytes = 0
    tracemalloc.start()
    for start in range(0, len(hostile), 16_384):
        made.feed(hostile[start : start + 16_384], 0.0)
        most_bytes = max(most_bytes, made.buffered_bytes)
    items = made.feed(b"\n" + GOOD + b"\n", 0.0)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert values(items + made.idle(0.0)) == ["1.50"]
    assert most_bytes <= LIMIT_BYTES
    assert peak_bytes < 64 * LIMIT_BYTES


def test_a_stream_without_line_ends_is_reported_once_a_mebibyte() -> None:
    items = decode(b'{"e":"' + b"a" * (3 * LIMIT_BYTES) + b'"}\n' + GOOD + b"\n")
    assert values(items) == ["1.50"]
    assert reasons(items) == ["too-long"]
    assert len(next(item.data for item in items if isinstance(item, CodecError))) == LIMIT_BYTES


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([GOOD, b"\n", b"{", b"}", b"[", b"]", b'"', b",", b'"e":', b"1", b"\\", b"\x00", b" "]))
)
def test_any_bytes_raise_nothing_and_the_next_document_is_found(parts: list[bytes]) -> None:
    made = decoder()
    for part in parts:
        made.feed(part, 0.0)
    items = [*made.feed(b"\n", 0.0), *made.idle(0.0), *made.feed(GOOD + b"\n", 0.0)]
    assert values(items)[-1:] == ["1.50"]


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_no_reading(data: bytes) -> None:
    assert values(decode(data)) == []


def test_gate_at_full_size() -> None:
    report = check_codec(decoder, GOOD + b"\n", limit_bytes=LIMIT_BYTES, rounds=1, weak_checksum=True)
    assert report.telegrams == 1


def test_envelope_has_the_document_itself_or_its_text() -> None:
    profile = JsonMap(values=(ENERGY,), topics=("SENSOR", "a/+/b"))
    for payload in ('{"e":1.50}', '"{\\"e\\":1.50}"'):
        assert values(decode(message("tele/x/SENSOR", payload), profile)) == ["1.50"]
    assert values(decode(message("q/a/anything/b", '{"e":1}'), profile)) == ["1"]
    assert decode(message("tele/x/STATE", '{"e":1}'), profile) == []
    assert decode(message("a/b", '{"e":1}'), profile) == []
    assert values(decode(GOOD, profile)) == ["1.50"]


def test_topics_of_any_length_and_number_are_bounded() -> None:
    made = decoder(TOPICS)
    assert made.feed(message("a" * 2000 + "/power", "1"), 0.0) == []
    found = [item for n in range(1000) for item in made.feed(message(f"{n}/power", "1"), 0.0)]
    assert len(found) == 999


def test_broken_payload_is_an_error() -> None:
    assert reasons(decode(message("x", '"{\\"e\\":"'))) == ["truncated"]
    assert decode(message("x", '"no document"')) == []


def test_topics_of_one_value_are_gathered_to_one_telegram() -> None:
    made = decoder(TOPICS)
    assert made.feed(message("d/energy", '"1.50"'), 0.0) == []
    assert made.idle(0.1) == []
    assert made.feed(message("d/power", "412"), 0.5) == []
    assert made.idle(1.9) == []
    [telegram] = made.idle(2.0)
    assert isinstance(telegram, Telegram)
    assert values([telegram]) == ["1.50", "412"]
    assert telegram.meter == "d"
    assert made.buffered_bytes == 0


def test_gathering_ends_with_a_second_value_or_another_device() -> None:
    made = decoder(TOPICS)
    made.feed(message("d/energy", "1"), 0.0)
    assert values(made.feed(message("d/energy", "2"), 0.1)) == ["1"]
    assert values(made.feed(message("c/power", "3"), 0.2)) == ["2"]
    assert values(made.feed(message("c/energy", "4"), 5.0)) == ["3"]
    assert values(made.idle(9.0)) == ["4"]


def test_gathered_messages_are_bounded() -> None:
    made = decoder(TOPICS)
    padded = '"' + " " * (GATHERED_BYTES - 100) + '1"'
    assert made.feed(message("d/energy", padded), 0.0) == []
    assert values(made.feed(message("d/power", padded), 0.0)) == ["1"]
    assert made.buffered_bytes <= GATHERED_BYTES
    assert len(made.feed(message("d/power", '"' + " " * GATHERED_BYTES + '1"'), 0.0)) == 1


def test_a_topic_of_a_value_without_number_is_an_error() -> None:
    [error] = decode(message("d/power", '"on"'), TOPICS)
    assert isinstance(error, CodecError)
    assert "the topic 'd/power' carries no number" in str(error)
    assert decode(message("d/power", '"nan"'), TOPICS) == []


def test_address_is_the_name_in_the_document_or_a_level_of_the_topic() -> None:
    profile = JsonMap(values=(ENERGY,), meter=("id",))
    made = decoder(profile, address="Abc")
    assert values(made.feed(b'{"id":"aBC","e":1}\n{"id":"abd","e":2}\n{"e":3}\n', 0.0)) == ["1"]
    assert values(made.feed(message("x/ABC/y", '{"e":4}') + message("x/ABCD/y", '{"e":5}'), 0.0)) == ["4"]


def test_clock_without_zone_tells_the_hour_that_comes_twice_by_stepping_back() -> None:
    profile = JsonMap(values=(ENERGY,), time=(ClockPlace(paths=("t",)),))
    made = decoder(profile)
    found = []
    for sent in ("02:59:50", "02:00:00", "02:59:50", "03:00:00"):
        [telegram] = made.feed(f'{{"e":1,"t":"2026-10-25T{sent}"}}\n'.encode(), 0.0)
        assert isinstance(telegram, Telegram)
        assert telegram.time is not None
        found.append(telegram.time.astimezone(UTC))
    assert found == [
        datetime(2026, 10, 25, hour, minute, second, tzinfo=UTC)
        for hour, minute, second in ((0, 59, 50), (1, 0, 0), (1, 59, 50), (2, 0, 0))
    ]


def test_a_signed_value_may_stand_for_two_directions() -> None:
    power = JsonValue(obis="1-0:1.7.0", unit="W", paths=("p",), negative="1-0:2.7.0", factor="0.1")
    profile = JsonMap(values=(power,))
    assert values(decode(b'{"p":-1234}', profile)) == ["0", "123.4"]
    assert values(decode(b'{"p":1234}', profile)) == ["123.4", "0"]


def test_first_naming_that_is_found_counts() -> None:
    profile = JsonMap(
        values=(
            JsonValue(obis="1-0:1.8.0", unit="kWh", paths=("new", "old")),
            JsonValue(obis="1-0:1.8.0", unit="Wh", paths=("wh",)),
        )
    )
    [telegram] = decode(b'{"old":1,"new":null,"wh":1000}', profile)
    assert isinstance(telegram, Telegram)
    assert [(register.value, register.unit) for register in telegram.registers] == [(Decimal(1), "kWh")]
    [telegram] = decode(b'{"wh":1000}', profile)
    assert isinstance(telegram, Telegram)
    assert [(register.value, register.unit) for register in telegram.registers] == [(Decimal(1000), "Wh")]
