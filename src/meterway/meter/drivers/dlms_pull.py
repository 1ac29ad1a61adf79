"""DLMS/COSEM meters that are asked: by an optical head, on RS-485, or in a network."""

from typing import Final

from meterway.meter.dlms_access import DlmsAccess, Objects
from meterway.meter.dlms_master import DlmsMaster
from meterway.meter.driver import Driver, MeterSetup
from meterway.meter.master import Master


def _master(setup: MeterSetup) -> Master:
    access = DlmsAccess.of(setup.family, address=setup.address, password=setup.password, keys=setup.keys)
    return DlmsMaster(access, Objects(), setup.zone)


DRIVER: Final = Driver(protocol="dlms-pull", title="DLMS/COSEM, asked", master=_master)
