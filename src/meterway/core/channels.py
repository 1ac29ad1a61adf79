"""Meters behind a meter: the ids of those on its M-Bus channels that no configuration names."""

from hashlib import blake2b
from uuid import UUID

CHANNELS = range(1, 5)
"""A meter passes on what is on these channels."""


def channel_meter_id(meter_id: str, channel: int) -> str:
    """Return the id of the meter on a channel that the configuration does not name.

    A UUID (version 8) that depends on the first meter's id and the channel only, so that it stays the same.
    """
    data = bytearray(blake2b(f"{meter_id}/channel/{channel}".encode(), digest_size=16).digest())
    data[6] = data[6] & 0x0F | 0x80
    data[8] = data[8] & 0x3F | 0x80
    return str(UUID(bytes=bytes(data)))
