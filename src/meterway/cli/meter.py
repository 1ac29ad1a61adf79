"""``meterway meter``: what is known of meters, and meters that are not there."""

import click

from meterway.cli.output import json_option, print_json
from meterway.cli.virtual import virtual


@click.group(short_help="Virtual meters, and the families of real ones.")
def meter() -> None:
    """Virtual meters, and the families of real ones."""


meter.add_command(virtual)


@meter.command(short_help="List the families that a configuration may name.")
@json_option
def families(*, as_json: bool) -> None:
    """List the families of meters that `family = ...` in an adapter's configuration may name.

    Those in /etc/meterway/families are listed too; one of the same name comes before Meterway's own.
    """
    from meterway.adapter.service import FAMILY_FOLDERS
    from meterway.meter.family import family_names, load_family

    for family in (load_family(name, FAMILY_FOLDERS) for name in family_names(FAMILY_FOLDERS)):
        if as_json:
            print_json({"name": family.name, "protocol": family.protocol, "title": family.title})
        else:
            click.echo(f"{family.name:20} {family.protocol:6} {family.title}")
