"""Accounts at work: who a session or a token is, signing in, one-time links. All secrets are stored as digests.

It looks into the database at every request, so that whatever is ended ends at once.
"""

import hmac
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from time import monotonic

from meterway.cloud.access.audit import AuditLog
from meterway.cloud.access.passwords import Hasher, check_password
from meterway.cloud.access.people import check_login, check_name
from meterway.cloud.access.secret import csrf_token_of, digest_of, new_secret
from meterway.cloud.access.tries import Tries
from meterway.cloud.access.viewer import EVERYBODY, NOBODY, Role, Viewer
from meterway.cloud.problems import HttpError
from meterway.cloud.store import Row, Store
from meterway.core.errors import MeterwayError
from meterway.core.hosts import is_loopback

IDLE = timedelta(hours=12)
"""A session that is not used for so long is over."""
LONGEST = timedelta(days=7)
"""No session is older."""
LINK_LIFE = timedelta(hours=24)
NOTE_USE_EVERY = timedelta(minutes=1)
FIRST_LOGIN = "operator"
_FIRST_LOCK = 0x6D657465_70656F70

_log = logging.getLogger(__name__)

_BY_SESSION = """
select a.account_key, a.tenant_key, a.login, a.role, s.last_used_time
from session s join account a using (account_key)
where s.digest = $1 and not a.disabled and s.expires_time > $2 and s.last_used_time > $3
"""

_BEARER = """
select a.account_key, a.tenant_key, a.login, a.role, t.scopes, t.api_token_key, t.last_used_time
from api_token t join account a using (account_key)
where t.digest = $1 and not a.disabled and t.expires_time > $2 and t.revoked_time is null
"""

_BY_LOGIN = """
select a.account_key, a.tenant_key, a.login, a.role, a.disabled, p.password_hash
from account a left join password p using (account_key) where a.login = $1
"""

_STILL = """
select 1 from account a where account_key = $1 and not disabled and role = $2 and tenant_key is not distinct from $3
and case when $4::bytea is not null
    then exists (select from session s where s.digest = $4 and s.account_key = $1 and s.expires_time > $5)
    else exists (select from api_token t where t.api_token_key = $6 and t.account_key = $1 and t.expires_time > $5
                 and t.revoked_time is null) end
"""

_USE_LINK = """
with used as (
    delete from sign_in_link where digest = $1 and expires_time > $2 returning account_key
), changed as (
    update account a set name = $3 from used where a.account_key = used.account_key and not a.disabled
    returning a.account_key, a.tenant_key, a.login, a.role
), others as (
    delete from sign_in_link l using changed where l.account_key = changed.account_key and l.digest <> $1
), ended as (
    delete from session s using changed where s.account_key = changed.account_key
), stored as (
    insert into password (account_key, password_hash) select account_key, $4 from changed
    on conflict (account_key) do update set password_hash = excluded.password_hash
)
select * from changed
"""

_NEW_HASH = """
with ended as (delete from session where account_key = $1), links as (delete from sign_in_link where account_key = $1)
insert into password (account_key, password_hash) values ($1, $2)
on conflict (account_key) do update set password_hash = excluded.password_hash
"""

_FIRST = """
insert into account (login, name, role)
select $1, '', 'operator' where pg_try_advisory_xact_lock($2) and not exists (select from account)
on conflict do nothing returning account_key
"""


@dataclass(frozen=True, slots=True)
class Started:
    """A session that has begun."""

    secret: str
    """For the cookie; it is nowhere else."""
    viewer: Viewer


class Accounts:
    """Who may come in."""

    def __init__(self, store: Store, audit: AuditLog, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._audit = audit
        self._clock = clock
        self._hasher = Hasher()
        self._by_login = Tries(free=10, longest_s=60)
        self._by_address = Tries(free=20, longest_s=900)

    async def by_session(self, secret: str) -> Viewer | None:
        """Return whose session it is; None if it is nobody's, or over.

        Raises:
            TransientError: the database is away.
        """
        now, digest = self._clock(), digest_of(secret)
        rows = await self._store.fetch(_BY_SESSION, digest, now, now - IDLE)
        if not rows:
            return None
        if rows[0]["last_used_time"] < now - NOTE_USE_EVERY:
            await self._store.fetch("update session set last_used_time = $2 where digest = $1", digest, now)
        return viewer_of(rows[0], session=digest, csrf_token=csrf_token_of(secret))

    async def by_token(self, secret: str) -> Viewer | None:
        """Return whose API token it is; None if it is nobody's, expired or revoked.

        Raises:
            TransientError: the database is away.
        """
        now = self._clock()
        rows = await self._store.fetch(_BEARER, digest_of(secret), now)
        if not rows:
            return None
        row = rows[0]
        if row["last_used_time"] is None or row["last_used_time"] < now - NOTE_USE_EVERY:
            await self._store.fetch(
                "update api_token set last_used_time = $2 where api_token_key = $1", row["api_token_key"], now
            )
        return viewer_of(row, scopes=frozenset(row["scopes"]), token_key=row["api_token_key"])

    async def sign_in(self, login: str, password: str, address: str) -> Started:
        """Begin a session with login and password.

        Raises:
            HttpError: 401, they are wrong, which of them is not said; 429, too many tries; 503, too many at once.
            TransientError: the database is away.
        """
        login, now_s = login.strip().lower()[:200], monotonic()
        keys = [(self._by_login, login)]
        if not is_loopback(address):  # behind a proxy of this machine all have the same one
            keys.append((self._by_address, address))
        wait_s = max(tries.pause_s(key, now_s) for tries, key in keys)
        if wait_s > 0:
            raise HttpError(
                429,
                f"Too many tries: wait {int(wait_s) + 1} seconds, or have an operator send you a new link.",
                reason="too-many-tries",
                headers={"Retry-After": str(int(wait_s) + 1)},
            )
        for tries, key in keys:
            tries.failed(key, now_s)
        rows = await self._store.fetch(_BY_LOGIN, login.replace("\0", ""))
        row = rows[0] if rows else None
        right = await self._hasher.verify(password[:1000], row["password_hash"] if row else None)
        if row is None or not right or row["disabled"]:
            self._audit.note("sign-in-failed", f"account/{login}", {"address": address}, who=NOBODY)
            raise HttpError(401, "Login or password is wrong.", reason="wrong-password")
        for tries, key in keys:
            tries.succeeded(key)
        return await self.start_session(viewer_of(row), how={"address": address, "by": "password"})

    async def start_session(self, who: Viewer, *, how: dict[str, str]) -> Started:
        """Begin a session of an account that has proved itself; ``how`` goes to the audit log.

        Raises:
            TransientError: the database is away.
        """
        secret, now = new_secret(), self._clock()
        digest = digest_of(secret)
        await self._store.fetch(
            "with signed as (update account set last_sign_in_time = $3 where account_key = $2) "
            "insert into session (digest, account_key, created_time, last_used_time, expires_time) "
            "values ($1, $2, $3, $3, $4)",
            digest,
            who.account_key,
            now,
            now + LONGEST,
        )
        self._audit.note("signed-in", f"account/{who.actor}", how, who=who)
        return Started(secret, replace(who, session=digest, csrf_token=csrf_token_of(secret)))

    async def end_session(self, who: Viewer) -> None:
        """End the session of a viewer.

        Raises:
            TransientError: the database is away.
        """
        await self._store.fetch("delete from session where digest = $1", who.session)
        self._audit.note("signed-out", f"account/{who.actor}", who=who)

    async def still(self, who: Viewer) -> bool:
        """Tell whether the viewer of a long answer may still see it; False too while the database is away."""
        if who is EVERYBODY:
            return True
        with suppress(MeterwayError):
            if who.expires is not None:
                enabled = "select 1 from account where account_key = $1 and not disabled"
                return who.expires > self._clock() and bool(await self._store.fetch(enabled, who.account_key))
            return bool(
                await self._store.fetch(
                    _STILL, who.account_key, who.role, who.tenant_key, who.session, self._clock(), who.token_key
                )
            )
        return False

    async def make_link(self, account_key: int) -> str:
        """Return the secret of a new one-time link to set the password of an account; older ones end.

        Raises:
            TransientError: the database is away.
        """
        secret = new_secret()
        await self._store.fetch(
            "with old as (delete from sign_in_link where account_key = $2) "
            "insert into sign_in_link (digest, account_key, expires_time) values ($1, $2, $3)",
            digest_of(secret),
            account_key,
            self._clock() + LINK_LIFE,
        )
        return secret

    async def look_at_link(self, secret: str) -> Row | None:
        """Return ``login`` and ``name`` of the account of a link; None if it is used or expired.

        Raises:
            TransientError: the database is away.
        """
        rows = await self._store.fetch(
            "select login, name from sign_in_link join account using (account_key) "
            "where digest = $1 and expires_time > $2 and not disabled",
            digest_of(secret),
            self._clock(),
        )
        return rows[0] if rows else None

    async def use_link(self, secret: str, name: str, password: str, address: str) -> Started:
        """Set name and password of the account of a link, end its other sessions and links, and begin a session.

        Raises:
            HttpError: 404, the link is used or expired.
            BadDataError: name or password are not as they must be.
            TransientError: the database is away.
        """
        known = await self.look_at_link(secret)
        if known is None:
            raise no_link()
        check_password(password, str(known["login"]))
        password_hash = await self._hasher.hash(password)
        rows = await self._store.fetch(_USE_LINK, digest_of(secret), self._clock(), check_name(name), password_hash)
        if not rows:
            raise no_link()
        return await self.start_session(viewer_of(rows[0]), how={"address": address, "by": "link"})

    async def change_password(self, who: Viewer, old: str, new: str, address: str) -> Started:
        """Change the password of a viewer, end all their sessions, and begin a new one.

        Raises:
            HttpError: 403, the old one is wrong; 429, too many tries.
            BadDataError: the new one is not as it must be.
            TransientError: the database is away.
        """
        check_password(new, who.actor)
        await self._check_old(who, old)
        await self._store.fetch(_NEW_HASH, who.account_key, await self._hasher.hash(new))
        self._audit.note("changed", f"account/{who.actor}", {"changed": ["password"]}, who=who)
        return await self.start_session(who, how={"address": address, "by": "new password"})

    async def _check_old(self, who: Viewer, old: str) -> None:
        now_s = monotonic()
        if self._by_login.pause_s(who.actor, now_s) > 0:
            raise HttpError(429, "Too many tries: wait a minute.", reason="too-many-tries")
        self._by_login.failed(who.actor, now_s)
        rows = await self._store.fetch(_BY_LOGIN, who.actor)
        if not await self._hasher.verify(old[:1000], rows[0]["password_hash"] if rows else None):
            raise HttpError(403, "The old password is wrong.", reason="wrong-password")
        self._by_login.succeeded(who.actor)

    async def invite(self, login: str, role: Role, tenant_key: int | None, name: str = "") -> str:
        """Make an account if there is none of that login; return the secret of a link for it.

        Role and tenant of one that is there stay as they are.

        Raises:
            BadDataError: the login cannot be one.
            TransientError: the database is away.
        """
        rows = await self._store.fetch(
            "insert into account (login, name, role, tenant_key) values ($1, $2, $3, $4) "
            "on conflict (login) do update set login = excluded.login returning account_key",
            check_login(login),
            check_name(name),
            role,
            tenant_key,
        )
        return await self.make_link(rows[0]["account_key"])

    async def first_link(self) -> str | None:
        """Make the first operator, if there is no account at all; return the secret of their link.

        Raises:
            TransientError: the database is away.
        """
        rows = await self._store.fetch(_FIRST, FIRST_LOGIN, _FIRST_LOCK)
        return await self.make_link(rows[0]["account_key"]) if rows else None


def same_csrf_token(who: Viewer, sent: str | None) -> bool:
    """Tell whether a request proves that it comes from a page of its own session."""
    expected = (who.csrf_token or "").encode()
    return bool(expected) and hmac.compare_digest(expected, (sent or "").encode("utf-8", "replace"))


def no_link() -> HttpError:
    """Return the error for a link that is used or expired."""
    return HttpError(
        404,
        "This link was used already, or is older than a day: ask an operator for a new one "
        "(`meterway cloud invite` makes one on the server).",
        reason="no-link",
    )


def viewer_of(
    row: Row,
    *,
    scopes: frozenset[str] | None = None,
    session: bytes | None = None,
    token_key: int | None = None,
    csrf_token: str | None = None,
) -> Viewer:
    """Return who the row of an account is."""
    return Viewer(
        account_key=row["account_key"],
        tenant_key=row["tenant_key"],
        actor=row["login"],
        role=row["role"],
        scopes=scopes,
        session=session,
        token_key=token_key,
        csrf_token=csrf_token,
    )
