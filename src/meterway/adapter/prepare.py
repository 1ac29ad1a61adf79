"""What a configuration becomes before anything is opened: families, mappers, decoders and masters.

What a person must correct is said here, while the process starts, and not once in a night.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from meterway.adapter.config import MeterConfig, SerialLine, Source
from meterway.adapter.mapping import Mapper
from meterway.adapter.pulse_counter import PulseCounter
from meterway.core.errors import SetupError
from meterway.core.zones import find_zone
from meterway.meter.codec import Decoder
from meterway.meter.driver import MeterSetup
from meterway.meter.family import Family, Line
from meterway.meter.keys import load_keys, load_password
from meterway.meter.master import Master
from meterway.plugins import find_family, load_driver, make_decoder, make_master


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A meter that can be read; it has either a decoder or a master."""

    config: MeterConfig
    family: Family
    """With its line as the source sets it."""
    mapper: Mapper
    decoder: Decoder | None
    """Of a meter that sends by itself."""
    make_master: Callable[[], Master] | None
    """Of a meter that is asked: one for each session."""


def prepare(config: MeterConfig) -> Prepared:
    """Return what reads a meter.

    Raises:
        SetupError: family, driver or property is unknown; a key or password file, or the address, is of no use.
    """
    family = find_family(config.family)
    family = msgspec.structs.replace(family, line=line_of(config.source, family.line))
    setup = MeterSetup(
        family=family,
        zone=find_zone(config.timezone or family.timezone),
        keys=load_keys(config.key_file, config.authentication_key_file),
        address=config.address,
        password=load_password(config.password_file),
    )
    is_asked = load_driver(family.protocol).asks(family)
    try:
        make = partial(make_master, setup) if is_asked else None
        if make is not None:
            make()
        decoder = None if is_asked else _decoder(config, setup)
    except SetupError as error:
        raise SetupError(f"meter {config.id}: {error}") from error
    return Prepared(config=config, family=family, mapper=Mapper(config, family), decoder=decoder, make_master=make)


def _decoder(config: MeterConfig, setup: MeterSetup) -> Decoder:
    """Return the decoder of a meter; that of one that gives pulses has a count on the disk."""
    pulse = setup.family.pulse
    if pulse is None:
        return make_decoder(setup)
    if config.pulse is None:
        raise SetupError(
            "its pulses must be counted for ever: give it a table `pulse` with a `file` for the count, and as `start` "
            "what the meter's dial shows"
        )
    return PulseCounter(config.pulse, pulse, interval_s=config.interval_s or setup.family.interval_s)


def check_segment(meters: Sequence[Prepared]) -> None:
    """See whether meters can share a link.

    Raises:
        SetupError: some are asked and others send by themselves; or they send with different line settings.
    """
    asked = [meter for meter in meters if meter.decoder is None]
    sending = [meter for meter in meters if meter.decoder is not None]
    if asked and sending:
        raise SetupError(
            f"the meters {asked[0].config.id} and {sending[0].config.id} share one source, and the first must be asked "
            "while the second sends by itself; they cannot use one line at once"
        )
    for meter in sending:
        if meter.family.line != sending[0].family.line and isinstance(meter.config.source, SerialLine):
            raise SetupError(
                f"the meters {sending[0].config.id} and {meter.config.id} share one serial line, and their families "
                "want different settings of it; give the source `baud`, `data_bits` and `parity`, or each its own line"
            )


def line_of(source: Source, line: Line) -> Line:
    """Return the line settings of a family as ``source`` changes them.

    A port that is pinned to 8 data bits for meters with 7 has no parity of its own, unless it is pinned, too: codecs
    and masters then see to the parity.
    """
    if not isinstance(source, SerialLine):
        return line
    names = ("baud", "data_bits", "parity", "stop_bits")
    pinned = {name: value for name in names if (value := getattr(source, name)) is not None}
    if pinned.get("data_bits", line.data_bits) > line.data_bits:
        pinned.setdefault("parity", "N")
    return msgspec.structs.replace(line, **pinned)
