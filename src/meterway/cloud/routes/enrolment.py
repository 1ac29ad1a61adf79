"""``/v1/enrol`` and ``/v1/devices/self``: for the devices themselves, which have a code or a password, no account."""

from base64 import b64decode
from binascii import Error as Base64Error

from fastapi import APIRouter, Request, Response
from starlette.responses import PlainTextResponse

from meterway.cloud import openapi
from meterway.cloud.context import body_of, json_answer
from meterway.cloud.devices.answers import parse_enrolment
from meterway.cloud.devices.desk import Desk
from meterway.cloud.problems import HttpError
from meterway.core.enrolment import EnrolmentAnswer, EnrolmentCode, EnrolmentRequest, OwnAnswer

_ENROLLED = {
    "kind": "adapter",
    "deviceId": "cellar",
    "meterIds": ["bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff"],
    "collects": False,
    "brokerUrl": "mqtts://cloud.example:8883",
    "username": "adapter-cellar",
    "password": "43 letters and digits",
    "caCertificate": "-----BEGIN CERTIFICATE-----...",
}


def enrolment_router(desk: Desk) -> APIRouter:
    """Return the routes of the devices themselves."""
    router = APIRouter(tags=["devices"])

    @router.get(
        "/v1/devices/self",
        summary="What a device may know of itself",
        responses=openapi.answers(
            OwnAnswer,
            "Its meters and refusals",
            {
                "kind": "adapter",
                "deviceId": "cellar",
                "meterIds": ["bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff"],
                "refusals": [],
            },
        ),
        response_class=Response,
    )
    async def show_self(request: Request) -> Response:
        """Answer a device that shows its user name and password of the broker (HTTP Basic)."""
        username, password = _basic(request)
        async with desk.trying(request) as devices:
            return json_answer(await devices.own(username, password))

    @router.get(
        "/v1/enrol/ca",
        summary="The certificate that codes pin",
        responses=openapi.problems(),
        response_class=PlainTextResponse,
    )
    async def show_certificate() -> Response:
        """Answer the certificate (PEM) of the authority that signed this server's; to be believed if a code pins it."""
        certificate = desk.pinned_certificate()
        if certificate is None:
            raise HttpError(
                404, "This server's certificate is not of an authority of its own.", reason="no-certificate"
            )
        return PlainTextResponse(certificate, media_type="application/x-pem-file")

    @router.post(
        "/v1/enrol",
        summary="Enrol with a one-time code",
        responses=openapi.answers(EnrolmentAnswer, "What the device logs in with, told this once", _ENROLLED),
        openapi_extra=openapi.accepts(
            EnrolmentRequest, {"code": "DGCSP-F5RCM-653G2-X5KYL-UANK7-XMGMI-EX2TZ-ZEHKN", "kind": "adapter"}
        ),
        response_class=Response,
    )
    async def enrol_device(request: Request) -> Response:
        """Give a device that shows its code a new password for the broker; the one of before ends at once.

        No account is needed. Ten failures in a quarter of an hour, and an address waits.
        """
        desk.need_broker()
        body = await body_of(request)
        async with desk.trying(request) as devices:
            asked = parse_enrolment(body)
            answer = await devices.enrol(asked.kind, EnrolmentCode.parse(asked.code))
        desk.noted(answer.kind, answer.device_id, "enrolled")
        return json_answer(answer)

    return router


def _basic(request: Request) -> tuple[str, str]:
    """Return user name and password (RFC 7617); empty ones if none came."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        username, _, password = b64decode(encoded, validate=True).decode().partition(":")
    except (Base64Error, ValueError):
        return "", ""
    return username, password
