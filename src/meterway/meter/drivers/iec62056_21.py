"""Meters with an optical head that send a readout, or are asked for it."""

from typing import Final

from meterway.meter.addressed import addressed
from meterway.meter.driver import Driver, MeterSetup
from meterway.meter.iec62056_21 import ReadoutDecoder
from meterway.meter.iec62056_21_access import Access, Readout, Registers
from meterway.meter.iec62056_21_master import Iec62056Master
from meterway.meter.master import Master


def _master(setup: MeterSetup) -> Master:
    access = Access.of(setup.family, address=setup.address, password=setup.password)
    sign_on = setup.family.sign_on
    task = Registers(sign_on.registers) if sign_on and sign_on.registers else Readout()
    return Iec62056Master(setup.zone, access, task)


DRIVER: Final = Driver(
    protocol="iec62056_21",
    title="IEC 62056-21, optical head",
    decoder=addressed(lambda setup: ReadoutDecoder(setup.zone, quirks=setup.family.quirks)),
    master=_master,
)
