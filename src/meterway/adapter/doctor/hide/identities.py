"""By which names a meter is known in its telegrams, and in which forms those may stand in bytes. Pure."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from meterway.adapter.doctor.hide.pseudonyms import Pseudonyms
from meterway.meter.telegram import Register, Telegram

_RUN: Final = re.compile(r"[0-9A-Za-z]{6,}")
_NUMBER: Final = re.compile(r"[0-9]{6,}")
_FEWEST_DIGITS: Final = 4
_PUBLIC: Final = frozenset(
    ("tele", "stat", "shellies", "emeter", "sensor", "state", "status", "homeassistant", "wmbusmeters", "zigbee2mqtt")
)
"""Levels of topics that programs choose."""
_SHORTEST_BYTES: Final = 4
"""Shorter forms occur by chance."""
_NAMES: Final = frozenset(
    {(0, 0), (9, 20), (9, 21), (9, 22), (42, 0), (96, 1), (96, 13), (96, 50), (96, 90), (199, 130)}
)
"""Groups C and D of registers that say who a meter or its owner is; 9.20 to 9.22 those of heat meters."""
_NAMED: Final = ("fabrication", "identification", "customer", "location")
"""What stands in the names of such registers where the protocol gives names."""


def identities(telegrams: Iterable[Telegram]) -> set[str]:
    """Return the names by which the telegrams' meters, and those behind them, can be told from others."""
    found: set[str] = set()
    for telegram in telegrams:
        texts = [telegram.meter, *(register.value for register in telegram.registers if _is_name(register))]
        for text in texts:
            found |= {run for run in _RUN.findall(str(text)) if _is_individual(run)}
    return found


def topic_names(topics: Iterable[str]) -> set[str]:
    """Return the levels of MQTT topics that their owner may have named."""
    levels = {level for topic in topics for level in topic.split("/")}
    return {level for level in levels if len(level) >= _SHORTEST_BYTES and level.casefold() not in _PUBLIC}


def _is_name(register: Register) -> bool:
    name = register.name or ""
    return register.obis[2:4] in _NAMES or any(word in name for word in _NAMED)


def _is_individual(run: str) -> bool:
    return sum(letter.isdigit() for letter in run) >= _FEWEST_DIGITS and len(set(run)) > 1


def forms(name: str) -> dict[bytes, str]:
    """Return how ``name`` may be written in bytes, and what it is then: ``text``, ``bcd`` or ``octets``."""
    found: dict[bytes, str] = {}
    names = [name, *_NUMBER.findall(name)]
    for each in names:
        for text in (each, each.upper(), each.lower(), each.encode().hex(), each.encode().hex().upper()):
            found[text.encode()] = found[text.encode()[::-1]] = "text"
        if re.fullmatch(r"[0-9A-Fa-f]+", each):
            kind = "bcd" if each.isdigit() else "octets"
            packed = bytes.fromhex(each if len(each) % 2 == 0 else f"0{each}")
            for data in (packed, packed[::-1]):
                found.setdefault(data, kind)
            for data in (packed, packed[::-1]):
                found[data.hex().encode()] = found[data.hex().upper().encode()] = "text"
    return {data: kind for data, kind in found.items() if len(data) >= _SHORTEST_BYTES}


def replaced(data: bytes, names: Iterable[str], pseudonyms: Pseudonyms) -> bytes:
    """Return ``data`` with every form of every name replaced; the length stays."""
    for form, kind in _all_forms(names):
        if form in data:
            new = {"text": pseudonyms.text, "bcd": pseudonyms.bcd, "octets": pseudonyms.octets}[kind](form)
            data = data.replace(form, new)
    return data


def leaks(data: bytes, names: Iterable[str]) -> bool:
    """Return whether a name still stands in ``data``, in whichever form."""
    return any(form in data for form, _ in _all_forms(names))


def _all_forms(names: Iterable[str]) -> Iterator[tuple[bytes, str]]:
    """The longest first, so that no part is replaced before the whole."""
    found: dict[bytes, str] = {}
    for name in names:
        found |= forms(name)
    yield from sorted(found.items(), key=lambda item: -len(item[0]))
