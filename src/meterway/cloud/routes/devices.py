"""``/v1/devices``: who may log in at the broker, and what was refused to them."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from meterway.cloud import openapi
from meterway.cloud.context import body_of, json_answer
from meterway.cloud.devices.answers import (
    DEFAULT_DEVICES,
    LIMIT_DEVICES,
    CodeAnswer,
    DeviceChange,
    DeviceDetail,
    DeviceList,
    NewDevice,
    parse_device_change,
    parse_new,
)
from meterway.cloud.devices.desk import Desk
from meterway.cloud.devices.registry import Issued
from meterway.core.enrolment import Kind

DeviceKind = Annotated[Kind, Path(description="`adapter` or `concentrator`")]
DeviceId = Annotated[str, Path(description="As in the device's configuration", max_length=64)]

_METER = "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff"
_DEVICE = {
    "kind": "adapter",
    "deviceId": "cellar",
    "tenantId": "main",
    "username": "adapter-cellar",
    "meterIds": [_METER],
    "collects": False,
    "state": "enrolled",
    "createdTime": "2026-11-23T09:00:00Z",
    "codeExpiresTime": None,
    "enrolledTime": "2026-11-23T09:04:11Z",
    "lastSeenTime": "2026-11-23T10:15:00Z",
    "revokedTime": None,
    "refusedCount": 12,
    "refusedTime": "2026-11-23T10:20:00Z",
}
_REFUSAL = {
    "kind": "publish",
    "topic": "smartMeterMessage/x/readings",
    "reason": f"This device may only publish for {_METER}; add the meter x on the devices page if it is its own, or "
    "revoke the device.",
    "count": 12,
    "firstTime": "2026-11-23T10:02:00Z",
    "lastTime": "2026-11-23T10:20:00Z",
}
_CODE = "DGCSP-F5RCM-653G2-X5KYL-UANK7-XMGMI-EX2TZ-ZEHKN"
_ISSUED = {
    "device": _DEVICE,
    "code": _CODE,
    "expiresTime": "2026-11-23T09:15:00Z",
    "command": f"meterway adapter enroll https://cloud.example {_CODE} --config adapter.toml",
}


def devices_router(desk: Desk) -> APIRouter:
    """Return the routes of those who look after devices."""
    router = APIRouter(tags=["devices"])

    @router.get(
        "/v1/devices",
        summary="List devices",
        responses=openapi.answers(
            DeviceList, "Devices with state and refusals", {"content": [_DEVICE], "nextAfter": None}
        ),
        response_class=Response,
    )
    async def list_devices(
        limit: Annotated[int, Query(ge=1, le=LIMIT_DEVICES)] = DEFAULT_DEVICES,
        after: Annotated[str, Query(max_length=80, description="`nextAfter` of the page before")] = "",
    ) -> Response:
        """List the adapters and concentrators that may log in at the broker, or might."""
        kind, _, device_id = after.replace("\0", "").partition("/")
        async with desk.registry() as devices:
            return json_answer(await devices.list((kind, device_id), limit))

    @router.post(
        "/v1/devices",
        summary="Add a device",
        responses=openapi.answers(CodeAnswer, "The code by which it enrols, shown this once", _ISSUED),
        openapi_extra=openapi.accepts(NewDevice, {"kind": "adapter", "id": "cellar", "meterIds": [_METER]}),
        response_class=Response,
    )
    async def add_device(request: Request) -> Response:
        """Add a device; the code is good once, for fifteen minutes. Its meters become its tenant's."""
        desk.need_broker()
        async with desk.registry() as devices:
            return _issued(desk, request, await devices.add(parse_new(await body_of(request))))

    @router.get(
        "/v1/devices/{kind}/{device_id}",
        summary="Show a device",
        responses=openapi.answers(DeviceDetail, "With what was refused to it", {**_DEVICE, "refusals": [_REFUSAL]}),
        response_class=Response,
    )
    async def show_device(kind: DeviceKind, device_id: DeviceId) -> Response:
        """Show one device, and what the broker refused to it since it was enrolled: up to fifty topics."""
        async with desk.registry() as devices:
            return json_answer(await devices.show(kind, _storable(device_id)))

    @router.patch(
        "/v1/devices/{kind}/{device_id}",
        summary="Change an adapter's meters",
        responses=openapi.answers(DeviceDetail, "The device as it is now", {**_DEVICE, "refusals": []}),
        openapi_extra=openapi.accepts(DeviceChange, {"meterIds": [_METER]}),
        response_class=Response,
    )
    async def update_device(kind: DeviceKind, device_id: DeviceId, request: Request) -> Response:
        """Change for which meters an adapter may publish, at once: it is connected anew."""
        change = parse_device_change(await body_of(request))
        async with desk.registry() as devices:
            await devices.set_meters(kind, _storable(device_id), change.meter_ids)
            desk.noted(kind, device_id, "meters changed")
            return json_answer(await devices.show(kind, device_id))

    @router.post(
        "/v1/devices/{kind}/{device_id}/code",
        summary="Make a new code for a device",
        responses=openapi.answers(CodeAnswer, "The code, shown this once; the last one ends", _ISSUED),
        response_class=Response,
    )
    async def renew_code(kind: DeviceKind, device_id: DeviceId, request: Request) -> Response:
        """Let a device enrol again, also one that was revoked. Its password stays until the code is used."""
        desk.need_broker()
        async with desk.registry() as devices:
            return _issued(desk, request, await devices.renew(kind, _storable(device_id)))

    @router.delete(
        "/v1/devices/{kind}/{device_id}",
        summary="Revoke a device",
        responses=openapi.answers(DeviceDetail, "The device as it is now", {**_DEVICE, "state": "revoked"}),
        response_class=Response,
    )
    async def revoke_device(kind: DeviceKind, device_id: DeviceId) -> Response:
        """End a device's connection and take its password and code away, at once. Its readings stay."""
        async with desk.registry() as devices:
            await devices.revoke(kind, _storable(device_id))
            desk.noted(kind, device_id, "revoked")
            return json_answer(await devices.show(kind, device_id))

    return router


def _issued(desk: Desk, request: Request, made: Issued) -> Response:
    device = made.device
    desk.noted(device.kind, device.device_id, "code made")
    base = str(request.base_url).rstrip("/")
    command = f"meterway {device.kind} enroll {base} {made.code} --config {device.kind}.toml"
    return json_answer(CodeAnswer(device=device, code=str(made.code), expires_time=made.expires_time, command=command))


def _storable(text: str) -> str:
    return text.replace("\0", "\ufffd")
