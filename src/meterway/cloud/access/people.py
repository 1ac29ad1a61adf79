"""Accounts, sessions, tokens, households and tenants as the API shows and takes them. Pure."""

import re
from datetime import datetime
from typing import Annotated, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from meterway.cloud.access.rules import Permission
from meterway.cloud.access.viewer import Role
from meterway.cloud.answers import Answer, Aware, Body, Row
from meterway.core.errors import BadDataError

LIMIT_NAME_CHARACTERS = 80
LIMIT_TOKENS = 50
"""An account has at most so many tokens that are not revoked or expired."""
LIMIT_PAGE = 500
TOKEN_DAYS = 366

_LOGIN = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,127}")

Kind = TypeVar("Kind", bound=msgspec.Struct)

Name = Annotated[str, Meta(max_length=LIMIT_NAME_CHARACTERS)]
Text = Annotated[str, Meta(max_length=1000)]


class SignIn(Body, frozen=True):
    """The body of ``POST /v1/sign-in``."""

    login: Text
    password: Text


class LinkUse(Body, frozen=True):
    """The body of ``POST /v1/link``."""

    secret: Text
    """The last part of the link."""
    name: Name
    password: Text


class PasswordChange(Body, frozen=True):
    """The body of ``POST /v1/account/password``."""

    old: Text
    new: Text


class Me(Answer, frozen=True, kw_only=True):
    """Who asks."""

    login: str
    name: str = ""
    role: Role
    tenant_id: str | None = None
    """null: of all tenants."""
    permissions: tuple[str, ...]
    csrf_token: str | None
    """For the header ``X-CSRF-Token``, where a session asks."""
    home: str
    """The first page they may open."""
    oidc_linked: bool = False
    """Whether the account is linked with the OpenID Connect provider."""
    tokens: int = 0
    """How many API tokens of the account are valid. A new password ends all sessions, but programs go on with these
    until they are revoked."""


class SessionAnswer(Answer, frozen=True):
    """A browser in which somebody is signed in."""

    session_id: str
    created_time: datetime
    last_used_time: datetime
    expires_time: datetime
    current: bool


class SessionList(Answer, frozen=True):
    """The sessions of who asks."""

    content: tuple[SessionAnswer, ...]


class TokenNew(Body, frozen=True):
    """The body of ``POST /v1/tokens``."""

    name: Annotated[str, Meta(min_length=1, max_length=LIMIT_NAME_CHARACTERS)]
    scopes: Annotated[tuple[Permission, ...], Meta(min_length=1)]
    """What it may do; at most what the role may."""
    days: Annotated[int, Meta(ge=1, le=TOKEN_DAYS)] = 90
    """For how long."""


class TokenAnswer(Answer, frozen=True, omit_defaults=True):
    """An API token."""

    token_id: int
    name: str
    scopes: tuple[str, ...]
    created_time: datetime
    expires_time: datetime
    last_used_time: datetime | None
    token: str | None = None
    """The token itself: only in the answer that makes it."""


class TokenList(Answer, frozen=True):
    """The tokens of who asks that are neither revoked nor expired."""

    content: tuple[TokenAnswer, ...]


class AccountAnswer(Answer, frozen=True):
    """A person who may sign in."""

    login: str
    name: str
    role: Role
    tenant_id: str | None
    disabled: bool
    created_time: datetime
    last_sign_in_time: datetime | None


class AccountList(Answer, frozen=True):
    """Accounts, ordered by login."""

    content: tuple[AccountAnswer, ...]
    next_after: str | None
    """Send as ``after`` for the next page; null at the end."""


class AccountNew(Body, frozen=True):
    """The body of ``POST /v1/accounts``."""

    login: str
    role: Role
    name: Name = ""
    tenant_id: str | None = None
    """Without it the tenant of who asks."""


class AccountChange(Body, frozen=True):
    """The body of ``PATCH /v1/accounts/{login}``; what is not given stays."""

    name: Name | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET


class LinkAnswer(Answer, frozen=True):
    """A one-time link to set name and password; it is shown only here."""

    login: str
    link: str
    """Its path; put the address of the cloud before it."""
    expires_time: datetime


class TenantAnswer(Answer, frozen=True):
    """A tenant: somebody whose meters and people nobody else's may see."""

    tenant_id: str
    name: str
    meters: int
    accounts: int
    concentrators: int


class TenantList(Answer, frozen=True):
    """The tenants that who asks may see."""

    content: tuple[TenantAnswer, ...]


class TenantNew(Body, frozen=True):
    """The body of ``POST /v1/tenants``."""

    tenant_id: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
    name: Annotated[str, Meta(min_length=1, max_length=LIMIT_NAME_CHARACTERS)]


class ConcentratorGiven(Body, frozen=True):
    """The body of ``POST /v1/tenants/{tenantId}/concentrators``."""

    concentrator_id: str


class ResidentAnswer(Answer, frozen=True):
    """Who lives in a household, from when to when."""

    login: str
    name: str
    from_time: datetime
    until_time: datetime | None


class HouseholdMeter(Answer, frozen=True):
    """A meter of a household."""

    meter_id: str
    name: str | None


class HouseholdAnswer(Answer, frozen=True):
    """A flat or a house."""

    household_id: int
    name: str
    tenant_id: str
    residents: tuple[ResidentAnswer, ...]
    meters: tuple[HouseholdMeter, ...]


class HouseholdList(Answer, frozen=True):
    """Households, ordered by number."""

    content: tuple[HouseholdAnswer, ...]
    next_after: int | None
    """Send as ``after`` for the next page; null at the end."""


class HouseholdNew(Body, frozen=True):
    """The body of ``POST /v1/households``."""

    name: Annotated[str, Meta(min_length=1, max_length=LIMIT_NAME_CHARACTERS)]
    tenant_id: str | None = None
    """Without it the tenant of who asks."""


class ResidentNew(Body, frozen=True):
    """The body of ``POST /v1/households/{householdId}/residents``."""

    login: str
    from_time: Aware
    until_time: Aware | None = None


class ResidentChange(Body, frozen=True):
    """The body of ``PATCH /v1/households/{householdId}/residents/{login}``: when they moved out."""

    until_time: Aware


def parse(body: bytes, kind: type[Kind]) -> Kind:
    """Return a request body.

    Raises:
        BadDataError: with a sentence that names the field.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadDataError(f"The body is not right: {error}. See /openapi.json.", reason="bad-body") from error


def answer(row: Row, kind: type[Kind], **more: object) -> Kind:
    """Return what a row shows: its columns have the names of the fields, and ``more`` those it has not."""
    return kind(**{name: more[name] if name in more else row[name] for name in kind.__struct_fields__})


def check_login(login: str) -> str:
    """Return a login in lower case.

    Raises:
        BadDataError: it cannot be one.
    """
    login = login.strip().lower()
    if not _LOGIN.fullmatch(login):
        raise BadDataError(
            f"{login[:40]!r} cannot be a login: letters, digits and . _ @ + - make one, as in ada or ada@example.org.",
            reason="bad-login",
        )
    return login


def check_name(name: str) -> str:
    """Return a name without spaces around it.

    Raises:
        BadDataError: it has control characters.
    """
    if not name.isprintable():
        raise BadDataError("The name must not have control characters.", reason="bad-name")
    return name.strip()[:LIMIT_NAME_CHARACTERS]
