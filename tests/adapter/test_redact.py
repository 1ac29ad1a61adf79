from meterway.adapter.redact import identities_of, redact, redact_name, redact_sentence


def test_serial_numbers_in_text_are_overwritten_and_registers_stay() -> None:
    line = b"/XMX5LGBBFG1009\r\n0-0:96.1.1(4530303331)\r\n1-0:1.8.1(012345.678*kWh)\r\n!BAD0\r\n"
    assert redact(line) == b"/xxxxxxxxxxxxxx\r\n0-0:96.1.1(xxxxxxxxxx)\r\n1-0:1.8.1(012345.678*kWh)\r\n!BAD0\r\n"


def test_the_server_id_in_binary_is_overwritten_and_the_framing_stays() -> None:
    start, server_id = bytes.fromhex("1b1b1b1b01010101"), bytes.fromhex("0b0a01445a4700030a1b2c")
    code = bytes.fromhex("070100010800ff")
    assert redact(start + server_id + code) == start + b"\x0b" + bytes(10) + code


def test_a_server_id_that_is_cut_is_overwritten_too() -> None:
    assert redact(bytes.fromhex("1b1b1b1b010101010b0a01445a47")) == bytes.fromhex("1b1b1b1b010101010b0000000000")


def test_an_identity_known_from_good_telegrams_is_found_where_the_structure_is_broken() -> None:
    identity = bytes.fromhex("445a4700030a1b2c")
    assert identity not in redact(b"\xff\xfe" + identity + b"\x00\x01", (identity,))


def test_the_length_never_changes() -> None:
    for data in (b"", b"\x0f", b"\x08\x00\x00", b"a" * 100, bytes(range(256))):
        assert len(redact(data)) == len(data)


def test_the_number_of_an_mbus_meter_is_overwritten() -> None:
    number = bytes.fromhex("78563412")
    frame = bytes.fromhex("68191968080572") + number + bytes.fromhex("2d2c0704000000000c78") + number + b"\x00\x16"
    assert number not in redact(frame)


def test_the_identity_in_a_dlms_octet_string_is_overwritten_to_its_end() -> None:
    octets = bytes.fromhex("0203090c") + bytes(range(0x80, 0x8C)) + bytes.fromhex("0600")
    assert redact(octets) == bytes.fromhex("0203090c") + bytes(12) + bytes.fromhex("0600")
    written = b"\x02\x02\x01\x00\x0a\x10" + b"6970631400000001" + b"\xff\x06\x00\x01\x02"
    assert b"6970" not in redact(written)
    assert b"0001" not in redact(written)


def test_a_dlms_code_stays() -> None:
    octets = bytes.fromhex("0203090601000108 00ff060000")
    assert redact(octets) == octets


def test_a_sentence_keeps_its_words_and_loses_the_number_it_quotes() -> None:
    said = "a telegram has 1 line(s) of no known form, the first begins '4530303331303033'"
    assert redact_sentence(said) == "a telegram has 1 line(s) of no known form, the first begins 'xxxxxxxxxxxxxxxx'"


def test_a_name_keeps_its_maker_and_loses_its_number() -> None:
    assert redact_name("0A01445A4700030A1B2C") == "x" * 20
    assert redact_name("KFM 12345678 \xe9\x07") == "KFM xxxxxxxx \xe9\x07"


def test_identities_are_what_stands_in_a_frame() -> None:
    assert identities_of("0A01445A4700") == (b"0A01445A4700", bytes.fromhex("0a01445a4700"))
    assert identities_of("KFM 12345678") == (b"12345678",)
    assert identities_of("") == (b"",)


def test_a_sentence_is_redacted_in_linear_time() -> None:
    letters = "a" * 1_000_000
    assert redact_sentence(letters) == letters
    assert redact_sentence(f"{letters}1 or 1234567 or A1234567") == f"{'x' * 1_000_001} or 1234567 or xxxxxxxx"
