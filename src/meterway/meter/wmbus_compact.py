"""Compact frames: the values of records without their headers, which a full frame sent before.

    compact   ::= signature(2) checksum(2) *value
    signature   the checksum of all headers (DIF, VIF) of the full frame, one after the other
    checksum    that of the full frame's records, with the values of this one

Kamstrup's meters send a full frame now and then, compact ones between. Every full frame that is heard teaches its
headers, whichever meter sent it; those of Kamstrup's commonest meters are known from the start.

Source: EN 13757-3:2018, annex G (compact M-Bus frame).
"""

from collections import OrderedDict
from typing import Final

from meterway.meter.mbus_records import RecordError, record_bounds
from meterway.meter.wmbus_frames import crc16_en13757

_LIMIT_FORMATS: Final = 256
_HEAD_BYTES: Final = 4

_KNOWN: Final = (
    "02FF20 0413 4413 615B 6167",
    "02FF20 0413 4413 615B 5167",
    "02FF20 0413 92013B A1015B 8101E7FF0F",
    "02FF20 0413 523B",
    "04FF23 0413 4413 426C 023B 92013B A2013B 06FF1B A1015B 91015B A10167",
    "04FF23 4413 523B 06FF1B 426C 6167 5167 023B 0413 8101E7FF0F",
    "0404 04843C 042B 04AB3C",
    "2269 1269 0269 05FF09 05FF0A 02FD17",
)
"""Headers of Multical 21, flowIQ, OmniPower and PressureSensor."""


class Formats:
    """The headers that full frames have taught: at most 256, those not heard for longest are forgotten.

    What a signature means does not change: nobody can unteach what a meter's compact frames need.
    """

    def __init__(self) -> None:
        self._headers: OrderedDict[int, tuple[bytes, ...]] = OrderedDict()
        for known in _KNOWN:
            self._remember(tuple(bytes.fromhex(header) for header in known.split()))

    def learn(self, body: bytes) -> None:
        """Remember the headers of the records of a full frame; of one that breaks off, nothing."""
        try:
            headers = tuple(body[begin:data] for begin, data, _ in record_bounds(body))
        except RecordError:
            return
        self._remember(headers)

    def _remember(self, headers: tuple[bytes, ...]) -> None:
        signature = crc16_en13757(b"".join(headers))
        self._headers.setdefault(signature, headers)
        self._headers.move_to_end(signature)
        if len(self._headers) > _LIMIT_FORMATS:
            self._headers.popitem(last=False)

    def expand(self, compact: bytes) -> bytes | None:
        """Return the records that a compact frame stands for; None if their headers are not known.

        Raises:
            RecordError: values are missing, or the checksum does not hold.
        """
        if len(compact) < _HEAD_BYTES:
            raise RecordError("its compact data break off")
        headers = self._headers.get(int.from_bytes(compact[:2], "little"))
        if headers is None:
            return None
        body = _filled(headers, compact[_HEAD_BYTES:])
        if crc16_en13757(body) != int.from_bytes(compact[2:_HEAD_BYTES], "little"):
            raise RecordError("the checksum of its compact data does not hold")
        return body


def _filled(headers: tuple[bytes, ...], data: bytes) -> bytes:
    body = b""
    for header in headers:
        record = header + data
        _begin, start, end = next(record_bounds(record))
        body += record[:end]
        data = data[end - start :]
    return body
