"""The adapter's configuration file, as the cloud writes it and the adapter reads it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterway.core import provisioning
from meterway.core.errors import SetupError
from meterway.core.obis import Obis
from meterway.core.provisioning import CloudAuth, OperationalPropertyMapping, SmartMeterAdapterConfig

CONFIG = SmartMeterAdapterConfig(
    meter_individual_id="m1",
    operational_property_mapping=(
        OperationalPropertyMapping(source="1-0:1.8.0", to="OBIS_1.8.0"),
        OperationalPropertyMapping(source="3", to="SITE_household_size"),
    ),
    cloud_auth=CloudAuth(username="adapter", password="only-a-test"),
)


def problem(**changes: Any) -> str:
    message = {"MeterIndividualId": "m1"} | changes
    with pytest.raises(SetupError) as caught:
        provisioning.decode(json.dumps(message).encode(), where="m1.json")
    return str(caught.value)


def test_the_names_are_those_of_the_specification() -> None:
    assert json.loads(provisioning.encode(CONFIG)) == {
        "MeterIndividualId": "m1",
        "OperationalPropertyMapping": [
            {"from": "1-0:1.8.0", "to": "OBIS_1.8.0"},
            {"from": "3", "to": "SITE_household_size"},
        ],
        "CloudAuth": {"username": "adapter", "password": "only-a-test"},
    }


def test_a_file_comes_back_equal() -> None:
    assert provisioning.decode(provisioning.encode(CONFIG), where="x") == CONFIG
    least = SmartMeterAdapterConfig(meter_individual_id="m1")
    assert provisioning.decode(provisioning.encode(least), where="x") == least


@pytest.mark.parametrize(
    ("source", "obis"),
    [("1-0:1.8.0", "1-0:1.8.0*255"), ("1.8.0", "1-0:1.8.0*255"), ("C.1", "1-0:96.1.0*255"), ("3", None), ("5.2", None)],
)
def test_a_source_is_a_code_or_a_fixed_value(source: str, obis: str | None) -> None:
    mapping = OperationalPropertyMapping(source=source, to="OBIS_1.8.0")
    assert mapping.obis == (obis and Obis.parse(obis))


def test_secrets_are_never_shown() -> None:
    assert repr(CONFIG.cloud_auth) == "CloudAuth(username=***, password=***)"
    assert "only-a-test" not in f"{CONFIG}"


def test_what_is_wrong_is_named_with_file_and_place() -> None:
    assert problem(MeterIndividualId="a b").startswith("m1.json: not a SmartMeterAdapterConfig: MeterIndividualId")
    assert "unknown field `Extra`" in problem(Extra=1)
    assert problem(OperationalPropertyMapping=[{"from": "1.8.0", "to": "nonsense"}]) == (
        "m1.json: OperationalPropertyMapping[0]: no operational property 'nonsense'; docs/properties.md lists them"
    )
    twice = [{"from": "1.8.0", "to": "OBIS_1.8.0"}, {"from": "1.8.1", "to": "1.8.0"}]
    assert problem(OperationalPropertyMapping=twice) == (
        "m1.json: OperationalPropertyMapping[1]: OBIS_1.8.0 is mapped for the second time"
    )
    assert problem(CloudAuth={"password": "x"}).endswith("CloudAuth needs username and password together, or a token")


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000, b" " * (provisioning.LIMIT_BYTES + 1)])
def test_what_is_no_such_file_is_a_setup_error(data: bytes) -> None:
    with pytest.raises(SetupError, match=r"^m1\.json: .*SmartMeterAdapterConfig"):
        provisioning.decode(data, where="m1.json")


@given(st.binary(max_size=100))
def test_any_bytes_are_a_file_or_a_setup_error(data: bytes) -> None:
    with pytest.raises(SetupError):
        provisioning.decode(data, where="x")
