"""Pushes of our own making, for tests."""

from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from meterway.core.obis import Obis
from meterway.meter.codec import CodecError
from meterway.meter.dlms import DlmsDecoder
from meterway.meter.dlms_layout import PushList
from meterway.meter.dlms_security import seal
from meterway.meter.keys import NO_KEYS, Keys
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.encode_dlms import (
    coded,
    date_time,
    encode_notification,
    octets,
    structure,
    uint16,
    uint32,
)

VIENNA = ZoneInfo("Europe/Vienna")
NOON = datetime(2026, 6, 5, 12, 0, 40, tzinfo=VIENNA)
KEYS = Keys(bytes(range(16)), bytes(range(16, 32)))
TITLE = b"MWY\x00\x00\x00\x00\x2a"
METER = Obis(0, 0, 96, 1, 0)
IMPORT = Obis(1, 0, 1, 8, 0)
VOLTAGE = Obis(1, 0, 32, 7, 0)
WH, V = 30, 35


def push(energy_wh: int = 12345678, *, time: datetime = NOON) -> bytes:
    """Return an APDU with three values, as coded structures."""
    values = [
        (METER, octets(b"1MWY0000000042"), None),
        (IMPORT, uint32(energy_wh), (0, WH)),
        (VOLTAGE, uint16(2311), (-1, V)),
    ]
    return encode_notification(7, structure(*coded(values)), date_time(time))


def sealed(
    counter: int, *, keys: Keys = KEYS, control: int = 0x30, apdu: bytes | None = None, general: int = 0xDB
) -> bytes:
    """Return a ciphered push."""
    return seal(apdu or push(), title=TITLE, counter=counter, keys=keys, control=control, general=general)


def decoder(keys: Keys = NO_KEYS, lists: Sequence[PushList] = (), *, accept_repeats: bool = False) -> DlmsDecoder:
    return DlmsDecoder(VIENNA, keys=keys, lists=lists, accept_repeats=accept_repeats)


def decode(data: bytes, keys: Keys = NO_KEYS, lists: Sequence[PushList] = ()) -> list[Telegram | CodecError]:
    made = decoder(keys, lists)
    return made.feed(data, 0.0) + made.idle(1.0)


def one(data: bytes, keys: Keys = NO_KEYS, lists: Sequence[PushList] = ()) -> Telegram:
    [telegram] = decode(data, keys, lists)
    assert isinstance(telegram, Telegram), str(telegram)
    return telegram


def kinds(items: Sequence[Telegram | CodecError]) -> list[str]:
    """Return the energy of each telegram, the reason of each error."""
    return [item.reason if isinstance(item, CodecError) else energy(item) for item in items]


def energy(telegram: Telegram) -> str:
    return next((str(register.value) for register in telegram.registers if register.obis == IMPORT), "none")
