"""``meterway drivers``: which meters can be read, and how."""

import sys
from typing import TYPE_CHECKING, Any

import click

from meterway.cli.output import json_option, print_json

if TYPE_CHECKING:
    from meterway.meter.family import Family

_TESTED = {"sample": "own telegram", "captures": "captures of real meters"}


@click.command(short_help="List the meters that can be read, and how each is connected.")
@click.argument("name", required=False)
@click.option("--protocol", help="Only families of this protocol.")
@json_option
def drivers(name: str | None, *, protocol: str | None, as_json: bool) -> None:
    """List the families of meters that `family = ...` in an adapter's configuration may name.

    With NAME, one family: what to order, how to connect it, how to get its key or PIN. Families in
    /etc/meterway/families and of installed packages are listed too; one of the same name comes before Meterway's own.
    "Tested" says with what: captures of real meters, or only a telegram of our own making.

    \b
    Examples:
      meterway drivers
      meterway drivers --protocol sml
      meterway drivers dlms-kaifa-austria
    """
    from meterway.plugins import find_family, load_driver

    if name is not None:
        family = find_family(name)
        _tell(family, as_json=as_json)
        return
    found = [family for family in _families() if protocol in (None, family.protocol)]
    if protocol is not None and not found:
        load_driver(protocol)  # says which there are
    for family in found:
        if as_json:
            print_json(_described(family))
    if not as_json:
        _list(found)
    sys.exit(0)


def _families() -> "list[Family]":
    from meterway.meter.family import family_names
    from meterway.plugins import family_folders, find_family

    return [find_family(name) for name in family_names(family_folders())]


def _list(families: "list[Family]") -> None:
    from rich.console import Console
    from rich.table import Table

    from meterway.plugins import load_driver

    console = Console(markup=False, highlight=False)
    for protocol in sorted({family.protocol for family in families}):
        own = [family for family in families if family.protocol == protocol]
        table = Table(box=None, pad_edge=False, title_justify="left", header_style="dim")
        table.title = f"{protocol}: {load_driver(protocol).title}"
        for heading in ("family", "meters", "", "needs", "tested with"):
            table.add_column(heading, overflow="fold")
        for family in own:
            table.add_row(family.name, family.title, _way(family), ", ".join(family.secrets), _TESTED[family.tested])
        console.print(table)
        console.print()
    console.print(f"{len(families)} families. One of them: meterway drivers {families[0].name if families else 'NAME'}")


def _way(family: "Family") -> str:
    return f"asked every {family.interval_s:g} s" if family.is_asked else f"sends every {family.interval_s:g} s"


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
    line = family.line
    click.secho(f"{family.name}: {family.title}", bold=True)
    click.echo(f"  {family.protocol}, {line.baud} {line.data_bits}{line.parity}{line.stop_bits}, {_way(family)}")
    click.echo(f"  its clock is that of {family.timezone}; tested with {_TESTED[family.tested]}")
    if family.guide is not None:
        for title, text in (
            ("What to order", family.guide.order),
            ("How to connect it", family.guide.connect),
            ("How to get its key or PIN", family.guide.unlock),
            ("Notes", family.guide.notes),
        ):
            if text:
                click.echo()
                click.secho(title, bold=True)
                click.echo(click.wrap_text(" ".join(text.split()), 100, "  ", "  "))
    click.echo(f'\nIn the configuration: family = "{family.name}"; or let `meterway detect` find it.')
