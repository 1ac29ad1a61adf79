"""A bundle is looked at again: its bytes are decoded, and what they say is said."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from zipfile import BadZipFile, ZipFile

import msgspec

from meterway.adapter.config import AdapterConfig, MeterConfig
from meterway.adapter.doctor.adapter import LinkReport, judge
from meterway.adapter.doctor.check import Check
from meterway.adapter.doctor.manifest import FORMAT, Manifest, ShownCheck, ShownChunk, ShownLink
from meterway.adapter.doctor.meter import Subject
from meterway.adapter.raw import Chunk
from meterway.core.config import load_config
from meterway.core.errors import SetupError
from meterway.meter.family import Family, parse_family
from meterway.plugins import find_family

_LIMIT_MEMBER_BYTES: Final = 64 << 20
_LIMIT_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Replayed:
    """What one link says."""

    meters: tuple[str, ...]
    checks: tuple[Check, ...]
    is_recorded: bool
    """It could not be decoded again: this is what was found when the bundle was made."""


@dataclass(frozen=True, slots=True)
class Again:
    """What a whole bundle says."""

    links: tuple[Replayed, ...]
    others: tuple[Check, ...]
    """Of brokers, spools and processes: as it was found."""


def replay(path: Path) -> Again:
    """Decode the bytes of a bundle, and judge them as they were judged when they came.

    Raises:
        SetupError: it is no bundle, or one of a later release.
    """
    files = _read(path)
    try:
        manifest = msgspec.json.decode(files["manifest.json"], type=Manifest)
    except (KeyError, msgspec.DecodeError) as error:
        raise SetupError(f"{path} is no bundle of `meterway doctor --bundle`: {error}") from error
    if manifest.format != FORMAT:
        raise SetupError(
            f"{path} is a bundle of format {manifest.format}; this release reads {FORMAT}: use a later one"
        )
    links: list[Replayed] = []
    others: list[Check] = []
    for adapter in manifest.adapters:
        config = load_config(_text(files, f"{adapter.name}/config.toml", path), AdapterConfig, where=str(path))
        for link in adapter.links:
            others += _checks(link.others)
            links.append(_link(link, config, adapter.now, files, path))
        others += _checks(adapter.findings)
    return Again(tuple(links), tuple(others))


def _link(link: ShownLink, config: AdapterConfig, now: datetime, files: dict[str, bytes], path: Path) -> Replayed:
    if not link.replays or not link.file:
        return Replayed(link.meters, _checks(link.findings), is_recorded=True)
    meters = [meter for meter in config.meters if meter.id in link.meters]
    try:
        lines = files[link.file].splitlines()
        shown = [msgspec.json.decode(line, type=ShownChunk) for line in lines]
        chunks = [Chunk(each.time, bytes.fromhex(each.hex)) for each in shown]
    except (KeyError, ValueError) as error:
        raise SetupError(f"{path}: the bytes of {link.meters[0]} cannot be read: {error}") from error
    subjects = [Subject.of(meter, _family(meter, files, path)) for meter in meters]
    report = LinkReport(meters, chunks=chunks, subjects=subjects)
    return Replayed(link.meters, tuple(judge(report, now, is_running=link.is_running)), is_recorded=False)


def _family(meter: MeterConfig, files: dict[str, bytes], path: Path) -> Family:
    file = f"families/{meter.family}.toml"
    if file in files:
        return parse_family(_text(files, file, path), meter.family, where=f"{path}: {file}")
    return find_family(meter.family)


def _checks(shown: Iterable[ShownCheck]) -> tuple[Check, ...]:
    return tuple(Check(each.check, each.ok, each.detail, each.fix, each.code) for each in shown)


def _text(files: dict[str, bytes], name: str, path: Path) -> str:
    try:
        return files[name].decode()
    except (KeyError, UnicodeDecodeError) as error:
        raise SetupError(f"{path}: {name} is missing or no text") from error


def _read(path: Path) -> dict[str, bytes]:
    try:
        with ZipFile(path) as archive:
            members = archive.infolist()
            sizes = [member.file_size for member in members]
            if sum(sizes) > _LIMIT_BYTES or max(sizes, default=0) > _LIMIT_MEMBER_BYTES:
                raise SetupError(f"{path} is too large for a bundle of ours, {sum(sizes)} bytes")
            return {member.filename: archive.read(member) for member in members}
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}") from error
    except BadZipFile as error:
        raise SetupError(f"{path} is no zip file") from error
