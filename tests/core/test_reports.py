"""Status, description and faults on the wire."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterway.core import reports
from meterway.core.errors import BadDataError
from meterway.core.reports import Fault, MeterDescription, OfferedProperty, Status

TIME = datetime(2026, 3, 1, 11, 30, tzinfo=UTC)
STATUS = Status(state="silent", since=TIME, detail="No telegram for 60 s.", counters={"telegrams": 5})
DESCRIPTION = MeterDescription(
    meter_individual_id="m1",
    physical_meter_class="ELECTRICITY",
    protocol="p1",
    link="serial",
    family="p1",
    interval_s=10,
    properties=(OfferedProperty(property_id="OBIS_1.8.0", unit="kWh"),),
    unmapped=("1-0:94.32.1*255",),
)
FAULT = Fault(time=TIME, reason="bad-checksum", message="Expected 1234, got 5678.", data=b"\0\xff", size_bytes=2)


def test_names_are_in_camel_case_and_bytes_in_base64() -> None:
    assert json.loads(reports.encode(FAULT)) == {
        "time": "2026-03-01T11:30:00Z",
        "reason": "bad-checksum",
        "message": "Expected 1234, got 5678.",
        "data": "AP8=",
        "sizeBytes": 2,
    }


def test_every_report_comes_back_equal() -> None:
    assert reports.decode(reports.encode(STATUS), Status) == STATUS
    assert reports.decode(reports.encode(DESCRIPTION), MeterDescription) == DESCRIPTION
    assert reports.decode(reports.encode(FAULT), Fault) == FAULT


def test_an_old_reader_ignores_what_is_new() -> None:
    payload = json.dumps(json.loads(reports.encode(STATUS)) | {"newThing": 1}).encode()
    assert reports.decode(payload, Status) == STATUS


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "not a Status report: Input data was truncated"),
        (b"\xff", "not a Status report: "),
        (b'{"state": "dancing", "since": "2026-03-01T11:30:00Z"}', "Invalid enum value 'dancing'"),
        (b'{"state": "online", "since": "2026-03-01T11:30:00"}', "at `$.since`"),
        (b'{"x":' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_report_is_bad_data(payload: bytes, message: str) -> None:
    with pytest.raises(BadDataError) as caught:
        reports.decode(payload, Status)
    assert caught.value.reason == "bad-report"
    assert message in str(caught.value)


def test_a_report_that_is_too_large_is_refused_unread() -> None:
    with pytest.raises(BadDataError, match="a Fault report has at most 262144 bytes, this one 262145") as caught:
        reports.decode(b" " * (reports.LIMIT_PAYLOAD_BYTES + 1), Fault)
    assert caught.value.reason == "too-large"


@given(st.binary(max_size=100))
def test_any_bytes_are_a_report_or_bad_data(payload: bytes) -> None:
    with pytest.raises(BadDataError):
        reports.decode(payload, Fault)
