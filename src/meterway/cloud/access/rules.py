"""Who may do what: the permission that each route demands, and the permissions that each role has. Pure.

What is not in ``RULES`` is refused, whoever asks: a new route needs a line here, and a test walks all routes.
"""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias, get_args

from meterway.cloud.access.viewer import Role, Viewer

Permission: TypeAlias = Literal["read", "write", "devices", "people", "audit", "export", "research"]
"""read: meters, readings, completeness. write: claim and name meters, replay, delete readings. devices: enrol, revoke.
people: accounts, households, tenants, erasures, retention. audit: the audit log, proofs of erasures. export: all that
is known of oneself (staff: of others too), which is everybody's right. research: answers about many households."""

Demand: TypeAlias = Permission | Literal["anybody", "account", "session"]
"""A permission; or anybody, signed in or not; or any account, by session or token; or any account, by session only."""

PERMISSIONS: frozenset[str] = frozenset(get_args(Permission))

ROLES: Mapping[Role, frozenset[str]] = {
    "operator": PERMISSIONS,
    "auditor": frozenset({"read", "audit", "export"}),
    "member": frozenset({"read", "export"}),
    "researcher": frozenset({"export", "research"}),
}

RULES: Mapping[str, Demand] = {
    # Pages. A page whose demand is not met is not offered in the navigation either.
    "GET /": "read",
    "GET /sign-in": "anybody",
    "GET /sign-in/oidc": "anybody",
    "GET /link/{secret}": "anybody",
    "GET /account": "account",
    "GET /people": "people",
    "GET /audit": "audit",
    "GET /devices": "devices",
    "GET /privacy": "account",
    "GET /static/{file:path}": "anybody",
    # Operation.
    "GET /healthz": "anybody",
    "GET /readyz": "anybody",
    "GET /metrics": "read",
    "GET /openapi.json": "account",
    # Signing in, and the own account.
    "POST /v1/sign-in": "anybody",
    "POST /v1/sign-in/oidc": "anybody",
    "POST /v1/link": "anybody",
    "POST /v1/sign-out": "session",
    "GET /v1/account": "account",
    "POST /v1/account/password": "session",
    "POST /v1/account/oidc": "session",
    "DELETE /v1/account/oidc": "session",
    "GET /v1/sessions": "session",
    "DELETE /v1/sessions/{session_id}": "session",
    "GET /v1/tokens": "session",
    "POST /v1/tokens": "session",
    "DELETE /v1/tokens/{token_id}": "session",
    # Meters and readings.
    "GET /v1/meters": "read",
    "GET /v1/meters/{meter_id}": "read",
    "PATCH /v1/meters/{meter_id}": "write",
    "GET /v1/meters/{meter_id}/curve": "read",
    "GET /v1/meters/{meter_id}/signingKey": "read",
    "PUT /v1/meters/{meter_id}/signingKey": "write",
    "DELETE /v1/meters/{meter_id}/signingKey": "write",
    "GET /v1/curve": "read",
    "GET /v1/live": "read",
    "POST /v1/meterReadings": "read",
    "GET /v1/meterReadings/bulk": "read",
    "DELETE /v1/meterReadings": "write",
    "GET /v1/meters/{meter_id}/completeness": "read",
    "GET /v1/completeness": "read",
    # Devices; those themselves show a code or their password.
    "GET /v1/devices": "devices",
    "POST /v1/devices": "devices",
    "GET /v1/devices/self": "anybody",
    "GET /v1/devices/{kind}/{device_id}": "devices",
    "PATCH /v1/devices/{kind}/{device_id}": "devices",
    "DELETE /v1/devices/{kind}/{device_id}": "devices",
    "POST /v1/devices/{kind}/{device_id}/code": "devices",
    "GET /v1/enrol/ca": "anybody",
    "POST /v1/enrol": "anybody",
    # What was kept aside.
    "GET /v1/quarantine": "read",
    "GET /v1/quarantine/{item_id}": "read",
    "POST /v1/quarantine/replay": "write",
    "GET /v1/faults": "read",
    "GET /v1/conflicts": "read",
    # People.
    "GET /v1/accounts": "people",
    "POST /v1/accounts": "people",
    "PATCH /v1/accounts/{login}": "people",
    "POST /v1/accounts/{login}/link": "people",
    "GET /v1/tenants": "people",
    "POST /v1/tenants": "people",
    "POST /v1/tenants/{tenant_id}/concentrators": "people",
    "GET /v1/households": "people",
    "POST /v1/households": "people",
    "POST /v1/households/{household_id}/residents": "people",
    "PATCH /v1/households/{household_id}/residents/{login}": "people",
    "GET /v1/audit": "audit",
    # Privacy. A consent, and the wish to be erased, are given by a person and not by a program.
    "GET /v1/privacy": "account",
    "GET /v1/privacy/export": "export",
    "POST /v1/privacy/erasureRequest": "session",
    "DELETE /v1/privacy/erasureRequest": "session",
    "GET /v1/privacy/erasureRequests": "people",
    "GET /v1/privacy/erasures": "audit",
    "POST /v1/privacy/erasures": "people",
    "GET /v1/privacy/erasures/{erasure_id}": "audit",
    "GET /v1/privacy/retention": "audit",
    "PUT /v1/privacy/retention": "people",
    "GET /v1/consents": "account",
    "POST /v1/consents": "session",
    "DELETE /v1/consents/{consent_id}": "session",
    "POST /v1/research": "research",
}


class Found(NamedTuple):
    """What the table says of a method and a path."""

    demand: Demand | None
    """None: refused, whoever asks."""
    other_methods: tuple[str, ...]
    """What may be done at the path."""


def find(method: str, path: str) -> Found:
    """Return what ``method`` at ``path`` demands. HEAD is as GET; a path that stands in the table is no pattern's."""
    methods = _PATHS.get(path)
    if methods is None:
        methods = {}
        for each, pattern, demand in _PATTERNS:
            if pattern.fullmatch(path):
                methods.setdefault(each, demand)
    return Found(methods.get("GET" if method == "HEAD" else method), tuple(sorted(methods)))


def permissions(viewer: Viewer) -> frozenset[str]:
    """Return what a viewer may do: what the role may, and if it is a token, of that what its scopes name."""
    of_role = ROLES[viewer.role]
    return of_role if viewer.scopes is None else of_role & viewer.scopes


def meets(viewer: Viewer, demand: Demand) -> bool:
    """Tell whether a viewer that has signed in may do what demands ``demand``."""
    if demand == "session":
        return viewer.scopes is None
    return demand in ("anybody", "account") or demand in permissions(viewer)


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"\{\w+(:path)?\}", path)
    # re.split puts the group between the texts: None for a name, ":path" for the rest of a path.
    made = [
        re.escape(part or "") if index % 2 == 0 else (".+" if part else "[^/]+") for index, part in enumerate(parts)
    ]
    return re.compile("".join(made), re.DOTALL)


def _paths() -> dict[str, dict[str, Demand]]:
    found: dict[str, dict[str, Demand]] = {}
    for rule, demand in RULES.items():
        method, _, path = rule.partition(" ")
        if "{" not in path:
            found.setdefault(path, {})[method] = demand
    return found


def _patterns() -> list[tuple[str, re.Pattern[str], Demand]]:
    split = [(rule.partition(" "), demand) for rule, demand in RULES.items()]
    return [(method, _pattern(path), demand) for (method, _, path), demand in split]


_PATHS = _paths()
_PATTERNS = _patterns()
