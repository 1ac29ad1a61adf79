from meterway.adapter.redact import redact


def test_serial_numbers_in_text_are_overwritten_and_registers_stay() -> None:
    line = b"/XMX5LGBBFG1009\r\n0-0:96.1.1(4530303331)\r\n1-0:1.8.1(012345.678*kWh)\r\n!BAD0\r\n"
    assert redact(line) == b"/xxxxxxxxxxxxxx\r\n0-0:96.1.1(xxxxxxxxxx)\r\n1-0:1.8.1(012345.678*kWh)\r\n!BAD0\r\n"


def test_the_server_id_in_binary_is_overwritten_and_the_framing_stays() -> None:
    start, server_id = bytes.fromhex("1b1b1b1b01010101"), bytes.fromhex("0b0a01445a4700030a1b2c")
    code = bytes.fromhex("070100010800ff")
    assert redact(start + server_id + code) == start + b"\x0b" + bytes(10) + code


def test_an_identity_known_from_good_telegrams_is_found_where_the_structure_is_broken() -> None:
    identity = bytes.fromhex("445a4700030a1b2c")
    assert identity not in redact(b"\xff\xfe" + identity + b"\x00\x01", (identity,))


def test_the_length_never_changes() -> None:
    for data in (b"", b"\x0f", b"\x08\x00\x00", b"a" * 100, bytes(range(256))):
        assert len(redact(data)) == len(data)
