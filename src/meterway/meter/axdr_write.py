"""A-XDR, written: what ``meter.axdr`` reads. Each function returns one element with its tag, unless it says otherwise.

structure(octets(bytes(Obis(1, 0, 1, 8, 0))), uint32(1234), structure(int8(0), enum(30)))
"""

from datetime import datetime

from meterway.meter.dlms_security import write_length


def uint32(value: int) -> bytes:
    """Return a double-long-unsigned."""
    return b"\x06" + value.to_bytes(4, "big")


def uint16(value: int) -> bytes:
    """Return a long-unsigned."""
    return b"\x12" + value.to_bytes(2, "big")


def uint8(value: int) -> bytes:
    """Return an unsigned."""
    return b"\x11" + value.to_bytes(1, "big")


def int16(value: int) -> bytes:
    """Return a long."""
    return b"\x10" + value.to_bytes(2, "big", signed=True)


def int8(value: int) -> bytes:
    """Return an integer."""
    return b"\x0f" + value.to_bytes(1, "big", signed=True)


def enum(value: int) -> bytes:
    """Return an enumerated value."""
    return bytes((0x16, value))


def octets(data: bytes) -> bytes:
    """Return an octet string."""
    return b"\x09" + write_length(len(data)) + data


def visible(text: str) -> bytes:
    """Return a visible string."""
    return b"\x0a" + write_length(len(text)) + text.encode("ascii")


def structure(*elements: bytes) -> bytes:
    """Return a structure."""
    return b"\x02" + write_length(len(elements)) + b"".join(elements)


def array(*elements: bytes) -> bytes:
    """Return an array."""
    return b"\x01" + write_length(len(elements)) + b"".join(elements)


def date_time(time: datetime, *, with_deviation: bool = True) -> bytes:
    """Return the 12 octets of a date-time, without a tag; ``time`` is aware."""
    east_min = int((time.utcoffset() or time - time).total_seconds()) // 60
    deviation = -east_min if with_deviation else -0x8000
    return (
        time.year.to_bytes(2, "big")
        + bytes((time.month, time.day, time.isoweekday(), time.hour, time.minute, time.second, 0xFF))
        + deviation.to_bytes(2, "big", signed=True)
        + bytes((0x80 if time.dst() else 0x00,))
    )
