"""The M-Bus master against virtual meters over a real pty, baud rates included."""

from meterway.meter.mbus_address import SecondaryAddress
from meterway.meter.mbus_master import MbusMaster, MbusMeter
from meterway.meter.mbus_search import MbusSearch
from support.mbus import BERLIN, HEAT, WATER, PtyBus, volume_slave


def test_segment_is_read_over_a_pty_with_a_change_of_baud_rate() -> None:
    slaves = [volume_slave(HEAT, 1, 1111, telegrams=2), volume_slave(WATER, 0, 2222)]
    meters = [MbusMeter(1, read_baud=38400), MbusMeter(SecondaryAddress("20264712"))]
    with PtyBus(slaves) as bus:
        heard = bus.run(MbusMaster(meters, BERLIN))
        assert heard.error is None
        assert heard.values == [["1.111", "1.112"], ["2.222"]]
        assert heard.bauds == [38400, 2400]
        assert bus.baud == 2400


def test_meters_are_found_over_a_pty() -> None:
    slaves = [volume_slave(HEAT, 0), volume_slave(WATER, 0)]
    with PtyBus(slaves) as bus:
        search = MbusSearch(BERLIN, pattern=SecondaryAddress("2026471F"), link_delay_s=0.0)
        heard = bus.run(search)
    assert heard.error is None
    assert [str(found.identity) for found in search.found] == ["6MWY0720264711", "8MWY0720264712"]
