"""M-Bus meters on wire, which are asked."""

from typing import Final

from meterway.meter.addressed import addressed
from meterway.meter.driver import Driver, MeterSetup
from meterway.meter.master import Master
from meterway.meter.mbus import MbusDecoder
from meterway.meter.mbus_address import parse_address
from meterway.meter.mbus_master import MbusMaster, MbusMeter


def _master(setup: MeterSetup) -> Master:
    baud = setup.family.line.baud
    return MbusMaster([MbusMeter(parse_address(setup.address), baud=baud)], setup.zone, baud=baud)


DRIVER: Final = Driver(
    protocol="mbus",
    title="M-Bus on wire",
    decoder=addressed(lambda setup: MbusDecoder(setup.zone)),
    master=_master,
)
