"""From what was detected to an adapter's configuration. Ids are random: they must not tell the meter's number."""

from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

import msgspec

from meterway.adapter.config import AdapterConfig, MeterConfig, Rfc2217Source, SerialSource, Source
from meterway.adapter.detect import Found

SPOOL_DIR = Path("spool")


def propose(source: Source, found: Iterable[Found], *, adapter_id: str, key_file: Path | None = None) -> AdapterConfig:
    """Return a configuration that reads the meters that were found at ``source``."""
    meters = tuple(_meter(source, each, key_file) for each in found)
    return AdapterConfig(id=adapter_id, spool_dir=SPOOL_DIR, meters=meters)


def _meter(source: Source, found: Found, key_file: Path | None) -> MeterConfig:
    family = found.candidate.family
    return MeterConfig(
        id=str(uuid4()),
        source=_with_line(source, found),
        family=family.name,
        address=found.address,
        timezone=family.timezone,
        key_file=key_file,
    )


def _with_line(source: Source, found: Found) -> Source:
    """Write the line settings down where they are not those that the family has anyway."""
    line = found.line
    if found.candidate.family.line == line or not isinstance(source, SerialSource | Rfc2217Source):
        return source
    return msgspec.structs.replace(
        source, baud=line.baud, data_bits=line.data_bits, parity=line.parity, stop_bits=line.stop_bits
    )
