"""Can the place be opened where a meter's bytes come from? Where an adapter runs, it is left alone."""

import asyncio
import os
from pathlib import Path
from typing import Final

from meterway.adapter.config import (
    ReplaySource,
    Rfc2217Source,
    SerialSource,
    Source,
    TcpListenerSource,
    TcpSource,
)
from meterway.adapter.doctor.check import Check, skipped
from meterway.adapter.doctor.running import Process, listens_on, users_of
from meterway.adapter.links import describe

_CONNECT_TIMEOUT_S: Final = 5.0


async def look_at_place(name: str, source: Source, adapter: Process | None) -> list[Check]:
    """Return what is to be said of ``source``; ``adapter`` is the process that reads it, if one runs."""
    match source:
        case SerialSource():
            return [look_at_device(name, source.port, adapter)]
        case TcpSource() | Rfc2217Source():
            if adapter is not None:
                return [skipped(name, f"{describe(source)} is the adapter's, and many take one client", code="port")]
            return [await _reachable(name, source.host, source.port)]
        case TcpListenerSource():
            return _listener(name, source, adapter)
        case ReplaySource():
            detail = f"file {source.file}"
            there = source.file.is_file()
            return [
                Check(name, ok=there, detail=detail, fix="correct `file`", code="port" if there else "file-missing")
            ]
        case _:
            return []


def look_at_device(name: str, port: Path, adapter: Process | None = None, *, is_anybodys: bool = False) -> Check:
    """Return whether a serial port is there, ours to open, and, unless it ``is_anybodys``, nobody else's."""
    if not port.exists():
        fix = "plug it in, or correct `port` (`ls /dev/serial/by-id`)"
        return Check(name, ok=False, detail=f"{port} is not there", fix=fix, code="port-missing")
    if not os.access(port, os.R_OK | os.W_OK):
        fix = "sudo usermod -aG dialout $USER, then log in again"
        return Check(name, ok=False, detail=f"{port} may not be opened", fix=fix, code="port-rights")
    others = [] if is_anybodys else [each for each in users_of(port) if adapter is None or each.pid != adapter.pid]
    if others:
        who = ", ".join(map(str, others))
        fix = "stop that program, or disable its service: two readers take each other's bytes"
        return Check(name, ok=False, detail=f"{port} is held by {who}", fix=fix, code="port-held")
    what = "is open in the adapter" if adapter else "can be opened"
    return Check(name, ok=True, detail=f"{port} {what}", code="port")


def _listener(name: str, source: TcpListenerSource, adapter: Process | None) -> list[Check]:
    others = [each for each in listens_on(source.port) if adapter is None or each.pid != adapter.pid]
    if not others:
        return []
    who = ", ".join(map(str, others))
    fix = "choose another `port`, or stop that program"
    return [Check(name, ok=False, detail=f"port {source.port} is held by {who}", fix=fix, code="port-held")]


async def _reachable(name: str, host: str, port: int) -> Check:
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        detail = f"{host}:{port}: {str(error) or 'no answer'}"
        fix = "is the gateway powered and on this network?"
        return Check(name, ok=False, detail=detail, fix=fix, code="unreachable")
    writer.close()
    return Check(name, ok=True, detail=f"{host}:{port} answers", code="port")
