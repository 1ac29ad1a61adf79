"""The checksums against their published check values and against the definition, bit by bit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterway.meter.crc import crc16_arc, crc16_kermit, crc16_x25


def bit_by_bit(data: bytes, polynomial: int, start: int, inversion: int) -> int:
    crc = start
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ polynomial if crc & 1 else crc >> 1
    return crc ^ inversion


def test_check_values_are_those_of_the_catalogue() -> None:
    assert crc16_arc(b"123456789") == 0xBB3D
    assert crc16_x25(b"123456789") == 0x906E
    assert crc16_kermit(b"123456789") == 0x2189


def test_empty_message_has_the_start_value() -> None:
    assert (crc16_arc(b""), crc16_x25(b""), crc16_kermit(b"")) == (0, 0, 0)


@given(st.binary(max_size=400))
def test_any_message_equals_the_definition(data: bytes) -> None:
    assert crc16_arc(data) == bit_by_bit(data, 0xA001, 0, 0)
    assert crc16_x25(data) == bit_by_bit(data, 0x8408, 0xFFFF, 0xFFFF)
    assert crc16_kermit(data) == bit_by_bit(data, 0x8408, 0, 0)


@pytest.mark.parametrize("size_bytes", [1023, 16384])
def test_long_messages_equal_the_definition(size_bytes: int) -> None:
    data = bytes(index * 37 + index // 251 & 0xFF for index in range(size_bytes))
    assert crc16_arc(data) == bit_by_bit(data, 0xA001, 0, 0)
    assert crc16_x25(data) == bit_by_bit(data, 0x8408, 0xFFFF, 0xFFFF)
    assert crc16_kermit(data) == bit_by_bit(data, 0x8408, 0, 0)
