"""Devices as the API shows them, and the requests about them. Pure."""

from datetime import datetime
from typing import Annotated, Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from meterway.bus.filters import matches
from meterway.cloud.answers import Row
from meterway.core.enrolment import LIMIT_METERS, EnrolmentRequest, Kind, RefusalItem
from meterway.core.errors import BadDataError
from meterway.core.grants import Grant, adapter_grant, collecting, concentrator_grant
from meterway.core.topics import check_id, split_smart_meter_topic

DEFAULT_DEVICES: Final = 200
LIMIT_DEVICES: Final = 1000
LIMIT_ID_CHARACTERS: Final = 51
"""``concentrator-`` and an id are a user name, which has at most 64 characters."""

_NAMED = 3
"""So many meters or topics a sentence names."""

State: TypeAlias = Literal["waiting", "expired", "enrolled", "revoked"]

Request = TypeVar("Request", bound=msgspec.Struct)
Shown = TypeVar("Shown", bound=msgspec.Struct)


class DeviceItem(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A device that may log in at the broker, or might."""

    kind: Kind
    device_id: str
    tenant_id: str
    username: str
    meter_ids: tuple[str, ...]
    """The meters for which an adapter publishes."""
    collects: bool
    """A concentrator that reads what every adapter publishes on the cloud's own broker."""
    state: State
    """waiting: for its code to be used. expired: its code was not used in time. enrolled: it may log in. revoked: it
    may not any more."""
    created_time: datetime
    code_expires_time: datetime | None
    """Only where a code was not used yet."""
    enrolled_time: datetime | None
    last_seen_time: datetime | None
    """When it logged in last."""
    revoked_time: datetime | None
    refused_count: int
    """How much the broker refused to it, since it was enrolled."""
    refused_time: datetime | None
    """When it did last."""


class DeviceDetail(DeviceItem, frozen=True, kw_only=True, rename="camel"):
    """One device with what was refused to it."""

    refusals: tuple[RefusalItem, ...]
    """Newest first."""


class DeviceList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A page of devices, ordered by kind and id."""

    content: tuple[DeviceItem, ...]
    next_after: str | None
    """Send as ``after`` for the next page; null at the end."""


class NewDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """The body of ``POST /v1/devices``."""

    kind: Kind
    id: str
    """As it stands in the device's configuration: letters, digits, `_` and `-`."""
    meter_ids: Annotated[tuple[str, ...], Meta(max_length=LIMIT_METERS)] = ()
    """For an adapter: the meters for which it may publish, those behind another meter too."""
    collects: bool = False
    """For a concentrator beside the cloud: reads what every adapter publishes on the cloud's own broker."""
    tenant: str | None = None
    """Whose it is; yours if left out."""


class DeviceChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """The body of ``PATCH /v1/devices/{kind}/{id}``."""

    meter_ids: Annotated[tuple[str, ...], Meta(max_length=LIMIT_METERS)]


class CodeAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A one-time code; it is shown this once."""

    device: DeviceItem
    code: str
    expires_time: datetime
    command: str
    """What to run on the device."""


def parse_new(body: bytes) -> NewDevice:
    """Return the device in a request body.

    Raises:
        BadDataError: with a sentence that names the field.
    """
    device = _decoded(body, NewDevice, 'Send {"kind": "adapter", "id": "cellar", "meterIds": ["..."]}.')
    return checked(device)


def checked(device: NewDevice) -> NewDevice:
    """Return ``device`` if it can be.

    Raises:
        BadDataError: an id cannot stand in a topic, or the kind of device does not have what is given.
    """
    check_id(device.id, "device id")
    if len(device.id) > LIMIT_ID_CHARACTERS:
        raise BadDataError(f"`id` has {len(device.id)} characters, at most {LIMIT_ID_CHARACTERS}", reason="bad-device")
    if device.kind == "concentrator" and device.meter_ids:
        raise BadDataError("`meterIds` are an adapter's; a concentrator passes on any meter.", reason="bad-device")
    if device.kind == "adapter" and device.collects:
        raise BadDataError("`collects` is a concentrator's; an adapter reads nothing.", reason="bad-device")
    _check_meters(device.meter_ids)
    return device


def parse_device_change(body: bytes) -> DeviceChange:
    """Return the change in a request body; raises as ``parse_new``."""
    return checked_change(_decoded(body, DeviceChange, 'Send {"meterIds": ["..."]}.'))


def checked_change(change: DeviceChange) -> DeviceChange:
    """Return ``change`` if it can be made; raises as ``checked``."""
    _check_meters(change.meter_ids)
    return change


def parse_enrolment(body: bytes) -> EnrolmentRequest:
    """Return the request of a device that has a code; raises as ``parse_new``."""
    return _decoded(body, EnrolmentRequest, 'Send {"code": "...", "kind": "adapter"}.')


def _decoded(body: bytes, kind: type[Request], example: str) -> Request:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadDataError(f"The body is not understood: {error}. {example}", reason="bad-device") from error


def _check_meters(meter_ids: tuple[str, ...]) -> None:
    for each in meter_ids:
        check_id(each, "smart meter id")
    if len(set(meter_ids)) < len(meter_ids):
        raise BadDataError("`meterIds` names a meter twice.", reason="bad-device")


def username_of(row: Row) -> str:
    """Return the name with which the device in a row logs in at the broker."""
    return f"{row['kind']}-{row['device_id']}"


def made(kind: type[Shown], row: Row, **others: object) -> Shown:
    """Return what a row of ``queries`` shows; ``others`` are the fields that are not in the row."""
    values = {name: others[name] if name in others else row[name] for name in kind.__struct_fields__}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def meters_of(row: Row) -> tuple[str, ...]:
    """Return the meters of a device."""
    meter_ids = row["meter_ids"]
    return tuple(map(str, meter_ids)) if isinstance(meter_ids, list) else ()


def grant_of_row(row: Row) -> Grant:
    """Return what the device in a row may do on the cloud's broker."""
    if row["kind"] == "adapter":
        return adapter_grant(meters_of(row))
    own = concentrator_grant(str(row["device_id"]))
    if not row["collects"]:
        return own
    return collecting(own, str(row["device_id"]))


def refusal_item(row: Row, device: Row) -> RefusalItem:
    """Return a refusal, with a sentence that fits what the device may do now."""
    return made(RefusalItem, row, reason=str(row["detail"]) or advice(device, str(row["kind"]), str(row["topic"])))


def advice(device: Row, kind: str, topic: str) -> str:
    """Return why something was refused to a device, and what to do about it."""
    if kind == "login":
        return "User name or password is wrong: enrol it again with a new code, if it was this device."
    grant = grant_of_row(device)
    allowed = grant.publish if kind == "publish" else grant.read
    if any(matches(each, topic) for each in allowed):
        return "It could not do this then; it may now."
    if kind == "publish" and device["kind"] == "adapter":
        return f"This device may only publish for {_named(meters_of(device))}; {_way_out(topic)}."
    done = "publish on" if kind == "publish" else "read"
    return f"This device may only {done} {_listed(allowed) or 'nothing'}; correct its configuration, or revoke it."


def _way_out(topic: str) -> str:
    try:
        meter_id, _ = split_smart_meter_topic(topic)
    except BadDataError:
        return "correct its configuration, or revoke it"
    return f"add the meter {meter_id} on the devices page if it is its own, or revoke the device"


def _named(meter_ids: tuple[str, ...]) -> str:
    return _listed(meter_ids) if meter_ids else "no meter yet"


def _listed(names: tuple[str, ...]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
