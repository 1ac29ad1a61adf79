"""``/v1/meters/{meterId}/signingKey``: whose signature the readings of a meter must carry."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from meterway.cloud import openapi
from meterway.cloud.context import Context, body_of, checked_meter_id, json_answer, no_meter
from meterway.cloud.query import Statement
from meterway.cloud.signing_keys import (
    SigningKeyAnswer,
    SigningKeyChange,
    parse_signing_key,
    select_signing_key,
    set_signing_key,
    signing_key_answer,
)

MeterId = Annotated[str, Path(description="As in the topic: letters, digits, `_` and `-`")]

_KEY = {
    "meterId": "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff",
    "publicKey": "tuRUhFeVOKvhMYs1QLrXgAlhpTTu5oLZalgiNiwRFws",
    "required": True,
}


def signing_keys_router(api: Context) -> APIRouter:
    """Return the routes of the signing keys."""
    router = APIRouter(tags=["meters"])

    @router.get(
        "/v1/meters/{meter_id}/signingKey",
        summary="Show the signing key of a meter",
        responses=openapi.answers(SigningKeyAnswer, "The key", _KEY),
        response_class=Response,
    )
    async def show_signing_key(meter_id: MeterId) -> Response:
        """Show whose signature the readings of a meter carry."""
        return await _answer(api, meter_id, select_signing_key(checked_meter_id(meter_id)))

    @router.put(
        "/v1/meters/{meter_id}/signingKey",
        summary="Set the signing key of a meter",
        responses=openapi.answers(SigningKeyAnswer, "The key as it is now", _KEY),
        openapi_extra=openapi.accepts(SigningKeyChange, {"publicKey": _KEY["publicKey"], "required": True}),
        response_class=Response,
    )
    async def update_signing_key(meter_id: MeterId, request: Request) -> Response:
        """Trust this key and no other; with `required`, readings without its signature go to quarantine."""
        change = parse_signing_key(await body_of(request))
        return await _changed(api, meter_id, change)

    @router.delete(
        "/v1/meters/{meter_id}/signingKey",
        summary="Forget the signing key of a meter",
        responses=openapi.answers(SigningKeyAnswer, "The key as it is now", {**_KEY, "publicKey": None}),
        response_class=Response,
    )
    async def forget_signing_key(meter_id: MeterId) -> Response:
        """Trust the next key whose signature holds: the adapter was replaced."""
        return await _changed(api, meter_id, None)

    return router


async def _changed(api: Context, meter_id: str, change: SigningKeyChange | None) -> Response:
    answer = await _answer(api, meter_id, set_signing_key(checked_meter_id(meter_id), change))
    api.audit.note("changed", meter_id, {"signingKey": change})
    return answer


async def _answer(api: Context, meter_id: str, statement: Statement) -> Response:
    rows = await api.fetch(statement)
    if not rows:
        raise no_meter(meter_id)
    return json_answer(signing_key_answer(rows[0]))
