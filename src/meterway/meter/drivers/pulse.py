"""Meters that give pulses; the adapter keeps their count (``adapter.pulse_counter``)."""

from typing import Final

from meterway.core.errors import SetupError
from meterway.meter.codec import Decoder
from meterway.meter.driver import Driver, MeterSetup
from meterway.meter.pulse import PROTOCOL, PulseDecoder


def _decoder(setup: MeterSetup) -> Decoder:
    """Return a decoder that counts from 0."""
    family = setup.family
    if family.pulse is None:
        raise SetupError(f"family {family.name!r} does not say what a pulse is worth: its file has no [pulse] table")
    return PulseDecoder(family.pulse, interval_s=family.interval_s)


DRIVER: Final = Driver(protocol=PROTOCOL, title="Pulses of an S0 output or a reed contact", decoder=_decoder)
