"""Reading a component's configuration: TOML text into one frozen Struct, with errors that name the way out."""

import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from meterway.core.errors import SetupError

Config = TypeVar("Config")


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A TOML table; a key that is not listed is an error. Each field's docstring is its manual (docs/config.md).

    What ``__post_init__`` refuses with a BadDataError becomes a SetupError that names file and place.
    """


_UNKNOWN = re.compile(r"unknown field `(?P<name>[^`]*)`")


def load_config(text: str, kind: type[Config], *, where: str) -> Config:
    """Return the configuration in ``text``; ``where`` names the file in errors.

    Raises:
        SetupError: not TOML; a key that does not exist (with the nearest one that does); a value out of range.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SetupError(f"{where}: not TOML: {error}") from error
    return convert_config(table, kind, where=where)


def convert_config(table: object, kind: type[Config], *, where: str) -> Config:
    """Return the configuration in an already parsed table.

    Raises:
        SetupError: as ``load_config``.
    """
    try:
        return msgspec.convert(table, kind, dec_hook=decode_path)
    except msgspec.ValidationError as error:
        raise SetupError(f"{where}: {error}{_suggestion(str(error), kind)}") from error


def dump_config(config: msgspec.Struct) -> str:
    """Return the TOML text that ``load_config`` reads as ``config`` again; what is left out is the default."""
    text: str = msgspec.toml.encode(_without_none(msgspec.to_builtins(config, enc_hook=str))).decode()
    return text


def _without_none(value: object) -> object:
    """Drop absent values: TOML has no null."""
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_without_none(inner) for inner in value]
    return value


def decode_path(kind: type[Any], value: object) -> object:
    """Be the ``dec_hook`` of ``msgspec.convert`` for Structs with paths."""
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    raise ValueError(f"Expected the path of a file or folder, got {value!r}")


def _suggestion(message: str, kind: type[Any]) -> str:
    found = _UNKNOWN.search(message)
    if not found:
        return ""
    known = _known_names(kind, set())
    if found["name"] in known:
        return "; it stands in another table, see docs/config.md"
    near = get_close_matches(found["name"], sorted(known), n=1, cutoff=0.5)
    return f"; did you mean `{near[0]}`?" if near else "; see docs/config.md for the keys there are"


def _known_names(kind: object, seen: set[object]) -> set[str]:
    """Return all field names in ``kind`` and in the Structs it contains."""
    names: set[str] = set()
    pending = [msgspec.inspect.type_info(kind)]
    while pending:
        info = pending.pop()
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in seen:
                continue
            seen.add(info.cls)
            for field in info.fields:
                names.add(field.encode_name)
                pending.append(field.type)
        for attribute in ("types", "item_types"):
            pending.extend(getattr(info, attribute, ()))
        pending.extend(filter(None, (getattr(info, name, None) for name in ("item_type", "value_type"))))
    return names
