"""Which account somebody has who is known by an OpenID Connect provider: linking, first sign-ins, roles."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from meterway.cloud.access.accounts import no_link, viewer_of
from meterway.cloud.access.audit import AuditLog
from meterway.cloud.access.oidc_config import OidcConfig
from meterway.cloud.access.oidc_tokens import Verified
from meterway.cloud.access.people import check_login, check_name
from meterway.cloud.access.rules import PERMISSIONS
from meterway.cloud.access.secret import digest_of
from meterway.cloud.access.viewer import NOBODY, Role, Viewer
from meterway.cloud.problems import HttpError
from meterway.cloud.store import Row, Store

_KNOWN = """
select account_key, tenant_key, login, role, disabled from account where oidc_issuer = $1 and oidc_subject = $2
"""

_NEW = """
insert into account (login, name, role, tenant_key, oidc_issuer, oidc_subject)
select $3, $4, $5, tenant_key, $1, $2 from tenant where tenant_id = $6
on conflict do nothing returning account_key, tenant_key, login, role, disabled
"""

_LINK = """
update account set oidc_issuer = $1, oidc_subject = $2
where account_key = $3 and not disabled and not exists (
    select from account where oidc_issuer = $1 and oidc_subject = $2 and account_key <> $3) returning 1
"""

_USE_INVITATION = """
with used as (
    delete from sign_in_link l using account a
    where l.account_key = a.account_key and l.digest = $3 and l.expires_time > $4 and not a.disabled
    and not exists (
        select from account where oidc_issuer = $1 and oidc_subject = $2 and account_key <> a.account_key)
    returning l.account_key
), others as (
    delete from sign_in_link l using used where l.account_key = used.account_key and l.digest <> $3
), ended as (
    delete from session s using used where s.account_key = used.account_key
)
update account a set oidc_issuer = $1, oidc_subject = $2 from used where a.account_key = used.account_key
returning a.account_key, a.tenant_key, a.login, a.role, a.disabled
"""

_UNLINK = """
update account a set oidc_issuer = null, oidc_subject = null
where account_key = $1 and exists (select from password p where p.account_key = a.account_key) returning 1
"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What the configuration makes of a token's claims."""

    role: Role | None
    """None: none of the values has one."""
    tenant_id: str | None


class OidcAccounts:
    """The accounts of those that the provider knows; it knows them by issuer and subject, never by e-mail."""

    def __init__(self, config: OidcConfig, store: Store, audit: AuditLog, clock: Callable[[], datetime]) -> None:
        self._config = config
        self._store = store
        self._audit = audit
        self._clock = clock

    async def enter(self, token: Verified) -> Viewer:
        """Return the account of who signs in; it gets the role that the provider says, or is made.

        Raises:
            HttpError: 403, they have none, it is disabled, or they have no role; 409, its login is taken.
            TransientError: the database is away.
        """
        row = await self._known(token)
        if row is None:
            row = await self._made(token)
        return viewer_of(await self._in_role(row, token))

    async def of_program(self, token: Verified) -> Viewer | None:
        """Return whose access token it is, with the role that the token says; None if it is nobody's.

        Its `scope` narrows what it may do, if it names permissions.

        Raises:
            TransientError: the database is away.
        """
        row = await self._known(token)
        if row is None or row["disabled"]:
            return None
        who = viewer_of(row)
        role = self.claimed(token).role if self._decides_role(row) else who.role
        if role is None:
            return None
        named = {scope for text in token.find("scope") for scope in text.split()}
        scopes = frozenset(PERMISSIONS & named) or PERMISSIONS
        return replace(who, role=role, scopes=scopes, expires=token.claims.expires)

    async def link(self, who: Viewer, token: Verified) -> None:
        """Let a viewer sign in with the provider from now on.

        Raises:
            HttpError: 409, another account is linked with the same person there.
            TransientError: the database is away.
        """
        if not await self._store.fetch(_LINK, *_identity(token), who.account_key):
            raise _linked_already()
        self._note_linked(who)

    async def unlink(self, who: Viewer) -> None:
        """End that.

        Raises:
            HttpError: 409, the account has no password, so its owner could not come in again.
            TransientError: the database is away.
        """
        if not await self._store.fetch(_UNLINK, who.account_key):
            raise HttpError(
                409,
                "Your account has no password, so you could not sign in again: have an operator send you a link first.",
                reason="no-password",
            )
        self._audit.note("changed", f"account/{who.actor}", {"unlinked": self._config.issuer}, who=who)

    async def use_invitation(self, secret: str, token: Verified) -> Viewer:
        """Use up a one-time link: its account is from now on of who signed in with the provider.

        Raises:
            HttpError: 404, it is used or expired; 409, another account is linked with the same person there.
            TransientError: the database is away.
        """
        rows = await self._store.fetch(_USE_INVITATION, *_identity(token), digest_of(secret), self._clock())
        if not rows:
            raise _linked_already() if await self._is_link(secret) else no_link()
        who = viewer_of(await self._in_role(rows[0], token))
        self._note_linked(who)
        return who

    async def _is_link(self, secret: str) -> bool:
        sql = "select 1 from sign_in_link where digest = $1 and expires_time > $2"
        return bool(await self._store.fetch(sql, digest_of(secret), self._clock()))

    def claimed(self, token: Verified) -> Claimed:
        """Return role and tenant that the claims say."""
        config = self._config
        role: Role | None = config.role
        if config.role_claim is not None:
            held = token.find(config.role_claim)
            role = next((role for value, role in config.roles.items() if value in held), None)
        tenant_id: str | None = config.tenant
        if config.tenant_claim is not None:
            held = token.find(config.tenant_claim)
            tenant_id = next((tenant for value, tenant in config.tenants.items() if value in held), None)
        return Claimed(role, tenant_id)

    def _decides_role(self, row: Row) -> bool:
        return self._config.role_claim is not None and row["tenant_key"] is not None

    async def _known(self, token: Verified) -> Row | None:
        rows = await self._store.fetch(_KNOWN, *_identity(token))
        return rows[0] if rows else None

    async def _made(self, token: Verified) -> Row:
        if not self._config.create_accounts:
            raise HttpError(
                403,
                f"No account here is linked with yours at {self._config.name}: ask an operator for a link, or sign in "
                "with your password and link it on the page Account.",
                reason="no-account",
            )
        claimed = self.claimed(token)
        if claimed.role is None:
            raise self._no_role()
        if claimed.tenant_id is None:
            raise HttpError(
                403, f"{self._config.name} names no tenant of this cloud for you: ask an operator.", reason="no-tenant"
            )
        login = check_login(self._login(token))
        name = check_name(next(iter(token.find("name")), "")[:1000])
        args = (*_identity(token), login, name, claimed.role, claimed.tenant_id)
        rows = await self._store.fetch(_NEW, *args)
        if not rows:
            raise HttpError(
                409,
                f"There is an account {login} already, or no tenant {claimed.tenant_id}. If the account is yours, sign "
                "in with its password and link it on the page Account.",
                reason="login-taken",
            )
        made = {"made": claimed.role, "tenant": claimed.tenant_id, "by": self._config.issuer}
        self._audit.note("changed", f"account/{login}", made, who=viewer_of(rows[0]))
        return rows[0]

    def _login(self, token: Verified) -> str:
        claim = self._config.login_claim
        found = token.find(claim)
        if not found or (claim == "email" and token.others.get("email_verified") is not True):
            raise HttpError(
                403,
                f"{self._config.name} says no verified `{claim}` of you, after which your account would be called.",
                reason="no-login",
            )
        return found[0]

    async def _in_role(self, row: Row, token: Verified) -> Row:
        """Give an account the role that the provider says, if it decides that."""
        if row["disabled"]:
            raise HttpError(403, "Your account is disabled: ask an operator.", reason="disabled")
        if not self._decides_role(row):
            return row
        role = self.claimed(token).role
        if role is None:
            self._audit.note("sign-in-failed", f"account/{row['login']}", {"reason": "no-role"}, who=NOBODY)
            raise self._no_role()
        if role == row["role"]:
            return row
        rows = await self._store.fetch(
            "update account set role = $2 where account_key = $1 "
            "returning account_key, tenant_key, login, role, disabled",
            row["account_key"],
            role,
        )
        change = {"role": role, "by": self._config.issuer}
        self._audit.note("changed", f"account/{row['login']}", change, who=viewer_of(rows[0]))
        return rows[0]

    def _no_role(self) -> HttpError:
        return HttpError(
            403,
            f"{self._config.name} gives you none of the roles of this cloud: ask an operator.",
            reason="no-role",
        )

    def _note_linked(self, who: Viewer) -> None:
        self._audit.note("changed", f"account/{who.actor}", {"linked": self._config.issuer}, who=who)


def _identity(token: Verified) -> tuple[str, str]:
    return token.claims.iss, token.claims.sub


def _linked_already() -> HttpError:
    return HttpError(
        409, "Another account here is linked with the same person at the provider already.", reason="linked-already"
    )
