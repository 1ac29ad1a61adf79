"""SML meters, which push."""

from typing import Final

from meterway.meter.addressed import addressed
from meterway.meter.driver import Driver
from meterway.meter.sml import SmlDecoder

DRIVER: Final = Driver(
    protocol="sml",
    title="Smart Message Language push",
    decoder=addressed(lambda setup: SmlDecoder(quirks=setup.family.quirks)),
)
