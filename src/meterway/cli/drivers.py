"""``meterway drivers``: which meters can be read, and how."""

import shutil
from typing import TYPE_CHECKING, Any

import click

from meterway.cli.output import json_option, print_json

if TYPE_CHECKING:
    from meterway.meter.family import Family

TESTED = {"sample": "a telegram of our own making", "captures": "captures of real meters"}
_NEEDS = {("pin",): "PIN", ("encryption-key",): "key", ("encryption-key", "authentication-key"): "two keys"}
_WIDEST = 100
_INDENT = "  "
_MINUTE_S = 60
_HOUR_S = 3600


@click.command(short_help="List the meters that can be read, and how each is connected.")
@click.argument("name", required=False)
@click.option("--protocol", help="Only families of this protocol.")
@json_option
def drivers(name: str | None, *, protocol: str | None, as_json: bool) -> None:
    """List the families of meters that `family = ...` in an adapter's configuration may name.

    With the NAME of a family: what to order, how to connect it, how to get its key or PIN. With any other word, a
    maker, type or country: the families whose name or title holds it. Families in /etc/meterway/families and of
    installed packages are listed too; one of the same name comes before Meterway's own.

    \b
    Examples:
      meterway drivers
      meterway drivers kamstrup
      meterway drivers --protocol sml
      meterway drivers dlms-kaifa-austria
    """
    from meterway.meter.family import family_names
    from meterway.plugins import family_folders, find_family, load_driver

    names = family_names(family_folders())
    if name in names:
        _tell(find_family(name), as_json=as_json)
        return
    found = [family for family in map(find_family, names) if protocol in (None, family.protocol)]
    if protocol is not None and not found:
        load_driver(protocol)  # says which there are
    if name is not None:
        word = name.casefold()
        found = [family for family in found if word in f"{family.name} {family.title}".casefold()]
        if not found:
            find_family(name)  # says which is the nearest
    if not as_json:
        _list(found)
        return
    for family in found:
        print_json(_described(family))


def every(interval_s: float) -> str:
    """Return how often, for people: ``every 15 minutes``."""
    for unit_s, unit in ((_HOUR_S, "hour"), (_MINUTE_S, "minute"), (1, "second")):
        count = interval_s / unit_s
        if count >= 1 and count == int(count):
            return f"every {unit}" if count == 1 else f"every {count:g} {unit}s"
    return f"every {interval_s:g} seconds"


def needs(family: "Family") -> str:
    """Return what the owner must get from the operator; empty if nothing."""
    return _NEEDS.get(family.secrets, ", ".join(family.secrets))


def serial_line(family: "Family") -> str:
    """Return how its serial line is set, ``9600 8N1``; empty for a meter that has none."""
    in_network = (family.modbus and family.modbus.framing == "tcp") or (
        family.dlms_ask and family.dlms_ask.transport == "wrapper"
    )
    if family.protocol == "json" or in_network:
        return ""
    line = family.line
    return f"{line.baud} {line.data_bits}{line.parity}{line.stop_bits}"


def protocol_title(protocol: str) -> str:
    """Return what its driver calls the protocol; a family may be there without a driver."""
    from meterway.core.errors import SetupError
    from meterway.plugins import load_driver

    try:
        return load_driver(protocol).title
    except SetupError:
        return "no driver for it is installed"


def _list(families: "list[Family]") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    widest = max(len(family.name) for family in families)
    for protocol in sorted({family.protocol for family in families}):
        table = Table(box=None, pad_edge=False, title_justify="left", header_style="dim", title_style="bold")
        table.title = f"{protocol}: {protocol_title(protocol)}"
        table.add_column("family", no_wrap=True, min_width=widest)
        for heading in ("meters", "needs", "tested with"):
            table.add_column(heading)
        for family in families:
            if family.protocol == protocol:
                tested = "captures" if family.tested == "captures" else "own telegram"
                table.add_row(family.name, family.title, needs(family), tested)
        console.print(table)
        console.print()
    counted = "1 family" if len(families) == 1 else f"{len(families)} families"
    console.print(f"{counted}; what to order and how to connect it: meterway drivers {families[0].name}")


def _described(family: "Family") -> dict[str, Any]:
    guide = family.guide
    return {
        "name": family.name,
        "protocol": family.protocol,
        "title": family.title,
        "asked": family.is_asked,
        "intervalS": family.interval_s,
        "timezone": family.timezone,
        "line": family.line,
        "secrets": family.secrets,
        "tested": family.tested,
        "guide": None
        if guide is None
        else {"order": guide.order, "connect": guide.connect, "unlock": guide.unlock, "notes": guide.notes},
    }


def _tell(family: "Family", *, as_json: bool) -> None:
    if as_json:
        print_json(_described(family))
        return
    line = serial_line(family)
    facts = (
        ("Protocol", protocol_title(family.protocol)),
        ("Readings", f"{'asked' if family.is_asked else 'sent by itself'}, {every(family.interval_s)}"),
        ("Serial line", line),
        ("Needs", needs(family)),
        ("Clock", family.timezone),
        ("Tested with", TESTED[family.tested]),
    )
    click.secho(family.title, bold=True)
    click.echo()
    for title, text in facts:
        if text:
            click.echo(f"{_INDENT}{title:13}{text}")
    width = min(_WIDEST, shutil.get_terminal_size().columns)
    for heading, text in family.guide.sections() if family.guide else ():
        click.echo()
        click.secho(heading, bold=True)
        click.echo(click.wrap_text(text, width, _INDENT, _INDENT))
    click.echo(f'\nIn the configuration: family = "{family.name}"')
    click.echo("`meterway detect` finds the meter, and writes all of it.")
