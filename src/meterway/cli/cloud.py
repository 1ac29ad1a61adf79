"""``meterway cloud``: the cloud as a process; ``invite``, and ``backup`` and ``restore`` of its database."""

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meterway.cli.cloud_device import device
from meterway.cli.config import read_config
from meterway.cli.output import json_option, print_json, run_service, start_logging

if TYPE_CHECKING:
    from meterway.cloud.access.viewer import Role

_CONFIG = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The cloud's configuration, for its [database].",
)
_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.group(short_help="Store readings, answer queries, show the page.", invoke_without_command=True)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration (TOML); docs/config.md lists the keys. `meterway config check` tests it.",
)
@click.option("--verbose", is_flag=True, help="Log more, frames included (as hex, elided).")
@json_option
@click.pass_context
def cloud(context: click.Context, *, config_path: Path | None, verbose: bool, as_json: bool) -> None:
    """Take in concentrator/#, store it, answer queries and show the page.

    \b
    Examples:
      meterway cloud --config cloud.toml
      meterway cloud invite --config cloud.toml ada
      meterway cloud backup --config cloud.toml meterway.backup
    """
    if context.invoked_subcommand is not None:
        if config_path is not None or verbose or as_json:
            raise click.UsageError(f"options stand behind `cloud {context.invoked_subcommand}`, not before it", context)
        return
    if config_path is None:
        raise click.MissingParameter(ctx=context, param_hint="'--config'", param_type="option")
    from meterway.cloud.config import CloudConfig
    from meterway.cloud.service import run

    config = read_config(config_path, CloudConfig)
    run_service("cloud", lambda ready: run(config, ready=ready), as_json=as_json, verbose=verbose)


cloud.add_command(device)


@cloud.command(short_help="Write the database into one file, while the cloud runs.")
@_CONFIG
@_FILE
@json_option
def backup(config_path: Path, file: Path, *, as_json: bool) -> None:
    """Write the database into FILE, which only you may read; the cloud may run meanwhile, or not.

    FILE holds what was stored when the backup began. It does not hold the broker's data, spools of edges,
    configurations, passwords and keys: edges keep what was not stored and send it again.

    \b
    Example:
      meterway cloud backup --config cloud.toml "meterway-$(date -I).backup"
    """
    from meterway.cloud.backup import NOT_IN_IT, back_up, reachable
    from meterway.cloud.config import CloudConfig

    start_logging(level=logging.WARNING)  # an answer, not what a database says that is started for it
    config = read_config(config_path, CloudConfig)

    async def work() -> None:
        async with reachable(config.database) as dsn:
            await back_up(dsn, file, progress=_tell)

    asyncio.run(work())
    size_bytes = file.stat().st_size
    if as_json:
        print_json({"file": str(file), "sizeBytes": size_bytes})
    else:
        click.echo(f"{file}: {size_bytes / 1e6:.1f} MB; not in it: {NOT_IN_IT}")


@cloud.command(short_help="Put a backup into an empty database.")
@_CONFIG
@click.option("--replace", is_flag=True, help="Remove what is in the database. The cloud must be stopped.")
@_FILE
@json_option
def restore(config_path: Path, file: Path, *, replace: bool, as_json: bool) -> None:
    """Put what FILE holds into the database, whole or not at all, and bring its tables up to date.

    An embedded database is made if it is not there. Refuses a database that is not empty, without --replace; one that
    is in use; and a backup of a newer Meterway or PostgreSQL.

    \b
    Example:
      meterway cloud restore --config cloud.toml meterway-2026-11-23.backup
    """
    from meterway.cloud.backup import Content, reachable
    from meterway.cloud.backup import restore as put_back
    from meterway.cloud.config import CloudConfig

    start_logging(level=logging.WARNING)
    config = read_config(config_path, CloudConfig)

    async def work() -> Content:
        async with reachable(config.database, create=True) as dsn:
            return await put_back(dsn, file, replace=replace, progress=_tell)

    content = asyncio.run(work())
    if as_json:
        print_json({"file": str(file), "meters": content.meters, "readings": content.readings})
    else:
        click.echo(f"restored {content.meters} meters, {content.readings} readings; now start the cloud")


@cloud.command(short_help="Print a one-time link for an account; makes the account if need be.")
@_CONFIG
@click.option(
    "--role",
    type=click.Choice(["operator", "auditor", "member", "researcher"]),
    default="operator",
    show_default=True,
    help="Of an account that is new.",
)
@click.option("--tenant", "tenant_id", help="Of an account that is new.  [default: all; of a member the first]")
@click.argument("login")
@json_option
def invite(config_path: Path, role: "Role", tenant_id: str | None, login: str, *, as_json: bool) -> None:
    """Print a link with which LOGIN sets name and password, once and within a day; also for a forgotten password.

    \b
    Examples:
      meterway cloud invite --config cloud.toml ada
      meterway cloud invite --config cloud.toml --role member --tenant north ben@example.org
    """
    from meterway.cloud.config import CloudConfig
    from meterway.cloud.invite import invited

    start_logging(level=logging.WARNING)
    config = read_config(config_path, CloudConfig)
    link = asyncio.run(invited(config, login, role, tenant_id))
    if as_json:
        print_json({"login": login, "link": link})
    else:
        click.echo(link)


def _tell(line: str) -> None:
    click.echo(line, err=True)
