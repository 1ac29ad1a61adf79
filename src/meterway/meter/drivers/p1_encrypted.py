"""The P1 port of meters that encrypt."""

from typing import Final

from meterway.meter.addressed import addressed
from meterway.meter.driver import Driver
from meterway.meter.p1_encrypted import EncryptedP1Decoder

DRIVER: Final = Driver(
    protocol="p1-encrypted",
    title="DSMR P1 port, encrypted",
    decoder=addressed(lambda setup: EncryptedP1Decoder(setup.zone, keys=setup.keys)),
)
