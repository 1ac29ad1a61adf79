"""What ``meterway detect`` found, for people and for programs."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from meterway.adapter.detect_plan import named
from meterway.adapter.detect_radio import PROTOCOL as RADIO
from meterway.adapter.links import describe
from meterway.cli.output import plain

if TYPE_CHECKING:
    from meterway.adapter.detect import Detection, Found
    from meterway.core.reading import MeterReading, PropertyValue

_COLUMNS = 80
_LIMIT_METERS = 32
_MOST_OTHERS = 5


def as_table(detections: "Sequence[Detection]", ended: str, config: str) -> dict[str, Any]:
    """Return all of it for ``--json``; ``config`` is TOML, empty where nothing was found."""
    return {
        "found": [_found(found) for detection in detections for found in detection.found],
        "attempts": [
            {"where": describe(detection.source), "what": attempt.what, "outcome": attempt.outcome}
            for detection in detections
            for attempt in detection.attempts
        ],
        "findings": [
            {"where": describe(detection.source), "code": each.code, "detail": each.detail, "fix": each.fix}
            for detection in detections
            for each in detection.findings
        ],
        "ended": ended,
        "config": config or None,
    }


def _found(found: "Found") -> dict[str, Any]:
    family = found.candidate.family
    return {
        "source": msgspec.to_builtins(found.source, enc_hook=str),
        "protocol": family.protocol,
        "family": family.name,
        "title": family.title,
        "otherFamilies": found.others,
        "meterClass": family.meter_class.value,
        "meter": found.meter,
        "address": found.address,
        "locked": found.is_locked,
        "needs": sorted(found.needs),
        "line": {name: getattr(found.line, name) for name in found.line.__struct_fields__} if found.has_line else None,
        "values": [
            {"propertyId": value.property_id, "value": _value(value), "unit": value.unit}
            for reading in found.candidate.readings
            for value in reading.property_values
        ],
        "unmapped": found.candidate.unmapped,
    }


def _value(value: "PropertyValue") -> object:
    return value.text_value if value.numerical_value is None else value.numerical_value


def show(detections: "Sequence[Detection]", config: str, *, is_written: bool) -> None:
    """Print it, 80 columns wide."""
    for detection in detections:
        _show_place(detection)
    if config and not is_written:
        click.echo("\nProposed configuration (--write FILE puts it into a file):\n")
        click.echo(config, nl=False)


def _show_place(detection: "Detection") -> None:
    where = describe(detection.source)
    radio = [found for found in detection.found if found.candidate.family.protocol == RADIO]
    others = [found for found in detection.found if found.candidate.family.protocol != RADIO]
    for found in others[:_LIMIT_METERS]:
        _show_meter(found, where)
    if radio:
        _show_radio(radio, where)
    if len(others) > _LIMIT_METERS:
        click.echo(f"... and {len(others) - _LIMIT_METERS} more meters")
    if not detection.found:
        click.secho(f"No meter was found at {where}.", bold=True)
        said = {finding.detail for finding in detection.findings}
        attempts = [attempt for attempt in detection.attempts if attempt.outcome not in said]
        if attempts:
            click.echo("What was tried:")
        for attempt in attempts:
            _say(f"{attempt.what}: {attempt.outcome}", "  - ")
    for finding in detection.findings:
        click.secho(_filled(finding.detail, "! "), fg="yellow")
        _say(f"fix: {finding.fix}", "  ")


def _show_meter(found: "Found", where: str) -> None:
    family = found.candidate.family
    click.secho(_filled(f"Found {_printable(found.meter) or 'a meter'} at {where}", ""), bold=True)
    address = f", address {_printable(found.address)}" if found.address else ""
    _say(f"{family.title}", "  ")
    line = f" at {named(found.line)}" if found.has_line else ""
    _say(f"{family.protocol}{line}{address}", "  ")
    more = ", ..." if len(found.others) > _MOST_OTHERS else ""
    others = f"; these fit as well: {', '.join(found.others[:_MOST_OTHERS])}{more}" if found.others else ""
    _say(f"family {family.name}{others}", "  ")
    if found.is_locked:
        _say("encrypted: its key is needed", "  ")
    for reading in found.candidate.readings:
        for row in _rows(reading):
            click.echo(row)
    if found.candidate.unmapped:
        _say(f"without a property: {', '.join(found.candidate.unmapped)}", "  ")


def _rows(reading: "MeterReading") -> Iterator[str]:
    for value in reading.property_values:
        text = _printable(value.text_value or "") if value.numerical_value is None else plain(value.numerical_value)
        yield f"    {value.property_id:<28} {text:>20} {value.unit or ''}".rstrip()[:_COLUMNS]


def _show_radio(meters: "Sequence[Found]", where: str) -> None:
    click.secho(f"Heard {len(meters)} radio meter{'s' * (len(meters) > 1)} at {where}", bold=True)
    click.echo(f"    {'number':<10}{'maker':<7}{'measures':<14}state")
    for found in meters[:_LIMIT_METERS]:
        name = _printable(found.meter)
        measures = found.candidate.family.meter_class.value.replace("_", " ").lower()
        row = f"    {name[-8:]:<10}{name[1:4]:<7}{measures:<14}{_state(found)}"
        click.echo(row[:_COLUMNS])
    if len(meters) > _LIMIT_METERS:
        click.echo(f"    ... and {len(meters) - _LIMIT_METERS} more; the configuration has them all")


def _state(found: "Found") -> str:
    if found.is_locked:
        return "encrypted: its key is needed"
    values = [value for reading in found.candidate.readings for value in reading.property_values]
    numbers = [value for value in values if value.numerical_value is not None and value.unit]
    said = f"{plain(numbers[0].numerical_value)} {numbers[0].unit}" if numbers else "read"
    return f"{said}{', encrypted' if found.needs else ''}"


def _printable(text: str) -> str:
    """Return text of a meter without what would move a terminal's cursor."""
    return "".join(character if character.isprintable() else "." for character in text)


def _say(text: str, indent: str) -> None:
    click.echo(_filled(text, indent))


def _filled(text: str, indent: str) -> str:
    return textwrap.fill(
        _printable(text),
        _COLUMNS,
        initial_indent=indent,
        subsequent_indent=" " * len(indent),
        break_long_words=False,
        break_on_hyphens=False,
    )
