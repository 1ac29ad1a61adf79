"""The P1 port of DSMR and its relatives."""

from typing import Final

from meterway.meter.addressed import addressed
from meterway.meter.driver import Driver
from meterway.meter.p1 import P1Decoder

DRIVER: Final = Driver(protocol="p1", title="DSMR P1 port", decoder=addressed(lambda setup: P1Decoder(zone=setup.zone)))
