"""Tickbox counters for Meterway."""

from pathlib import Path
from typing import Final

from meterway.meter.driver import Driver, MeterSetup
from meterway_tickbox.codec import PROTOCOL, TickboxDecoder
from meterway_tickbox.master import TickboxMaster


def _master(setup: MeterSetup) -> TickboxMaster:
    return TickboxMaster(setup.address, setup.password)


DRIVER: Final = Driver(
    protocol=PROTOCOL,
    title="Tickbox counters, lines of text",
    decoder=lambda _: TickboxDecoder(),
    master=_master,
    families=Path(__file__).parent / "families",
)
