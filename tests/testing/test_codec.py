"""The gate lets a sound codec pass and stops each of these, broken in one way."""

from collections.abc import Callable
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from meterway.meter.codec import CodecError
from meterway.meter.crc import crc16_arc
from meterway.meter.p1 import LIMIT_BYTES, P1Decoder
from meterway.meter.telegram import Telegram
from meterway.testing import GateReport, check_codec

Items = list[Telegram | CodecError]


def telegram(energy: str) -> bytes:
    body = f"/MWY5\\GATE\r\n\r\n0-0:1.0.0(260714183005S)\r\n1-0:1.8.1({energy}*kWh)\r\n1-0:1.7.0(00.212*kW)\r\n!"
    return body.encode() + b"%04X\r\n" % crc16_arc(body.encode())


CAPTURE = telegram("004321.098") + telegram("004321.099")


class Sound(P1Decoder):
    def __init__(self) -> None:
        super().__init__(ZoneInfo("Europe/Amsterdam"))


class RaisesOnAByte(Sound):
    def feed(self, data: bytes, now: float) -> Items:
        if b"\xff" in data:
            raise IndexError("byte out of range")
        return super().feed(data, now)


class RaisesWhenQuiet(Sound):
    def idle(self, now: float) -> Items:
        if self.buffered_bytes == 50:
            raise ValueError("unfinished")
        return super().idle(now)


class NeverDrops(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.kept = 0

    def feed(self, data: bytes, now: float) -> Items:
        self.kept += len(data)
        return super().feed(data, now)

    @property
    def buffered_bytes(self) -> int:
        return self.kept


class IgnoresTheChecksum(Sound):
    def _close(self, frame: bytes, ending: bytes) -> Items:
        body = frame[: len(frame) - len(ending)]
        checksum = b"%04X" % crc16_arc(body)
        items = super()._close(body + checksum, checksum)
        return [replace(item, raw=frame) if isinstance(item, Telegram) else item for item in items]


class NeedsBigChunks(Sound):
    def feed(self, data: bytes, now: float) -> Items:
        items = super().feed(data, now)
        return items if len(data) > 7 else items + super().idle(now)


class HidesTheNext(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.sulks = False

    def feed(self, data: bytes, now: float) -> Items:
        items: Items = []
        for item in super().feed(data, now):
            if not (self.sulks and isinstance(item, Telegram)):
                items.append(item)
            self.sulks = isinstance(item, CodecError)
        return items


class OneItemAtATime(Sound):
    def feed(self, data: bytes, now: float) -> Items:
        return super().feed(data, now)[-1:]


class TidiesTheBytes(Sound):
    def feed(self, data: bytes, now: float) -> Items:
        items = super().feed(data, now)
        return [replace(item, raw=item.raw.lower()) if isinstance(item, Telegram) else item for item in items]


class CountsTooMuch(Sound):
    def _skip(self, noise: bytes | bytearray) -> None:
        self.skipped_bytes += 2 * len(noise)


class DiesAtTheLimit(Sound):
    dead = False

    def feed(self, data: bytes, now: float) -> Items:
        items = super().feed(data, now)
        self.dead = self.dead or self.skipped_bytes > LIMIT_BYTES
        return [] if self.dead else items


class RepeatsItself(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.last: Items = []

    def feed(self, data: bytes, now: float) -> Items:
        items = super().feed(data, now)
        self.last = items[-1:] or self.last
        return items

    def idle(self, now: float) -> Items:
        return super().idle(now) + self.last


def test_sound_codec_passes_and_the_report_tells_what_was_seen() -> None:
    report = check_codec(Sound, CAPTURE, limit_bytes=LIMIT_BYTES)
    assert report == GateReport(
        telegrams=2, errors=0, checked=True, variants=report.variants, most_buffered_bytes=report.most_buffered_bytes
    )
    assert report.variants > 400
    assert 50 < report.most_buffered_bytes < LIMIT_BYTES


def test_report_counts_errors_of_the_capture() -> None:
    report = check_codec(Sound, CAPTURE + CAPTURE.replace(b"4321", b"1234"), limit_bytes=LIMIT_BYTES)
    assert (report.telegrams, report.errors) == (2, 2)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (RaisesOnAByte, r"^\w+.*, offset \d+: raised IndexError\('byte out of range'\)"),
        (RaisesWhenQuiet, r"^prefix, offset 50 .*, idle after the end: raised ValueError"),
        (NeverDrops, r"seed \d+\), offset \d+: \d+ bytes are buffered, the limit is 16384"),
        (IgnoresTheChecksum, r"^(flip|loss|cut then).*seed.*, offset .*: telegram \d is a wrong reading"),
        (NeedsBigChunks, r"^chunks of 1 bytes: differs from the capture fed whole: 0 telegrams"),
        (HidesTheNext, r"^cut then whole, offset \d+ .*: of 4 good telegrams at the end, [0-3] came"),
        (OneItemAtATime, r"^chunks of 1 bytes: differs"),
        (TidiesTheBytes, r"^whole, offset 0: raw is not what was fed"),
        (CountsTooMuch, r"skipped_bytes is \d+"),
        (DiesAtTheLimit, r"^endless, seed \d+, offset \d+ .*: of 2 good telegrams at the end, 0 came"),
        (RepeatsItself, r"^cut then whole, offset 0 .*: of 6 good telegrams at the end, 4 came"),
    ],
)
def test_broken_codec_is_stopped_with_the_place_where(broken: Callable[[], P1Decoder], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_codec(broken, CAPTURE, limit_bytes=LIMIT_BYTES)


def test_the_gate_is_the_same_each_time() -> None:
    messages = set()
    for _ in range(2):
        with pytest.raises(AssertionError) as stopped:
            check_codec(IgnoresTheChecksum, CAPTURE, limit_bytes=LIMIT_BYTES)
        messages.add(str(stopped.value))
    assert len(messages) == 1
