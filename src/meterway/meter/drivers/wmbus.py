"""Radio meters, heard by a receiver."""

from typing import Final

from meterway.meter.codec import Decoder
from meterway.meter.driver import Driver, MeterSetup
from meterway.meter.wmbus import WmbusDecoder


def _decoder(setup: MeterSetup) -> Decoder:
    return WmbusDecoder(setup.zone, keys=setup.keys, address=setup.address, quirks=setup.family.quirks)


DRIVER: Final = Driver(protocol="wmbus", title="Wireless M-Bus (OMS)", decoder=_decoder)
