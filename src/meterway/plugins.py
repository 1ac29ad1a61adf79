"""Finds and loads drivers, Meterway's own and those of other packages: entry points of the group ``meterway.drivers``.

Names are listed without importing anything. A package that cannot be loaded is a SetupError for whoever needs it, and
for nobody else.
"""

import logging
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Final

from meterway.core.errors import SetupError
from meterway.meter.codec import Decoder
from meterway.meter.driver import Driver, MeterSetup
from meterway.meter.family import Family, load_family
from meterway.meter.master import Master

_log = logging.getLogger(__name__)

GROUP: Final = "meterway.drivers"
SITE_FAMILIES: Final = Path("/etc/meterway/families")
"""Families of the site's own; they come before those of packages, and those before the ones that Meterway brings."""

_OWN: Final = "meterway"


def protocols() -> tuple[str, ...]:
    """Return the names of all drivers, sorted; nothing is imported."""
    return tuple(sorted(_found()))


def load_driver(protocol: str) -> Driver:
    """Return the driver of a protocol.

    Raises:
        SetupError: there is none; two packages bring one; or the package that brings it cannot be loaded.
    """
    found = _found().get(protocol, ())
    if not found:
        raise SetupError(f"protocol {protocol[:80]!r} is not known; {_hint(protocol)}")
    if len(found) > 1:
        packages = " and ".join(sorted(_package(entry) for entry in found))
        raise SetupError(f"the packages {packages} both bring a driver {protocol!r}; remove one of them")
    return _load(found[0])


def make_decoder(setup: MeterSetup) -> Decoder:
    """Return a decoder for a meter.

    Raises:
        SetupError: as ``load_driver`` and the driver itself; or its meters do not send by themselves.
    """
    driver = load_driver(setup.family.protocol)
    if driver.decoder is None:
        raise SetupError(f"meters that speak {driver.protocol} must be asked; their captures cannot be decoded")
    return driver.decoder(setup)


def make_master(setup: MeterSetup) -> Master:
    """Return a master for one session with a meter.

    Raises:
        SetupError: as ``load_driver`` and the driver itself; or its meters cannot be asked.
    """
    driver = load_driver(setup.family.protocol)
    if driver.master is None:
        raise SetupError(f"meters that speak {driver.protocol} send by themselves; they cannot be asked")
    return driver.master(setup)


def family_folders() -> tuple[Path, ...]:
    """Return where families are beside those that Meterway brings: the site's folder, then those of packages."""
    return (SITE_FAMILIES, *_foreign()[0])


@cache
def find_family(name: str) -> Family:
    """Return the family ``name`` of the site, of a package, or of Meterway; its file is read once.

    Raises:
        SetupError: as ``family.load_family``; names a package that could not be loaded, for it may have brought it.
    """
    try:
        return load_family(name, family_folders())
    except SetupError as error:
        broken = _foreign()[1]
        if not broken:
            raise
        raise SetupError(f"{error}; and {broken[0]}") from error


@cache
def _found() -> Mapping[str, tuple[EntryPoint, ...]]:
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=GROUP):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


@cache
def _load(entry: EntryPoint) -> Driver:
    try:
        driver = entry.load()
    except Exception as error:  # a foreign package may raise anything while it is imported
        reason = f"{type(error).__name__}: {error}"
        raise SetupError(
            f"the driver {entry.name!r} of the package {_package(entry)} cannot be loaded: {reason[:200]}; update the "
            "package, or remove it"
        ) from error
    if not isinstance(driver, Driver) or driver.protocol != entry.name:
        raise SetupError(
            f"the package {_package(entry)}: {entry.value} is not the Driver of the protocol {entry.name!r}; its "
            "author must correct the entry point"
        )
    return driver


@cache
def _foreign() -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Return the folders of families of other packages, and why packages could not be loaded."""
    folders, broken = [], []
    for entry in sorted(entry for entries in _found().values() for entry in entries):
        if entry.dist is not None and entry.dist.name == _OWN:
            continue
        try:
            driver = _load(entry)
        except SetupError as error:
            _log.warning("! %s", error)
            broken.append(str(error))
        else:
            folders.append(driver.families)
    return tuple(folder for folder in folders if folder is not None), tuple(broken)


def _package(entry: EntryPoint) -> str:
    return "(unknown)" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _hint(protocol: str) -> str:
    known = protocols()
    if not known:
        return "no driver at all is registered: install Meterway anew (`pip install meterway`, in a checkout `-e .`)"
    near = get_close_matches(protocol, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
