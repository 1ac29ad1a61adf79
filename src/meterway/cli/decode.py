"""``meterway decode``: captured bytes become readings on screen."""

import sys
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click

from meterway.cli.output import ZoneType, json_option, plain, print_json
from meterway.core.errors import SetupError
from meterway.core.properties import Medium, catalogue
from meterway.meter.codec import CodecError
from meterway.meter.recognise import PROTOCOLS, make_decoder, recognise
from meterway.meter.telegram import Register, Telegram, channel_media

_LIMIT_BYTES = 64 << 20


@click.command()
@click.argument("files", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), nargs=-1, required=True)
@click.option("--protocol", type=click.Choice(PROTOCOLS), help="What the bytes speak; recognised when left out.")
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file with the meter's key, for encrypted data.",
)
@click.option(
    "--timezone",
    "zone",
    type=ZoneType(),
    default="Europe/Amsterdam",
    show_default=True,
    help="IANA zone of the meter's clock.",
)
@json_option
def decode(
    files: tuple[Path, ...], *, protocol: str | None, key_file: Path | None, zone: ZoneInfo, as_json: bool
) -> None:
    """Turn captured telegrams into readings on screen.

    FILES hold the bytes exactly as a meter sent them; - reads standard input. With --json each file becomes one
    line: an object with "readings" and "errors". Exit code 1 if a file had no reading.

    \b
    Examples:
      meterway decode telegram.bin
      meterway decode --json captures/*.bin | jq '.readings[0]'
      socat -u /dev/ttyUSB0,b115200,raw - | head -c 4000 | meterway decode -
    """
    if key_file is not None and not key_file.is_file():
        raise SetupError(f"--key-file {key_file}: no such file")
    whole = [_decode_file(path, protocol, zone, as_json=as_json) for path in files]
    sys.exit(0 if all(whole) else 1)


def _read(path: Path) -> bytes:
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(_LIMIT_BYTES)
        with path.open("rb") as file:
            return file.read(_LIMIT_BYTES)
    except OSError as error:
        raise SetupError(f"{path}: cannot be read: {error.strerror}") from error


def _decode_file(path: Path, protocol: str | None, zone: ZoneInfo, *, as_json: bool) -> bool:
    data = _read(path)
    if protocol is None:
        recognised = recognise(data)
        if recognised is None:
            return _nothing(path, f"no known protocol in these {len(data)} bytes", as_json=as_json)
        protocol = recognised.protocol
        if protocol not in PROTOCOLS:
            reason = f"{recognised.sign} was found; this release does not decode {protocol}"
            return _nothing(path, reason, as_json=as_json)
    decoder = make_decoder(protocol, zone)
    items = [*decoder.feed(data, 0.0), *decoder.idle(1.0)]
    telegrams = [item for item in items if isinstance(item, Telegram)]
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


def _nothing(path: Path, reason: str, *, as_json: bool) -> bool:
    message = f"{reason}. Known: {', '.join(PROTOCOLS)}; name one with --protocol"
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

    console = Console()
    for telegram in telegrams:
        when = telegram.time.isoformat() if telegram.time else "no clock"
        note = "" if telegram.checked else "  (no checksum)"
        table = Table(title=f"{telegram.meter or 'meter'}  {when}{note}", title_justify="left", box=None)
        table.add_column("OBIS")
        table.add_column("value", justify="right")
        table.add_column("unit")
        table.add_column("property")
        table.add_column("of its own time")
        media = channel_media(telegram.registers)
        for register in telegram.registers:
            value = register.value if isinstance(register.value, str) else plain(register.value)
            table.add_row(
                str(register.obis), value, register.unit or "", _property_id(register, media) or "[dim]-[/dim]"
            )
        console.print(table)
    for error in errors:
        console.print(f"[red]rejected[/red] {len(error.data)} bytes, {error.reason}: {error}", highlight=False)
    console.print(
        f"{path}: {protocol}, {len(telegrams)} reading(s), {len(errors)} rejected, {skipped_bytes} other bytes",
        highlight=False,
    )
