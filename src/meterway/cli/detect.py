"""``meterway detect``: what is plugged in here, and the configuration that reads it."""

import asyncio
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import click

from meterway.cli.output import json_option, plain, print_json, quietly
from meterway.core.errors import BadDataError, SetupError
from meterway.core.zones import find_zone

if TYPE_CHECKING:
    from meterway.adapter.config import AdapterConfig, Source
    from meterway.adapter.detect import Detection, Found
    from meterway.core.reading import MeterReading

_PORTS = ("serial/by-id/*", "ttyUSB*", "ttyACM*", "ttyAMA*", "serial[0-9]")
"""Below /dev; the first pattern that finds something is taken."""
_LIMIT_SAID_METERS = 32


@click.command(short_help="Find out which meter is plugged in, and write its configuration.")
@click.argument("place", metavar="[PORT]", required=False)
@click.option(
    "--write",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the proposed adapter configuration to this new file.",
)
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A file with the meter's key as 32 hexadecimal digits; on a second line the authentication key, if known.",
)
@click.option(
    "--listen",
    "listen_s",
    type=click.FloatRange(1, 600),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to listen at each line setting; 12 for a meter that sends every 10 s.",
)
@click.option("--ask/--no-ask", default=True, show_default=True, help="Also ask, where nothing is heard.")
@click.option("--list", "list_only", is_flag=True, help="Only list the ports, and leave.")
@json_option
def detect(
    place: str | None,
    *,
    target: Path | None,
    key_file: Path | None,
    listen_s: float,
    ask: bool,
    list_only: bool,
    as_json: bool,
) -> None:
    """Find out which meter is plugged in, and propose the configuration that reads it.

    PORT is a serial port, HOST:PORT of a gateway, or rfc2217://HOST:PORT; left out: the serial port that is plugged
    in. First it listens, at 9600 8N1, 9600 7E1, 115200 8N1 and 2400 8E1; where nothing is heard it asks. What it does
    it says on standard error; what it found on standard output. Nothing at the meter is changed. Exit code 1 if no
    meter was found.

    \b
    Examples:
      meterway detect
      meterway detect /dev/ttyUSB0 --write adapter.toml
      meterway detect 192.168.1.20:2001 --key-file my-meter.key --listen 12
    """
    ports = [str(port) for port in _ports()]
    if list_only:
        _list(ports, as_json=as_json)
        return
    source = _source(place or _only(ports))
    if target is not None and target.exists():
        raise SetupError(f"{target} exists already; name a new file, then move its [[meters]] tables over")
    with quietly():
        detection = asyncio.run(_detect(source, key_file, listen_s, ask=ask))
    config = _propose(source, detection, key_file)
    if as_json:
        print_json(_as_json(detection, config))
    else:
        _show(detection, config)
    if config is not None and target is not None:
        _write(target, config)
    sys.exit(0 if detection.found else 1)


def _ports() -> Iterator[Path]:
    for pattern in _PORTS:
        if found := sorted(Path("/dev").glob(pattern)):
            yield from found
            return


def _list(ports: list[str], *, as_json: bool) -> None:
    if as_json:
        print_json({"ports": ports})
        return
    for port in ports:
        click.echo(port)
    if not ports:
        click.echo("no serial port is plugged in", err=True)


def _only(ports: list[str]) -> str:
    if len(ports) == 1:
        return ports[0]
    if not ports:
        raise SetupError(
            "no serial port is plugged in; plug the reading head in, or name a port: meterway detect /dev/ttyUSB0, or "
            "HOST:PORT of a gateway"
        )
    raise SetupError(f"there are several serial ports; name one of {', '.join(ports)}")


def _source(place: str) -> "Source":
    from meterway.adapter.config import Rfc2217Source, SerialSource, TcpSource

    if place.startswith("/"):
        return SerialSource(port=_lasting(Path(place)))
    parts = urlsplit(place if "://" in place else f"tcp://{place}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme not in ("tcp", "rfc2217") or parts.path:
        raise SetupError(f"{place!r} is no place to look at; name /dev/ttyUSB0, HOST:PORT or rfc2217://HOST:PORT")
    return TcpSource(host=host, port=port) if parts.scheme == "tcp" else Rfc2217Source(host=host, port=port)


def _lasting(port: Path) -> Path:
    """Return the name of the port that stays when cables are plugged in another order."""
    for name in sorted(Path("/dev/serial/by-id").glob("*")):
        if name.resolve() == port.resolve():
            return name
    return port


async def _detect(source: "Source", key_file: Path | None, listen_s: float, *, ask: bool) -> "Detection":
    from meterway.adapter.detect import Detector
    from meterway.adapter.detect_questions import questions
    from meterway.meter.family import family_names
    from meterway.meter.keys import load_keys
    from meterway.plugins import family_folders, find_family

    families = [find_family(name) for name in family_names(family_folders())]
    detector = Detector(
        source,
        [family for family in families if not family.is_asked and family.json is None],
        keys=load_keys(key_file),
        listen_s=listen_s,
        say=lambda step: click.echo(f"  {step} ...", err=True),
    )
    if not await detector.listen() and ask:
        await detector.ask(questions(families, _local_zone()))
    return detector.result


def _local_zone() -> ZoneInfo:
    """Return this machine's time zone; UTC if it does not tell."""
    _, _, name = str(Path("/etc/localtime").resolve()).partition("zoneinfo/")
    try:
        return find_zone(name)
    except BadDataError:
        return find_zone("UTC")


def _propose(source: "Source", detection: "Detection", key_file: Path | None) -> "AdapterConfig | None":
    from meterway.adapter.propose import propose

    if not detection.found:
        return None
    name = re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:40] or "home"
    return propose(source, detection.found, adapter_id=f"adapter-{name}", key_file=key_file)


def _write(target: Path, config: "AdapterConfig") -> None:
    from meterway.core.config import dump_config

    try:
        with target.open("x") as file:
            file.write(dump_config(config))
    except OSError as error:
        raise SetupError(f"{target} cannot be written: {error.strerror}") from error
    click.echo(f"written to {target}; next: meterway adapter --config {target}", err=True)


def _as_json(detection: "Detection", config: "AdapterConfig | None") -> dict[str, Any]:
    from meterway.core.config import dump_config

    return {
        "found": [
            {
                "protocol": found.candidate.family.protocol,
                "family": found.candidate.family.name,
                "title": found.candidate.family.title,
                "otherFamilies": found.others,
                "meter": found.meter,
                "address": found.address,
                "line": found.line,
                "values": [
                    {
                        "propertyId": value.property_id,
                        "value": value.text_value if value.numerical_value is None else value.numerical_value,
                        "unit": value.unit,
                    }
                    for reading in found.candidate.readings
                    for value in reading.property_values
                ],
                "unmapped": found.candidate.unmapped,
            }
            for found in detection.found
        ],
        "attempts": [{"what": attempt.what, "outcome": attempt.outcome} for attempt in detection.attempts],
        "findings": [{"code": each.code, "detail": each.detail, "fix": each.fix} for each in detection.findings],
        "config": None if config is None else dump_config(config),
    }


def _show(detection: "Detection", config: "AdapterConfig | None") -> None:
    from meterway.core.config import dump_config

    for found in detection.found[:_LIMIT_SAID_METERS]:
        _show_meter(found)
    if len(detection.found) > _LIMIT_SAID_METERS:
        click.echo(f"... and {len(detection.found) - _LIMIT_SAID_METERS} more meters")
    if not detection.found:
        click.echo("No meter was found. What was tried:")
        for attempt in detection.attempts:
            click.echo(f"  {attempt.what}: {attempt.outcome}")
    for finding in detection.findings:
        click.secho(f"! {finding.detail}", fg="yellow")
        click.echo(f"  fix: {finding.fix}")
    if config is not None:
        click.echo("\nProposed configuration (adapter.toml):\n")
        click.echo(dump_config(config))


def _show_meter(found: "Found") -> None:
    from rich.console import Console
    from rich.table import Table

    family = found.candidate.family
    console = Console(markup=False, highlight=False)  # what a meter says is no markup of ours
    name = "".join(character if character.isprintable() else "." for character in found.meter) or "a meter"
    console.print(f"Found {name}: {family.title}", style="bold")
    line = found.line
    address = f", address {found.address}" if found.address else ""
    console.print(f"  {family.protocol} at {line.baud} {line.data_bits}{line.parity}{line.stop_bits}{address}")
    console.print(f"  family {family.name}" + (f"; as well: {', '.join(found.others[:5])}" if found.others else ""))
    table = Table(box=None, show_header=False, padding=(0, 2))
    for reading in found.candidate.readings:
        for property_id, value, unit in _rows(reading):
            table.add_row(property_id, value, unit)
    console.print(table)
    if found.candidate.unmapped:
        console.print(f"  without a property: {', '.join(found.candidate.unmapped)}")


def _rows(reading: "MeterReading") -> Iterator[tuple[str, str, str]]:
    for value in reading.property_values:
        text = value.text_value if value.numerical_value is None else plain(value.numerical_value)
        yield value.property_id, text or "", value.unit or ""
