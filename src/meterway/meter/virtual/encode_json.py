"""Documents as the devices of a JSON family publish them, made of registers: the way back through a mapping profile.

    for message in encode_json(profile, registers, time=now, zone=zone, meter="42"):
        publish(f"site/{message.topic}", message.payload)      or answer an HTTP request with the payload

Each value is written at the first of its paths, below the first root, in its unit; what the profile does not name is
left out. Publishing, or answering, is the caller's.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, tzinfo
from decimal import Context, Decimal
from typing import Final, NamedTuple

import msgspec

from meterway.core.obis import Obis
from meterway.core.units import convert, plain
from meterway.meter.json_map import ClockPlace, JsonMap, JsonValue
from meterway.meter.json_path import parse_path, put
from meterway.meter.json_time import write_time
from meterway.meter.telegram import Register

_EXACT: Final = Context(prec=80)
_ENCODE: Final = msgspec.json.Encoder(decimal_format="number").encode


class Message(NamedTuple):
    """One MQTT message, or the body of one HTTP answer."""

    topic: str
    """The end of the topic, with ``meter`` for each level that the profile leaves open; empty where any fits."""
    payload: bytes


def encode_json(
    profile: JsonMap, registers: Iterable[Register], *, zone: tzinfo, time: datetime | None = None, meter: str = ""
) -> tuple[Message, ...]:
    """Return what a device says: one document, or one message a value where the profile has only topics of values.

    ``time`` is aware, and written where the profile has a place for it; ``zone`` is that of the device's clock.

    Raises:
        BadDataError: a register's unit is of another dimension than the profile's (reason ``bad-unit``).
    """
    by_code = {register.obis: register for register in registers}
    document = _Document(profile, zone)
    messages = []
    for value in profile.values:
        register = by_code.pop(Obis.parse(value.obis), None)
        if register is None or value.constant:
            continue
        back = by_code.pop(Obis.parse(value.negative), None) if value.negative else None
        sent = _sent(value, register, back)
        if value.paths:
            document.put(value.paths[0], sent)
            document.put_time(value.time, register.time)
        else:
            messages.append(Message(_topic(value.topics, meter), str(sent).encode()))
    if profile.registers:
        document.put(profile.registers[0], [_entry(register, zone) for register in by_code.values()])
    if document.node is None:
        return tuple(messages)
    document.put_time(profile.time, time)
    if meter and profile.meter:
        document.put(profile.meter[0], meter)
    return (Message(_topic(profile.topics, meter), _ENCODE(document.node)), *messages)


class _Document:
    """A document being written."""

    def __init__(self, profile: JsonMap, zone: tzinfo) -> None:
        self.node: object = None
        self._root = parse_path(profile.roots[0])
        self._zone = zone

    def put(self, path: str, value: object) -> None:
        self.node = put(self.node, (*self._root, *parse_path(path)), value)

    def put_time(self, places: tuple[ClockPlace, ...], time: datetime | None) -> None:
        if places and time is not None:
            self.put(places[0].paths[0], write_time(time, places[0].form, self._zone))


def _sent(value: JsonValue, register: Register, back: Register | None) -> Decimal | str:
    """Return what a device writes for a register; ``back`` is the other direction of a signed value."""
    if isinstance(register.value, str):
        return register.value
    number = _scaled(value, register.value, register.unit)
    if back is not None and isinstance(back.value, Decimal) and back.value:
        number = _scaled(value, back.value, back.unit).copy_negate()
    return number


def _scaled(value: JsonValue, number: Decimal, unit: str | None) -> Decimal:
    if unit is not None and value.unit:
        number = convert(number, unit, value.unit)
    factor = Decimal(value.factor)
    return number if factor == 1 else plain(_EXACT.divide(number, factor))


def _entry(register: Register, zone: tzinfo) -> Mapping[str, str]:
    entry = {"obis": str(register.obis), "value": str(register.value)}
    if isinstance(register.value, Decimal):
        entry["unit"] = register.unit or ""
    if register.time is not None:
        entry["time"] = register.time.astimezone(zone).isoformat()
    return entry


def _topic(ends: tuple[str, ...], meter: str) -> str:
    return ends[0].replace("+", meter or "meter") if ends else ""
