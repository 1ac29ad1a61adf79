"""Whatever says JSON: over MQTT or HTTP, or a program."""

from typing import Final

from meterway.core.errors import SetupError
from meterway.meter.codec import Decoder
from meterway.meter.driver import Driver, MeterSetup
from meterway.meter.json_documents import JsonDecoder


def _decoder(setup: MeterSetup) -> Decoder:
    if setup.family.json is None:
        raise SetupError(f"family {setup.family.name!r} does not say where values stand: its file has no [json] table")
    return JsonDecoder(setup.family.json, setup.zone, setup.address)


DRIVER: Final = Driver(protocol="json", title="JSON over MQTT, HTTP or from a program", decoder=_decoder)
