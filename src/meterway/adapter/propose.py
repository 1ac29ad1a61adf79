"""From what was detected to an adapter's configuration, as a person would write it: with comments.

Ids are random: they must not tell the meter's number. That stands in the file only as ``address``, where several meters
share a link and nothing else tells them apart.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from uuid import uuid4

import msgspec

from meterway.adapter.config import AdapterConfig, MeterConfig, Rfc2217Source, SerialSource, Source
from meterway.adapter.detect import Found
from meterway.adapter.detect_plan import named
from meterway.bus.bus import BrokerConfig

SPOOL_DIR: Final = Path("spool")
_SILENT_INTERVALS: Final = 3
_MOST_OTHERS: Final = 6


def propose(
    found: Iterable[Found],
    *,
    adapter_id: str,
    broker: BrokerConfig | None = None,
    key_file: Path | None = None,
    password_file: Path | None = None,
) -> AdapterConfig:
    """Return a configuration that reads the meters that were found.

    The files are named where a meter needs them; ``broker`` is the adapter's, None the usual one of this machine.
    """
    files = {"key_file": key_file, "password_file": password_file}
    meters = tuple(_meter(each, files) for each in found)
    return AdapterConfig(id=adapter_id, spool_dir=SPOOL_DIR, meters=meters, broker=broker or BrokerConfig())


def _meter(found: Found, files: Mapping[str, Path | None]) -> MeterConfig:
    family = found.candidate.family
    named_files = {name: file.absolute() for name, file in files.items() if name in found.needs and file is not None}
    config = MeterConfig(
        id=str(uuid4()),
        source=_with_line(found.source, found),
        family=family.name,
        address=found.address,
        timezone=family.timezone,
        key_file=None if found.is_locked else named_files.get("key_file"),
        password_file=named_files.get("password_file"),
    )
    pause_s = _SILENT_INTERVALS * family.interval_s
    return config if family.is_asked else msgspec.structs.replace(config, watchdog_s=max(config.watchdog_s, pause_s))


def _with_line(source: Source, found: Found) -> Source:
    """Write the line settings down where they are not those that the family has anyway, or its receiver."""
    line = found.line
    if not isinstance(source, SerialSource | Rfc2217Source) or source.receiver or found.candidate.family.line == line:
        return source
    return msgspec.structs.replace(
        source, baud=line.baud, data_bits=line.data_bits, parity=line.parity, stop_bits=line.stop_bits
    )


def written(config: AdapterConfig, found: Sequence[Found]) -> str:
    """Return the TOML text of ``config``, which was proposed for ``found``, with comments."""
    return "\n".join(_lines(config, found)) + "\n"


def _lines(config: AdapterConfig, found: Sequence[Found]) -> Iterator[str]:
    yield "# Proposed by `meterway detect`. Check it with `meterway config check FILE`,"
    yield "# run it with `meterway adapter --config FILE`; docs/config.md explains all keys."
    yield ""
    yield _pair("id", config.id)
    yield "# Here readings wait until they are confirmed: a folder that survives a restart."
    yield _pair("spool_dir", str(config.spool_dir))
    yield ""
    yield "# Where readings go: smartMeterMessage/[id of the meter]/readings at this broker."
    yield "[broker]"
    yield from (_pair(key, str(value)) for key, value in _table({"url": config.broker.url}, config.broker).items())
    for meter, each in zip(config.meters, found, strict=True):
        yield ""
        yield "[[meters]]"
        yield from _meter_lines(meter, each, is_alone=len(found) == 1)


def _meter_lines(meter: MeterConfig, found: Found, *, is_alone: bool) -> Iterator[str]:
    family = found.candidate.family
    at = f" at {named(found.line)}" if found.has_line else ""
    yield from _wrapped(f"{family.title}: {family.protocol}{at}.")
    if found.is_locked:
        yield "# Encrypted. Write its key (32 hex digits) into a file and name that here,"
        yield "# or, if the meter is not yours, remove this whole [[meters]] table:"
        yield '# key_file = "/etc/meterway/keys/meter.key"'
    yield "# Random, so that it tells nobody the meter's number; keep it for good."
    yield _pair("id", meter.id)
    if found.others:
        more = ", ..." if len(found.others) > _MOST_OTHERS else ""
        others = ", ".join(found.others[:_MOST_OTHERS]) + more
        yield from _wrapped(f"Or one of these, which fit as well (`meterway drivers NAME` tells more): {others}")
    yield _pair("family", meter.family)
    if meter.address:
        yield "# Which of the meters that share the source." if not is_alone else "# Which meter, if others join it."
        yield _pair("address", meter.address)
    yield "# Of the meter's clock, not of this machine."
    yield _pair("timezone", meter.timezone or family.timezone)
    told = {"id", "family", "address", "timezone", "source"}
    yield from (_pair(key, value) for key, value in _table({}, meter).items() if key not in told)
    yield _pair("source", _table({}, meter.source))


def _wrapped(text: str) -> Iterator[str]:
    """Yield a comment in lines of at most 80 columns."""
    line = "#"
    for word in text.split():
        if len(line) + 1 + len(word) > 80:  # noqa: PLR2004 - a terminal's columns
            yield line
            line = "#"
        line = f"{line} {word}"
    yield line


def _table(always: Mapping[str, object], struct: msgspec.Struct) -> dict[str, object]:
    """Return what is not the default, after what is said always."""
    values = msgspec.to_builtins(struct, enc_hook=str)
    return {**always, **{key: value for key, value in values.items() if value is not None}}


def _pair(key: str, value: object) -> str:
    return f"{key} = {_inline(value)}"


def _inline(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(_pair(key, inner) for key, inner in value.items() if inner is not None) + " }"
    text: str = msgspec.toml.encode({"x": value}).decode()
    return text.removeprefix("x = ").rstrip("\n")
