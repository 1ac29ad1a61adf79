"""Other names for what a configuration says of people and places, the same in tables and in sentences. Pure."""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from meterway.adapter.config import AdapterConfig, MeterConfig
from meterway.adapter.doctor.hide.pseudonyms import Pseudonyms
from meterway.adapter.redact import redact_sentence

_KEPT: Final = frozenset(("family", "timezone", "mapping", "property", "factor"))
"""Names of fields whose texts say nothing of anybody; nor do those that are one of some words."""
_DROPPED: Final = frozenset(
    (
        *("username", "password_file", "key_file", "authentication_key_file", "token_file", "headers_file", "ca_file"),
        *("certificate_file", "static", "environment"),
    )
)
"""Secrets, where they are, and what the owner wrote about the household."""
_KINDS: Final = {"host": "host", "topic": "topic", "url": "url", "command": "program"}
_SHORTEST: Final = 3
"""Shorter texts are replaced in tables only: in sentences they stand in other words."""
_PATH: Final = re.compile(r"(?<![\w.:/-])/[^\s,;:()'\"]+")
_ADDRESS: Final = re.compile(
    r"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b(?!\*)|\b(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\b|\[[0-9a-fA-F:]+\]"
)
_URL_SCHEMES: Final = ("mqtt", "mqtts", "http", "https")

Struct = TypeVar("Struct", bound=msgspec.Struct)


class Names:
    """Gives everything private a name of its kind and a number."""

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self._pseudonyms = pseudonyms
        self._given: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._meters: set[str] = set()

    def hide_also(self, names: Iterable[str]) -> None:
        """Have sentences name none of these: how meters call themselves."""
        self._meters.update(names)

    @property
    def private(self) -> tuple[str, ...]:
        """What was given another name."""
        return tuple(self._given)

    def of(self, kind: str, value: str) -> str:
        """Return the name of ``value``: ``meter-1``."""
        if value not in self._given:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._given[value] = f"{kind}-{self._counts[kind]}"
        return self._given[value]

    def adapter(self, config: AdapterConfig) -> AdapterConfig:
        """Return a configuration without secrets, addresses and ids, which can be read as one again."""
        self.of("adapter", config.id)
        for meter in config.meters:
            self.of("meter", meter.id)
        return self._table(config)

    def meter(self, config: MeterConfig) -> MeterConfig:
        """Return the same for one meter's table."""
        self.of("meter", config.id)
        return self._table(config)

    def sentence(self, text: str) -> str:
        """Return a sentence in which nobody is named: nor by path, network address or serial number."""
        for value in sorted(self._given, key=len, reverse=True):
            if len(value) >= _SHORTEST:
                pattern = rf"(?<![\w-]){re.escape(value)}(?![\w-])"
                text = re.sub(pattern, self._given[value], text)
        for name in sorted(self._meters, key=len, reverse=True):
            text = text.replace(name, "x" * len(name))
        return redact_sentence(_ADDRESS.sub("(address)", _PATH.sub("(path)", text)))

    def _table(self, table: Struct) -> Struct:
        kind = "adapter" if isinstance(table, AdapterConfig) else "meter"
        changed: dict[str, object] = {}
        for field in msgspec.structs.fields(table):
            if field.name in _DROPPED:
                changed[field.name] = _default(field)
            elif field.name not in _KEPT and not _is_choice(type(table), field.name):
                changed[field.name] = self._value(field.name, getattr(table, field.name), kind)
        return msgspec.structs.replace(table, **changed)

    def _value(self, name: str, value: object, kind: str) -> object:  # noqa: PLR0911 - one line a kind
        match value:
            case msgspec.Struct():
                return self._table(value)
            case tuple() if name == "command":
                return (self.of("program", str(value[0])),)
            case tuple():
                return tuple(self._value(name, each, kind) for each in value)
            case Path():
                return Path(self.of("path", str(value)))
            case "":
                return value
            case str() if name == "url":
                scheme = value.partition(":")[0]
                return f"{scheme if scheme in _URL_SCHEMES else 'http'}://{self.of('url', value)}"
            case str() if name == "address":
                return self._given.setdefault(value, self._pseudonyms.text(value.encode()).decode())
            case str():
                return self.of(kind if name == "id" else _KINDS.get(name, "text"), value)
            case _:
                return value


@cache
def _is_choice(table: type[msgspec.Struct], name: str) -> bool:
    """Return whether a field is one of some words, as its type says."""
    info = msgspec.inspect.type_info(table)
    assert isinstance(info, msgspec.inspect.StructType)  # noqa: S101 - a Struct's info is one
    kind = next(field.type for field in info.fields if field.name == name)
    kinds = kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)
    return any(isinstance(each, msgspec.inspect.LiteralType) for each in kinds)


def _default(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default
