"""What one can send to those who help: findings and bytes of one's adapters, in which nobody is named.

    README.txt, manifest.json                 what is in it, and what was found
    machine.json                              versions, and what the machine lacks
    adapter-1/config.toml                     without secrets, ids and addresses
    adapter-1/status.json                     what the broker has retained of its meters
    adapter-1/meter-1.jsonl                   the last bytes of a link: {"time": ..., "hex": ...} a line
    families/NAME.toml                        of a family that is not Meterway's own

``replay`` reads it again. Bounded: the newest ``LIMIT_LINK_BYTES`` of a link, ``LIMIT_BYTES`` of all.
"""

import os
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from secrets import token_bytes
from typing import Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import msgspec

from meterway import __version__
from meterway.adapter.config import MeterConfig, MqttSource
from meterway.adapter.doctor.adapter import AdapterReport, LinkReport, judge
from meterway.adapter.doctor.check import Check
from meterway.adapter.doctor.hearing import Hearing, hear_again, is_message_bounded
from meterway.adapter.doctor.hide import hide, spoken
from meterway.adapter.doctor.hide.identities import identities, leaks, topic_names
from meterway.adapter.doctor.hide.pseudonyms import Pseudonyms
from meterway.adapter.doctor.manifest import FORMAT, Manifest, ShownAdapter, ShownCheck, ShownChunk, ShownLink
from meterway.adapter.doctor.meter import Subject
from meterway.adapter.doctor.names import Names
from meterway.adapter.raw import Chunk
from meterway.core import reports
from meterway.core.config import dump_config
from meterway.core.errors import BadDataError, SetupError
from meterway.core.reports import MeterDescription, Status
from meterway.core.topics import SpecificTopic, split_smart_meter_topic
from meterway.meter.family import Family, load_family
from meterway.meter.keys import NO_KEYS

LIMIT_LINK_BYTES: Final = 1 << 20
LIMIT_BYTES: Final = 16 << 20
_PACKAGES: Final = ("click", "cryptography", "gmqtt", "httpx", "msgspec", "pymodbus", "serialx", "tzdata", "uvloop")
_JSON: Final = "json"
_BYTES: Final = ".jsonl"
_SHORTEST_PRIVATE: Final = 12
"""Shorter ids may be words, which stand in sentences by themselves."""


@dataclass(frozen=True, slots=True)
class Content:
    """One file of a bundle."""

    file: str
    what: str
    data: bytes


def build(adapters: Sequence[AdapterReport], machine: Iterable[Check]) -> list[Content]:
    """Return the files of a bundle.

    Raises:
        SetupError: there is something private in it that could not be hidden; then there is no bundle.
    """
    builder = _Builder()
    contents = [builder.machine(machine)]
    shown = []
    for report in adapters:
        adapter, files = builder.adapter(report)
        shown.append(adapter)
        contents += files
    contents += builder.families
    manifest = Manifest(format=FORMAT, made=datetime.now(UTC), meterway=__version__, adapters=tuple(shown))
    contents.insert(0, Content("manifest.json", "what is here, and what was found of each link", _json(manifest)))
    contents.insert(0, Content("README.txt", "how to look at it", _README))
    private = [each.encode() for each in builder.names.private if len(each) >= _SHORTEST_PRIVATE]
    for content in contents:
        is_bytes = content.file.endswith(_BYTES)  # what is in these was looked at before it became hex digits
        named = not is_bytes and leaks(content.data, builder.identities)
        if named or any(each in content.data for each in private):
            raise SetupError(
                f"{content.file} would name a meter or a place that could not be hidden; no bundle was written. Report "
                "this as a defect, without the bytes"
            )
    return contents


def write(path: Path, contents: Iterable[Content]) -> None:
    """Write the bundle, for this user's eyes only.

    Raises:
        SetupError: there is a file of that name already.
        OSError: it cannot be written; nothing is left of it.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise SetupError(f"{path} is there already; name another file") from error
    try:
        with open(descriptor, "wb") as file, ZipFile(file, "w", ZIP_DEFLATED) as archive:  # noqa: PTH123 - for its mode
            for content in contents:
                info = ZipInfo(content.file, datetime.now(UTC).timetuple()[:6])
                info.external_attr = 0o600 << 16
                info.compress_type = ZIP_DEFLATED
                archive.writestr(info, content.data)
    except OSError:
        path.unlink()
        raise


class _Builder:
    """Hides everything with the same names and the same secret, which is gone with it."""

    def __init__(self) -> None:
        self._pseudonyms = Pseudonyms(token_bytes(32))
        self.names = Names(self._pseudonyms)
        self.identities: set[str] = set()
        self.families: list[Content] = []
        self._room_bytes = LIMIT_BYTES

    def machine(self, checks: Iterable[Check]) -> Content:
        packages = {}
        for name in _PACKAGES:
            with suppress(PackageNotFoundError):
                packages[name] = version(name)
        found = {
            "meterway": __version__,
            "python": sys.version.split()[0],
            "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
            "packages": packages,
            "findings": self._shown(checks),
        }
        return Content("machine.json", "versions, and what the machine has", _json(found))

    def adapter(self, report: AdapterReport) -> tuple[ShownAdapter, list[Content]]:
        config = self.names.adapter(report.config)
        links, files = [], []
        for link in report.links:
            self._keep_families(link.subjects)
            shown, chunks = self._link(link, report, config.id)
            links.append(shown)
            if shown.file:
                files.append(Content(shown.file, f"the last bytes of {shown.meters[0]}", _lines(chunks)))
        addresses = {meter: address for link in links for meter, address in link.addresses.items()}
        meters = tuple(_addressed(meter, addresses) for meter in config.meters)
        config = msgspec.structs.replace(config, meters=meters)
        findings = self._shown([*report.others, *report.broker])
        files.insert(0, Content(f"{config.id}/config.toml", "without secrets and ids", dump_config(config).encode()))
        files.insert(1, Content(f"{config.id}/status.json", "what the broker has retained", self._status(report)))
        return ShownAdapter(name=config.id, now=report.now, links=tuple(links), findings=findings), files

    def _link(self, link: LinkReport, report: AdapterReport, folder: str) -> tuple[ShownLink, list[Chunk]]:
        heard = [hearing for subject in _listeners(link) if (hearing := _heard(subject, link.chunks)) is not None]
        names = identities(telegram for hearing in heard for telegram in hearing.heard.telegrams)
        self.identities |= names
        names |= topic_names(_topics(link, heard))
        self.names.hide_also(names)
        meters = [self.names.meter(meter) for meter in link.meters]
        shown = ShownLink(
            meters=tuple(meter.id for meter in meters),
            protocol=link.subjects[0].family.protocol if link.subjects else "",
            size_bytes=sum(len(chunk.data) for chunk in link.chunks),
            is_running=report.is_running,
            findings=self._shown(link.checks),
            others=self._shown(link.others),
        )
        if not link.chunks or len(link.subjects) < len(meters):
            return msgspec.structs.replace(shown, left_out="nothing was recorded"), []
        chunks = _newest(link.chunks, min(LIMIT_LINK_BYTES, self._room_bytes))
        if not chunks:
            return msgspec.structs.replace(shown, left_out="the bundle is full"), []
        is_read = not heard or any(hearing.heard.telegrams or hearing.heard.errors for hearing in heard)
        protocol = spoken(b"".join(chunk.data for chunk in chunks), shown.protocol, is_read=is_read)
        hidden = hide(chunks, protocol, names, self._pseudonyms)
        if hidden is None:
            why = f"who speaks cannot be hidden with certainty in the bytes of {protocol}"
            return msgspec.structs.replace(shown, left_out=why), []
        self._room_bytes -= sum(len(chunk.data) for chunk in hidden)
        shown = msgspec.structs.replace(
            shown,
            protocol=protocol,
            file=f"{folder}/{shown.meters[0]}{_BYTES}",
            encrypted=any(_is_encrypted(subject, chunks) for subject in link.subjects),
            addresses=_addresses(link, meters, chunks, hidden),
        )
        again = self._shown(_judged(link, meters, shown.addresses, hidden, report))
        return msgspec.structs.replace(shown, replays=_outcomes(again) == _outcomes(shown.findings)), hidden

    def _status(self, report: AdapterReport) -> bytes:
        found: dict[str, object] = {}
        for topic, payload in report.retained.items():
            meter_id, kind = split_smart_meter_topic(topic)
            name = f"{self.names.of('meter', meter_id)}/{kind}"
            with suppress(BadDataError):
                if kind is SpecificTopic.STATUS:
                    status = reports.decode(payload, Status)
                    detail = self.names.sentence(status.detail) if status.detail else None
                    found[name] = msgspec.structs.replace(status, detail=detail)
                else:
                    description = reports.decode(payload, MeterDescription)
                    found[name] = msgspec.structs.replace(
                        description, meter_individual_id=self.names.of("meter", meter_id), says=None
                    )
        return _json(found)

    def _keep_families(self, subjects: Iterable[Subject]) -> None:
        """Take in families that whoever replays this may not have."""
        for subject in subjects:
            name = subject.config.family
            file = f"families/{name}.toml"
            if _is_ours(subject.family) or any(content.file == file for content in self.families):
                continue
            text = dump_config(msgspec.structs.replace(subject.family, name="", sample=None))
            self.families.append(Content(file, "a family of the site's own", text.encode()))

    def _shown(self, checks: Iterable[Check]) -> tuple[ShownCheck, ...]:
        sentence = self.names.sentence
        return tuple(
            ShownCheck(sentence(check.name), check.word, check.ok, sentence(check.detail), sentence(check.fix))
            for check in checks
        )


def _listeners(link: LinkReport) -> list[Subject]:
    """Return the meters of a link, and one that listens to all that share it."""
    return [*link.subjects, *([_everybody(link)] if link.subjects else [])]


def _topics(link: LinkReport, heard: Iterable[Hearing]) -> Iterator[str]:
    """Yield the beginnings of topics, which their owner chose; their ends say what is measured."""
    for meter in link.meters:
        if isinstance(meter.source, MqttSource):
            yield meter.source.topic.rpartition("/")[0]
    for hearing in heard:
        yield from (telegram.meter for telegram in hearing.heard.telegrams if telegram.protocol == _JSON)


def _everybody(link: LinkReport) -> Subject:
    first = link.subjects[0]
    return Subject.of(msgspec.structs.replace(first.config, address=""), first.family, first.keys)


def _addresses(
    link: LinkReport, meters: Sequence[MeterConfig], chunks: Sequence[Chunk], hidden: Sequence[Chunk]
) -> dict[str, str]:
    """Return how meters with an address call themselves in the hidden bytes: their telegrams are the same ones."""
    before, after = (_heard(_everybody(link), each) for each in (chunks, hidden))
    if before is None or after is None:
        return {}
    pairs = zip(before.heard.telegrams, after.heard.telegrams, strict=False)
    others = {old.meter: new.meter for old, new in pairs}
    found = {}
    for subject, meter in zip(link.subjects, meters, strict=True):
        own = _heard(subject, chunks)
        names = {telegram.meter for telegram in own.heard.telegrams} if own else set()
        if subject.config.address and len(names) == 1 and (name := others.get(names.pop())):
            found[meter.id] = name
    return found


def _judged(
    link: LinkReport,
    meters: Sequence[MeterConfig],
    addresses: dict[str, str],
    hidden: list[Chunk],
    report: AdapterReport,
) -> list[Check]:
    """Return what the hidden bytes say to those who have no keys."""
    own = [_addressed(meter, addresses) for meter in meters]
    subjects = [Subject.of(meter, each.family) for meter, each in zip(own, link.subjects, strict=True)]
    return judge(LinkReport(own, chunks=hidden, subjects=subjects), report.now, is_running=report.is_running)


def _outcomes(findings: Iterable[ShownCheck]) -> set[tuple[str, str, bool]]:
    return {(finding.check, finding.code, finding.ok) for finding in findings}


def _heard(subject: Subject, chunks: Sequence[Chunk]) -> Hearing | None:
    decoder = subject.decoder()
    if decoder is None:
        return None
    return hear_again(chunks, decoder, is_whole=is_message_bounded(subject.config.source))


def _is_encrypted(subject: Subject, chunks: Sequence[Chunk]) -> bool:
    """Return whether there is a key, and something that needs it."""
    if subject.keys is NO_KEYS or subject.keys.encryption is None:
        return False
    hearing = _heard(Subject.of(subject.config, subject.family), chunks)
    return hearing is not None and hearing.heard.reasons["encrypted"] > 0


def _is_ours(family: Family) -> bool:
    try:
        own = load_family(family.name)
    except SetupError:
        return False
    return msgspec.structs.replace(own, line=family.line) == family


def _newest(chunks: Sequence[Chunk], limit_bytes: int) -> list[Chunk]:
    kept: list[Chunk] = []
    for chunk in reversed(chunks):
        limit_bytes -= len(chunk.data)
        if limit_bytes < 0:
            break
        kept.insert(0, chunk)
    return kept


def _addressed(meter: MeterConfig, addresses: dict[str, str]) -> MeterConfig:
    return msgspec.structs.replace(meter, address=addresses.get(meter.id, meter.address))


def _lines(chunks: Iterable[Chunk]) -> bytes:
    return b"".join(msgspec.json.encode(ShownChunk(chunk.time, chunk.data.hex())) + b"\n" for chunk in chunks)


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


_README: Final = b"""\
A bundle of `meterway doctor --bundle`: what was found wrong, and what the meters sent.

Look at every file before you send this to anybody. There are no keys, passwords, ids of meters, names, addresses or
paths in it: they were replaced, each by the same all over, and checksums were mended so that the bytes decode as
before. What the meters measured, and when, is in it. Frames that were encrypted still are, and nobody can decrypt
them, for they do not name the meter any more: of these the manifest says what was found.

    meterway doctor --replay FILE.zip

decodes the bytes once more, and shows what it finds.
"""
