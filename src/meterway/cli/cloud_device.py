"""``meterway cloud device``: devices straight in the database, for those who set up without a browser."""

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
import msgspec

from meterway.cli.config import read_config
from meterway.cli.output import json_option, print_json, start_logging

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from meterway.cloud.answers import Row
    from meterway.cloud.config import CloudConfig
    from meterway.cloud.devices.registry import Issued, Registry
    from meterway.cloud.query import Statement

Result = TypeVar("Result")

_CONFIG = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The cloud's configuration, for its [database] and [http].",
)
_KIND = click.argument("kind", type=click.Choice(("adapter", "concentrator")))
_ID = click.argument("device_id", metavar="ID")
_METERS = click.option("--meter", "meter_ids", multiple=True, metavar="METER", help="A meter it may publish for.")
_PAGE = 500


@click.group(short_help="Add, list and revoke adapters and concentrators.")
def device() -> None:
    """Say which adapters and concentrators may log in at the broker.

    Goes straight to the database: a cloud that runs hears of it at once.

    \b
    Examples:
      meterway cloud device add --config cloud.toml concentrator house-7
      meterway cloud device list --config cloud.toml
    """


@device.command(short_help="Add a device, and print its one-time code.")
@_CONFIG
@_KIND
@_ID
@_METERS
@click.option("--collects", is_flag=True, help="A concentrator that reads what every adapter publishes on this broker.")
@click.option("--tenant", help="Whose it is; left out: the first tenant's.")
@json_option
def add(
    config_path: Path,
    kind: str,
    device_id: str,
    meter_ids: tuple[str, ...],
    tenant: str | None,
    *,
    collects: bool,
    as_json: bool,
) -> None:
    """Add the device KIND ID, and print the code with which it enrols: good once, for fifteen minutes.

    An edge is a concentrator. Its meters become its tenant's.

    \b
    Examples:
      meterway cloud device add --config cloud.toml concentrator house-7
      meterway cloud device add --config cloud.toml adapter cellar --meter bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff
    """
    from meterway.cloud.devices.answers import NewDevice, checked

    config = _read(config_path)
    fields = {"kind": kind, "id": device_id, "meterIds": meter_ids, "collects": collects, "tenant": tenant}
    new = checked(msgspec.convert(fields, NewDevice))
    _tell(config, _run(config, lambda devices: devices.add(new)), as_json=as_json)


@device.command(short_help="Print a new one-time code for a device.")
@_CONFIG
@_KIND
@_ID
@json_option
def code(config_path: Path, kind: str, device_id: str, *, as_json: bool) -> None:
    """Print a new code for the device KIND ID, also for one that was revoked. Its last code ends.

    Its password stays until the code is used.

    \b
    Example:
      meterway cloud device code --config cloud.toml adapter cellar
    """
    config = _read(config_path)
    _tell(config, _run(config, lambda devices: devices.renew(kind, device_id)), as_json=as_json)


@device.command("list", short_help="List the devices and their state.")
@_CONFIG
@json_option
def list_all(config_path: Path, *, as_json: bool) -> None:
    """List the devices: state, when each was seen, and how much the broker refused to it.

    \b
    Example:
      meterway cloud device list --config cloud.toml
    """

    async def every(devices: "Registry") -> None:
        after: tuple[str, str] | None = ("", "")
        while after is not None:
            page = await devices.list(after, _PAGE)
            for each in page.content:
                if as_json:
                    print_json(each)
                else:
                    seen = f"{each.last_seen_time:%Y-%m-%d %H:%M}" if each.last_seen_time else "never seen"
                    refused = f"  {each.refused_count} refused" if each.refused_count else ""
                    click.echo(f"{each.kind:12}  {each.device_id:24}  {each.state:8}  {seen:16}{refused}")
            after = (page.content[-1].kind, page.content[-1].device_id) if page.next_after else None

    _run(_read(config_path), every)


@device.command(short_help="Show a device, and what the broker refused to it.")
@_CONFIG
@_KIND
@_ID
@json_option
def show(config_path: Path, kind: str, device_id: str, *, as_json: bool) -> None:
    """Show the device KIND ID: its meters, and what the broker refused to it since it was enrolled.

    \b
    Example:
      meterway cloud device show --config cloud.toml adapter cellar
    """
    found = _run(_read(config_path), lambda devices: devices.show(kind, device_id))
    if as_json:
        print_json(found)
        return
    click.echo(f"{found.kind} {found.device_id}: {found.state}; meters: {', '.join(found.meter_ids) or 'none'}")
    for each in found.refusals:
        click.echo(f"refused {each.count} times since {each.first_time:%Y-%m-%d %H:%M} UTC: {each.kind} {each.topic}")
        click.echo(f"  {each.reason}")


@device.command(short_help="Change for which meters an adapter may publish.")
@_CONFIG
@_ID
@_METERS
@json_option
def meters(config_path: Path, device_id: str, meter_ids: tuple[str, ...], *, as_json: bool) -> None:
    """Let the adapter ID publish for these meters, and for no others, at once.

    \b
    Example:
      meterway cloud device meters --config cloud.toml cellar --meter METER --meter OTHER-METER
    """
    from meterway.cloud.devices.answers import DeviceChange, checked_change

    change = checked_change(DeviceChange(meter_ids=meter_ids))
    _run(_read(config_path), lambda devices: devices.set_meters("adapter", device_id, change.meter_ids))
    if as_json:
        print_json({"kind": "adapter", "deviceId": device_id, "meterIds": list(meter_ids)})
    else:
        click.echo(f"adapter {device_id} may publish for {', '.join(meter_ids) or 'no meter'}")


@device.command(short_help="End a device's connection and password, at once.")
@_CONFIG
@_KIND
@_ID
@json_option
def revoke(config_path: Path, kind: str, device_id: str, *, as_json: bool) -> None:
    """End the connection of the device KIND ID, and its password and code, at once. Its readings stay.

    \b
    Example:
      meterway cloud device revoke --config cloud.toml adapter cellar
    """
    _run(_read(config_path), lambda devices: devices.revoke(kind, device_id))
    if as_json:
        print_json({"kind": kind, "deviceId": device_id, "state": "revoked"})
    else:
        click.echo(f"{kind} {device_id} is revoked; `meterway cloud device code` lets it in again")


def _read(config_path: Path) -> "CloudConfig":
    from meterway.cloud.config import CloudConfig

    start_logging(level=logging.WARNING)
    return read_config(config_path, CloudConfig)


def _run(config: "CloudConfig", work: "Callable[[Registry], Awaitable[Result]]") -> Result:
    from meterway.cloud.backup import reachable
    from meterway.cloud.devices.guard import pinned_ca_file
    from meterway.cloud.devices.registry import BrokerForDevices, Registry
    from meterway.cloud.store import Store

    async def run() -> Result:
        async with reachable(config.database) as dsn, await Store.connect(dsn, connections=2) as store:
            await store.migrate(now=_utc_now())

            async def fetch(statement: "Statement") -> "list[Row]":
                return list(await store.fetch(statement.sql, *statement.args))

            return await work(Registry(fetch, BrokerForDevices("", None, pinned_ca_file(config)), _utc_now))

    return asyncio.run(run())


def _tell(config: "CloudConfig", issued: "Issued", *, as_json: bool) -> None:
    from meterway.core.hosts import in_url, reached_at

    http, made = config.http, issued.device
    host = http.names[0] if http.names else reached_at(http.host)
    url = f"{'https' if http.speaks_tls else 'http'}://{in_url(host)}:{http.port}"
    command = f"meterway {made.kind} enroll {url} {issued.code} --config {made.kind}.toml"
    if as_json:
        print_json({"device": made, "code": str(issued.code), "expiresTime": issued.expires_time, "command": command})
    else:
        click.echo(f"{made.kind} {made.device_id} enrols with this, once, until {issued.expires_time:%H:%M} UTC:")
        click.echo(f"  {command}")
        if made.kind == "concentrator":
            click.echo("On an edge: `meterway edge enroll` with the same URL and code, and --config edge.toml")


def _utc_now() -> datetime:
    return datetime.now(UTC)
