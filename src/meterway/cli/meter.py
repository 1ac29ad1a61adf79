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

    Those in /etc/meterway/families and of installed packages are listed too; one of the same name comes before
    Meterway's own.
    """
    from meterway.meter.family import family_names
    from meterway.plugins import family_folders, find_family

    for family in (find_family(name) for name in family_names(family_folders())):
        if as_json:
            described = {"name": family.name, "protocol": family.protocol, "title": family.title}
            print_json({**described, "asked": family.is_asked})
        else:
            asked = "  (must be asked: `meterway decode` only, in this release)" if family.is_asked else ""
            click.echo(f"{family.name:28} {family.protocol:12} {family.title}{asked}")
