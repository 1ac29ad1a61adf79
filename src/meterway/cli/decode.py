"""``meterway decode``: captured bytes become readings on screen."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click
import msgspec

from meterway.cli.output import ZoneType, json_option, plain, print_json
from meterway.core.errors import SetupError
from meterway.core.properties import Medium, catalogue
from meterway.core.zones import find_zone
from meterway.meter.codec import CodecError, Decoder
from meterway.meter.driver import MeterSetup
from meterway.meter.family import push_lists
from meterway.meter.keys import load_keys
from meterway.meter.recognise import recognise
from meterway.meter.telegram import Register, Telegram, channel_media
from meterway.plugins import find_family, make_decoder, protocols

_LIMIT_BYTES = 64 << 20
_ZONE = "Europe/Amsterdam"
_ALIKE = {"dlms": "p1-encrypted", "p1-encrypted": "dlms"}
"""Protocols whose ciphertext looks the same where nothing frames it: which one it is shows when it is decrypted."""


@click.command()
@click.argument("files", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), nargs=-1, required=True)
@click.option(
    "--protocol",
    type=click.Choice(protocols()),
    metavar="NAME",
    help=f"What the bytes speak; recognised when left out: {', '.join(protocols())}.",
)
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file with the meter's key as 32 hexadecimal digits; on a second line the authentication key, if known.",
)
@click.option("--family", "family_name", help="A name of `meterway drivers`: protocol, zone, quirks, lists.")
@click.option(
    "--timezone",
    "zone",
    type=ZoneType(),
    help=f"IANA zone of the meter's clock.  [default: the family's, else {_ZONE}]",
)
@json_option
def decode(
    files: tuple[Path, ...],
    *,
    protocol: str | None,
    key_file: Path | None,
    family_name: str | None,
    zone: ZoneInfo | None,
    as_json: bool,
) -> None:
    """Turn captured telegrams into readings on screen.

    FILES hold the bytes exactly as a meter sent them; - reads standard input. With --json each file becomes one
    line: an object with "readings" and "errors". Exit code 1 if a file had no reading.

    \b
    Examples:
      meterway decode telegram.bin
      meterway decode --key-file my-meter.key --family dlms-kaifa-austria push.bin
      meterway decode --json captures/*.bin | jq '.readings[0]'
      socat -u /dev/ttyUSB0,b115200,raw - | head -c 4000 | meterway decode -
    """
    keys = load_keys(key_file)
    family = None if family_name is None else find_family(family_name)
    zone = zone or find_zone(family.timezone if family else _ZONE)
    if family is not None:
        protocol = protocol or family.protocol

    def decoder_of(name: str) -> Decoder:
        if family is None:
            lists = push_lists() if name == "dlms" else ()
            return make_decoder(MeterSetup.unknown(name, zone, keys=keys, lists=lists))
        named = msgspec.structs.replace(family, protocol=name)
        return make_decoder(MeterSetup(family=named, zone=zone, keys=keys))

    whole = [_decode_file(path, protocol, decoder_of, as_json=as_json) for path in files]
    sys.exit(0 if all(whole) else 1)


def _read(path: Path) -> bytes:
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(_LIMIT_BYTES)
        with path.open("rb") as file:
            return file.read(_LIMIT_BYTES)
    except OSError as error:
        raise SetupError(f"{path}: cannot be read: {error.strerror}") from error


def _decode_file(path: Path, protocol: str | None, decoder_of: Callable[[str], Decoder], *, as_json: bool) -> bool:
    data = _read(path)
    recognised = recognise(data) if protocol is None else None
    if protocol is None:
        if recognised is None:
            return _nothing(path, f"no known protocol in these {len(data)} bytes", as_json=as_json)
        protocol = recognised.protocol
        if protocol not in protocols():
            reason = f"{recognised.sign} was found; this release does not decode {protocol}"
            return _nothing(path, reason, as_json=as_json)
    decoder, items = _decoded(data, decoder_of(protocol))
    telegrams = [item for item in items if isinstance(item, Telegram)]
    if recognised is not None and not telegrams and protocol in _ALIKE:
        other, others = _decoded(data, decoder_of(_ALIKE[protocol]))
        if telegrams := [item for item in others if isinstance(item, Telegram)]:
            protocol, decoder, items = _ALIKE[protocol], other, others
    errors = [item for item in items if isinstance(item, CodecError)]
    if not items:
        message = f"no whole {protocol} telegram in these {len(data)} bytes"
        errors = [CodecError(message, reason="no-telegram", data=data)]
    if as_json:
        print_json(
            {
                "file": str(path),
                "protocol": protocol,
                "readings": [_reading(telegram) for telegram in telegrams],
                "errors": [
                    {"reason": error.reason, "message": str(error), "sizeBytes": len(error.data)} for error in errors
                ],
                "skippedBytes": decoder.skipped_bytes,
            }
        )
    else:
        _show(path, protocol, telegrams, errors, decoder.skipped_bytes)
    return bool(telegrams)


def _decoded(data: bytes, decoder: Decoder) -> tuple[Decoder, list[Telegram | CodecError]]:
    return decoder, [*decoder.feed(data, 0.0), *decoder.idle(1.0)]


def _nothing(path: Path, reason: str, *, as_json: bool) -> bool:
    message = f"{reason}. Known: {', '.join(protocols())}; name one with --protocol"
    if as_json:
        error = {"reason": "unknown-protocol", "message": message, "sizeBytes": 0}
        print_json({"file": str(path), "protocol": None, "readings": [], "errors": [error]})
    else:
        click.echo(f"{path}: {message}", err=True)
    return False


def _reading(telegram: Telegram) -> dict[str, Any]:
    media = channel_media(telegram.registers)
    return {
        "readingTime": telegram.time,
        "meter": telegram.meter,
        "checksum": telegram.checked,
        "verified": telegram.verified,
        "propertyValues": [_value(register, media) for register in telegram.registers],
    }


def _property_id(register: Register, media: dict[int, Medium]) -> str | None:
    found = catalogue().for_obis(register.obis, media.get(register.obis.b, Medium.ELECTRICITY))
    return found.property_id if found else None


def _value(register: Register, media: dict[int, Medium]) -> dict[str, Any]:
    value: dict[str, Any] = {"obis": str(register.obis), "propertyId": _property_id(register, media)}
    if isinstance(register.value, str):
        value["textValue"] = register.value
    else:
        value["numericalValue"] = register.value
    if register.unit is not None:
        value["unit"] = register.unit
    if register.time is not None:
        value["date"] = register.time
    return value


def _show(path: Path, protocol: str, telegrams: list[Telegram], errors: list[CodecError], skipped_bytes: int) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)  # what a meter says is no markup of ours
    for telegram in telegrams:
        when = telegram.time.isoformat() if telegram.time else "no clock"
        note = ("" if telegram.checked else "  (no checksum)") + ("" if telegram.verified else "  (unverified)")
        table = Table(title=f"{_shown(telegram.meter) or 'meter'}  {when}{note}", title_justify="left", box=None)
        table.add_column("OBIS")
        table.add_column("value", justify="right")
        table.add_column("unit")
        table.add_column("property")
        table.add_column("of its own time", overflow="fold")
        media = channel_media(telegram.registers)
        for register in telegram.registers:
            value = _shown(register.value) if isinstance(register.value, str) else plain(register.value)
            own_time = register.time.isoformat() if register.time and register.time != telegram.time else ""
            property_id = _property_id(register, media) or "-"
            table.add_row(str(register.obis), value, register.unit or "", property_id, own_time)
        console.print(table)
    for error in errors:
        console.print("rejected", style="red", end=" ")
        console.print(f"{len(error.data)} bytes, {error.reason}: {_shown(str(error))}")
    console.print(
        f"{path}: {protocol}, {len(telegrams)} reading(s), {len(errors)} rejected, {skipped_bytes} other bytes"
    )


def _shown(text: str) -> str:
    """Return a text from outside without the characters that would command a terminal."""
    return "".join(character if character.isprintable() else "\N{MIDDLE DOT}" for character in text)
