"""DLMS/COSEM meters that push, or are asked."""

from typing import Final

from meterway.core.obis import Obis
from meterway.meter.addressed import addressed
from meterway.meter.codec import Decoder
from meterway.meter.dlms import DlmsDecoder
from meterway.meter.driver import Driver, MeterSetup
from meterway.meter.master import Master


def _decoder(setup: MeterSetup) -> Decoder:
    push = setup.family.push
    return DlmsDecoder(setup.zone, keys=setup.keys, lists=setup.lists or (() if push is None else (push,)))


def _master(setup: MeterSetup) -> Master:
    from meterway.meter.dlms_access import DlmsAccess, Objects  # most DLMS meters push
    from meterway.meter.dlms_master import DlmsMaster

    access = DlmsAccess.of(setup.family, address=setup.address, password=setup.password, keys=setup.keys)
    objects = tuple((Obis.parse(code), class_id) for code, class_id in access.ask.objects)
    return DlmsMaster(access, Objects(objects), setup.zone)


DRIVER: Final = Driver(protocol="dlms", title="DLMS/COSEM", decoder=addressed(_decoder), master=_master)
