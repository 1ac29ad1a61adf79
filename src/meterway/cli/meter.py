"""``meterway meter``: what is known of meters, and meters that are not there."""

import click

from meterway.cli.output import json_option, print_json
from meterway.cli.virtual import virtual


@click.group()
def meter() -> None:
    """Virtual meters, and the families of real ones."""


meter.add_command(virtual)


@meter.command()
@json_option
def families(*, as_json: bool) -> None:
    """List the families of meters that `family = ...` in an adapter's configuration may name."""
    from meterway.meter.family import family_names, load_family

    for family in (load_family(name) for name in family_names()):
        if as_json:
            print_json({"name": family.name, "protocol": family.protocol, "title": family.title})
        else:
            click.echo(f"{family.name:20} {family.protocol:6} {family.title}")
