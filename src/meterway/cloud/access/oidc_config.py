"""``[oidc]``: with whose accounts people sign in, beside those of Meterway's own. Pure."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from meterway.cloud.access.viewer import Role
from meterway.core.config import Table
from meterway.core.hosts import is_loopback

CALLBACK = "/sign-in/oidc"

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=40)]


class OidcConfig(Table, frozen=True):
    """An OpenID Connect provider with which people sign in: Keycloak, Authentik, Entra ID, Google and others.

    Register Meterway there as a client with the authorization code flow and the redirect address
    `<url>/sign-in/oidc`.
    """

    issuer: _Text
    """The provider's issuer, exactly as it calls itself: `https://login.example.org/realms/city`."""
    client_id: _Text
    """The name under which Meterway is registered there."""
    url: _Text
    """Where people reach this cloud, without path: `https://meters.example.org`."""
    client_secret_file: Path | None = None
    """A file whose only content is the client's secret. Left out: a public client; PKCE protects both kinds."""
    name: _Name = "single sign-on"
    """What the button says: "Sign in with ..."."""
    scopes: tuple[_Text, ...] = ("openid", "profile", "email")
    """What is asked for; `openid` must be among them."""
    ca_file: Path | None = None
    """The certificate (PEM) of the authority that signed the provider's; left out: a public one did."""
    create_accounts: bool = False
    """Whoever signs in for the first time gets an account. Else only who was invited, or linked their account."""
    login_claim: _Text = "email"
    """What of the ID token a new account is called by. `email` counts only if the provider says that it is verified."""
    role: Literal["auditor", "member", "researcher"] = "member"
    """The role of new accounts, where `role_claim` is left out."""
    role_claim: _Text | None = None
    """What of the ID token says the role, as `groups` or `realm_access.roles`: a text or a list of them. It then
    decides at each sign-in, except for accounts of all tenants; who has no role there is refused."""
    roles: dict[str, Role] = msgspec.field(default_factory=dict)
    """Which role has who has which value in `role_claim`: `{ meter-admins = "operator" }`. The first line that fits
    counts."""
    tenant: _Text = "main"
    """The tenant of new accounts, where `tenant_claim` is left out."""
    tenant_claim: _Text | None = None
    """What of the ID token says the tenant of a new account."""
    tenants: dict[str, str] = msgspec.field(default_factory=dict)
    """Which tenant has who has which value in `tenant_claim`. The first line that fits counts."""
    audience: _Text | None = None
    """Programs may send access tokens (JWT) of this issuer in place of API tokens if they are made for this audience.
    Left out: they may not."""

    def __post_init__(self) -> None:
        for key, url in (("issuer", self.issuer), ("url", self.url)):
            _check_url(key, url)
        if urlsplit(self.url).path not in ("", "/"):
            raise ValueError(f"[oidc] url {self.url!r} must not have a path: https://meters.example.org")
        if "openid" not in self.scopes:
            raise ValueError("[oidc] scopes lacks `openid`, without which there is no ID token")
        for kind, claim, table in (("role", self.role_claim, self.roles), ("tenant", self.tenant_claim, self.tenants)):
            if (claim is None) == bool(table):
                raise ValueError(f"[oidc] {kind}_claim and {kind}s stand together: the claim, and what its values mean")
        if self.audience == self.client_id:
            raise ValueError("[oidc] audience is client_id: ID tokens would pass for access tokens; name the API's own")

    @property
    def origin(self) -> str:
        """Where people reach this cloud, as browsers write it."""
        return self.url.rstrip("/").lower()

    @property
    def redirect_uri(self) -> str:
        return f"{self.origin}{CALLBACK}"


def _check_url(key: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError(f"[oidc] {key} {url!r} is no address such as https://login.example.org")
    if not is_private(url):
        raise ValueError(f"[oidc] {key} {url!r} must begin with https://; http is for this machine alone")


def is_private(url: str) -> bool:
    """Tell whether nobody can listen in on requests to ``url``: TLS, or this machine alone."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
