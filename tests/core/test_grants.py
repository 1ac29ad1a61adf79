import pytest

from meterway.bus.filters import matches
from meterway.core.channels import channel_meter_id
from meterway.core.errors import BadDataError
from meterway.core.grants import (
    CLOUD,
    COLLECTOR,
    OBSERVER,
    Grant,
    adapter_grant,
    collecting,
    collector_client_id,
    concentrator_grant,
    owns_client_id,
)


def allows(filters: tuple[str, ...], topic: str) -> bool:
    return any(matches(each, topic) for each in filters)


def test_adapter_speaks_for_its_meters_and_those_behind_them_only() -> None:
    grant = adapter_grant(["m1"], sources=["tele/#"])
    behind = channel_meter_id("m1", 4)
    for meter_id in ("m1", behind):
        assert allows(grant.publish, f"smartMeterMessage/{meter_id}/readings")
        assert allows(grant.read, f"receipt/{meter_id}")
    for topic in ("smartMeterMessage/m2/readings", "receipt/m1", "concentrator/m1/status", "tele/x"):
        assert not allows(grant.publish, topic)
    assert not allows(grant.read, "smartMeterMessage/m1/readings")
    assert allows(grant.read, "tele/x")


def test_concentrator_speaks_for_itself_and_what_it_carries() -> None:
    grant = concentrator_grant("c1")
    assert allows(grant.publish, "concentrator/c1/smartMeterMessage/m1/readings")
    assert not allows(grant.publish, "concentrator/c2/status")
    assert not allows(grant.publish, "receipt/m1")
    both = collecting(grant, "c1")
    assert allows(both.publish, "receipt/m1")
    assert allows(both.read, "smartMeterMessage/m1/readings")
    assert owns_client_id("concentrator-c1", both, collector_client_id("c1"))
    assert not owns_client_id("concentrator-c1", both, collector_client_id("c2"))


def test_cloud_and_collector_confirm_and_an_observer_says_nothing() -> None:
    for grant in (CLOUD, COLLECTOR):
        assert allows(grant.publish, "receipt/x")
        assert not allows(grant.publish, "receipt/x/y")
    assert OBSERVER.publish == ()


@pytest.mark.parametrize("meter_id", ["", "#", "+", "a/b", "a b", "a.b", "x" * 65])
def test_an_id_that_could_widen_a_grant_is_refused(meter_id: str) -> None:
    with pytest.raises(BadDataError, match="is not 1 to 64 letters"):
        adapter_grant([meter_id])
    with pytest.raises(BadDataError, match="is not 1 to 64 letters"):
        concentrator_grant(meter_id)


@pytest.mark.parametrize(
    ("client_id", "owned"),
    [("a", True), ("a:", True), ("a:b", True), ("ab", False), ("", False), ("a-b", False), ("b:a", False)],
)
def test_client_ids_belong_to_one_user(client_id: str, owned: bool) -> None:
    assert owns_client_id("a", Grant(), client_id) is owned
