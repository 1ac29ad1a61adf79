"""``meterway meter``: meters that are not there."""

import click

from meterway.cli.town import town
from meterway.cli.virtual import virtual


@click.group(short_help="Virtual meters.")
def meter() -> None:
    """Virtual meters.

    \b
    Examples:
      meterway meter virtual
      meterway meter town --households 5
    """


meter.add_command(virtual)
meter.add_command(town)
