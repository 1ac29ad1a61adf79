"""``meterway adapter | concentrator | edge enroll``: a one-time code becomes the credentials of this device."""

import os
from pathlib import Path
from typing import Final

import click

from meterway.cli.enroll_files import Credentials, check_room, write
from meterway.cli.output import json_option, print_json
from meterway.core.enrolment import EnrolmentCode, Kind
from meterway.core.errors import BadDataError

_TABLES: Final = {"adapter": "broker", "concentrator": "cloud", "edge": "concentrator.cloud"}
_COLLECTS: Final = "local"
"""The table, too, of a concentrator whose adapters publish on the cloud's broker."""


def enroll_command(component: str) -> click.Command:
    """Return the command ``enroll`` of an ``adapter``, a ``concentrator`` or an ``edge``."""
    kind: Kind = "adapter" if component == "adapter" else "concentrator"

    @click.command("enroll", short_help="Get this device's credentials with a one-time code.", help=_help(component))
    @click.argument("url")
    @click.argument("code")
    @click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help=f"The {component}'s configuration, which gets the table; the files are written beside it.",
    )
    @click.option("--replace", is_flag=True, help="Overwrite the credentials and the table of before.")
    @json_option
    def enroll(url: str, code: str, config_path: Path | None, *, replace: bool, as_json: bool) -> None:
        from meterway.cli.enroll_client import enrol

        try:
            parsed = EnrolmentCode.parse(code)
        except BadDataError as error:
            raise click.BadParameter(str(error), param_hint="CODE") from error
        table = _TABLES[component]
        check_room(config_path, table, replace=replace)
        answer = enrol(url, parsed, kind)
        collects = answer.collects and component == "concentrator"
        written = write(answer, url, config_path, (table, _COLLECTS) if collects else (table,))
        _tell(written, component, as_json=as_json)

    return enroll


def _tell(written: Credentials, component: str, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "username": written.username,
                "passwordFile": str(written.password_file),
                "caFile": str(written.ca_file) if written.ca_file else None,
                "config": str(written.config) if written.config else None,
                "table": written.table,
                "notes": list(written.notes),
            }
        )
        return
    click.echo(f"enrolled as {written.username}; the password is in {os.path.relpath(written.password_file)}")
    if written.config is not None:
        click.echo(f"{written.config} is complete: meterway {component} --config {written.config}")
    else:
        click.echo(f"put this into the {component}'s configuration:\n\n{written.table}")
    for note in written.notes:
        click.echo(f"note: {note}", err=True)


def _help(component: str) -> str:
    return f"""Get this device's credentials for the broker with a one-time CODE.

    An operator of the cloud at URL makes the CODE, on its devices page or with `meterway cloud device add`. It is good
    once, for fifteen minutes. The CODE pins the cloud's certificate authority: nothing is sent to anybody else.

    The password is written to a file that only you may read. Enrolled again, a device gets a new password, and the one
    of before ends at once.

    \b
    Example:
      meterway {component} enroll https://cloud.example DGCSP-F5RCM-... --config {component}.toml
    """
