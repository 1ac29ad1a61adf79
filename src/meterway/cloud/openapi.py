"""The OpenAPI document: FastAPI's, completed with the msgspec types that the routes read and write."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from meterway import __version__
from meterway.cloud.access import rules
from meterway.cloud.access.middleware import COOKIE, SECURE_COOKIE
from meterway.cloud.problems import CONTENT_TYPE, Problem

Part: TypeAlias = dict[str, Any]
"""A piece of the document."""

_SCHEMES: Part = {
    "token": {"type": "http", "scheme": "bearer", "description": "An API token, made at /account"},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": SECURE_COOKIE,
        "description": f"Of POST /v1/sign-in; without TLS it is `{COOKIE}`. What changes something needs the header "
        "`X-CSRF-Token` too, from GET /v1/account.",
    },
}
"""Where a cloud is open to everybody on its machine, nothing has to be proved."""

_REF = "#/components/schemas/{name}"


def answers(kind: type[msgspec.Struct], description: str, example: object) -> dict[int | str, Part]:
    """Return the ``responses`` of a route that answers ``kind``, or a problem."""
    content = {"schema": _ref(kind), "example": example}
    return {200: {"description": description, "content": {"application/json": content}}, **problems()}


def problems() -> dict[int | str, Part]:
    """Return the part of ``responses`` that every route has."""
    example = {
        "title": "Unprocessable Content",
        "status": 422,
        "detail": "`readingTimeEnd` must be later than `readingTimeStart`: the range is [start, end).",
        "reason": "bad-query",
    }
    content = {"schema": _ref(Problem), "example": example}
    return {"default": {"description": "Any error, as RFC 9457", "content": {CONTENT_TYPE: content}}}


def accepts(kind: type[msgspec.Struct], example: object, *, required: bool = True) -> Part:
    """Return the ``openapi_extra`` of a route that reads ``kind``."""
    content = {"application/json": {"schema": _ref(kind), "example": example}}
    return {"requestBody": {"required": required, "content": content}}


def document(app: FastAPI, kinds: Sequence[type[msgspec.Struct]]) -> None:
    """Have ``app`` publish its document with the schemas of ``kinds``."""

    def openapi() -> Part:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app, kinds)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _build(app: FastAPI, kinds: Sequence[type[msgspec.Struct]]) -> Part:
    made = get_openapi(
        title="Meterway",
        version=__version__,
        summary="Smart meter readings: query, live stream, quarantine.",
        description=(
            "The query interface of the Open Meter Data Platform, and what Meterway adds to it. "
            "Numbers have exactly the digits that the meter sent. Errors are problem details (RFC 9457)."
        ),
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        routes=app.routes,
    )
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            operation["security"] = _proofs(rules.RULES[f"{method.upper()} {path}"])
    _, schemas = msgspec.json.schema_components([*kinds, Problem], ref_template=_REF)
    made.setdefault("components", {}).setdefault("schemas", {}).update(_numbers(schemas))
    made["components"]["securitySchemes"] = _SCHEMES
    made["servers"] = [{"url": "/"}]
    return made


def _proofs(demand: rules.Demand) -> list[Part]:
    """Return by which of ``_SCHEMES`` a route has who asks proved."""
    if demand == "anybody":
        return []
    return [{"session": []}] if demand == "session" else [{"token": []}, {"session": []}]


def _numbers(part: Part) -> Part:
    """Return a schema in which a Decimal is the JSON number that we write, not the text that msgspec names."""
    if part.get("format") == "decimal":
        return {**part, "type": "number"}
    return {key: _numbers_within(value) for key, value in part.items()}


def _numbers_within(value: object) -> object:
    if isinstance(value, dict):
        return _numbers(value)
    return [_numbers_within(each) for each in value] if isinstance(value, list) else value


def _ref(kind: type[msgspec.Struct]) -> Part:
    return {"$ref": _REF.format(name=kind.__name__)}
