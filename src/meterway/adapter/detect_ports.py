"""The serial ports of this machine, and who holds them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_DEV: Final = Path("/dev")
_PROC: Final = Path("/proc")
_PATTERNS: Final = ("serial/by-id/*", "ttyUSB*", "ttyACM*", "ttyAMA*", "serial[0-9]")
"""The first name of a port is the one that is told: it stays the same when cables are plugged in another order."""


def serial_ports(dev: Path = _DEV) -> list[Path]:
    """Return the ports that are plugged in, each once."""
    found: dict[Path, Path] = {}
    for pattern in _PATTERNS:
        for port in sorted(dev.glob(pattern)):
            found.setdefault(port.resolve(), port)
    return list(found.values())


def lasting(port: Path, dev: Path = _DEV) -> Path:
    """Return the name of a port that stays; the one given where it has no other."""
    return next((name for name in serial_ports(dev) if name.resolve() == port.resolve()), port)


def holders(port: Path, proc: Path = _PROC) -> list[str]:
    """Return which other processes have ``port`` open, as far as this user may see: ``minicom (process 4711)``."""
    device = str(port.resolve())
    return [f"{_name(process)} (process {process.name})" for process in _processes(proc) if _has_open(process, device)]


def _processes(proc: Path) -> Iterator[Path]:
    with suppress(OSError):
        for entry in sorted(proc.iterdir()):
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                yield entry


def _has_open(process: Path, device: str) -> bool:
    try:
        for handle in (process / "fd").iterdir():
            with suppress(OSError):
                if str(handle.readlink()) == device:
                    return True
    except OSError:  # it ended, or is another user's
        pass
    return False


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "a program"
