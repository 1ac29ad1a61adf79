"""Radio meters of the tests, and what a decoder makes of bytes."""

from zoneinfo import ZoneInfo

from meterway.meter.codec import CodecError
from meterway.meter.keys import Keys
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.encode_mbus import BCD8, INT32, Header, bcd, integer
from meterway.meter.wmbus import WmbusDecoder

BERLIN = ZoneInfo("Europe/Berlin")
WATER = Header("20264812", "MWY", 0x11, 0x07)
HEAT = Header("20264811", "MWY", 0x07, 0x04)
KEY = bytes(range(16, 32))
KEYS = Keys(KEY)
RECORDS = [bcd(b"\x13", BCD8, 1_234_567), integer(b"\x3b", INT32, 144)]


def decoder(keys: Keys = KEYS, *, address: str = "", accept_repeats: bool = False, quirk: str = "") -> WmbusDecoder:
    quirks = (quirk,) if quirk else ()
    return WmbusDecoder(BERLIN, keys=keys, address=address, quirks=quirks, accept_repeats=accept_repeats)


def decode(data: bytes, keys: Keys = KEYS, *, address: str = "") -> list[Telegram | CodecError]:
    made = decoder(keys, address=address)
    return made.feed(data, 0.0) + made.idle(0.0)


def kinds(items: list[Telegram | CodecError]) -> list[str]:
    """Return the first value of telegrams, the reason of errors."""
    return [item.reason if isinstance(item, CodecError) else str(item.registers[0].value) for item in items]
