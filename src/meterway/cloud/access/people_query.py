"""The statements about people, as ``Context.fetch`` runs them for a viewer, or the store for itself. Pure.

Those that change something run with all rights: they take the tenant of who asks (None: all of them), and do nothing
to what is another tenant's.
"""

from datetime import datetime

from msgspec import UNSET

from meterway.cloud.access.people import AccountChange, ResidentNew
from meterway.cloud.access.viewer import Role, Viewer
from meterway.cloud.query import Statement


def select_me(who: Viewer, now: datetime) -> Statement:
    """Return the statement for ``name``, ``tenant_id``, ``oidc_linked`` and ``tokens`` of the own account."""
    return Statement(
        "select a.name, t.tenant_id, a.oidc_subject is not null as oidc_linked, (select count(*) from api_token p "
        "where p.account_key = $1 and revoked_time is null and expires_time > $2) as tokens "
        "from account a left join tenant t using (tenant_key) where a.account_key = $1",
        (who.account_key, now),
    )


def select_sessions(who: Viewer, now: datetime) -> Statement:
    """Return the statement for the own sessions."""
    return Statement(
        "select left(encode(digest, 'hex'), 16) as session_id, created_time, last_used_time, expires_time, "
        "digest = $2::bytea as current from session where account_key = $1 and expires_time > $3 "
        "order by last_used_time desc limit 100",
        (who.account_key, who.session, now),
    )


def end_session(who: Viewer, session_id: str) -> Statement:
    """Return the statement that ends one of the own sessions."""
    return Statement(
        "delete from session where account_key = $1 and left(encode(digest, 'hex'), 16) = $2 returning 1",
        (who.account_key, session_id),
    )


def select_tokens(who: Viewer, now: datetime) -> Statement:
    """Return the statement for the own tokens that are neither revoked nor expired."""
    return Statement(
        "select api_token_key as token_id, name, scopes, created_time, expires_time, last_used_time from api_token "
        "where account_key = $1 and revoked_time is null and expires_time > $2 order by api_token_key",
        (who.account_key, now),
    )


def add_token(
    who: Viewer, *, digest: bytes, name: str, scopes: list[str], now: datetime, expires: datetime, limit: int
) -> Statement:
    """Return the statement that stores a token and returns it, unless there are ``limit`` already."""
    return Statement(
        """
        insert into api_token (digest, account_key, name, scopes, created_time, expires_time)
        select $1, $2, $3, $4, $5, $6 where $7 > (
            select count(*) from api_token where account_key = $2 and revoked_time is null and expires_time > $5)
        returning api_token_key as token_id, name, scopes, created_time, expires_time, last_used_time
        """,
        (digest, who.account_key, name, scopes, now, expires, limit),
    )


def revoke_token(who: Viewer, token_id: int, now: datetime) -> Statement:
    """Return the statement that revokes one of the own tokens and returns its name."""
    return Statement(
        "update api_token set revoked_time = $3 where account_key = $1 and api_token_key = $2::bigint "
        "and revoked_time is null returning name",
        (who.account_key, token_id, now),
    )


_ACCOUNT = """
select a.login, a.name, a.role, t.tenant_id, a.disabled, a.created_time, a.last_sign_in_time
from {accounts} a left join tenant t using (tenant_key)
"""


def select_accounts(after: str, limit: int) -> Statement:
    """Return the statement for ``limit`` accounts whose login follows ``after``."""
    sql = _ACCOUNT.format(accounts="account") + "where a.login > $1 order by a.login limit $2::bigint"
    return Statement(sql, (after, limit))


def add_account(login: str, name: str, role: Role, tenant_id: str | None) -> Statement:
    """Return the statement that stores an account and returns it; nothing if the login is taken.

    ``tenant_id`` None: of all tenants.
    """
    added = (
        "with added as (insert into account (login, name, role, tenant_key) select $1, $2, $3, tenant_key "
        "from (select null::integer as tenant_key where $4::text is null "
        "union all select tenant_key from tenant where tenant_id = $4) t on conflict do nothing returning *) "
    )
    return Statement(added + _ACCOUNT.format(accounts="added"), (login, name, role, tenant_id))


def change_account(who: Viewer, login: str, change: AccountChange) -> Statement:
    """Return the statement that changes an account, not the own one, and returns it.

    A disabled one loses its sessions, links and tokens.
    """
    name, role, disabled = (None if each is UNSET else each for each in (change.name, change.role, change.disabled))
    changed = """
        with added as (
            update account set name = coalesce($3, name), role = coalesce($4, role), disabled = coalesce($5, disabled)
            where login = $1 and ($2::integer is null or tenant_key = $2) and account_key is distinct from $6
            returning *
        ), sessions as (
            delete from session s using added where s.account_key = added.account_key and added.disabled
        ), links as (
            delete from sign_in_link l using added where l.account_key = added.account_key and added.disabled
        ), tokens as (
            update api_token t set revoked_time = now() from added
            where t.account_key = added.account_key and added.disabled and revoked_time is null
        )
    """
    return Statement(
        changed + _ACCOUNT.format(accounts="added"), (login, who.tenant_key, name, role, disabled, who.account_key)
    )


def select_account_key(who: Viewer, login: str) -> Statement:
    """Return the statement for the key of an account that is not disabled."""
    return Statement(
        "select account_key from account where login = $1 and ($2::integer is null or tenant_key = $2) "
        "and not disabled",
        (login, who.tenant_key),
    )


def select_tenants() -> Statement:
    """Return the statement for the tenants."""
    return Statement(
        "select tenant_id, name, (select count(*) from meter m where m.tenant_key = t.tenant_key) as meters, "
        "(select count(*) from account a where a.tenant_key = t.tenant_key) as accounts, "
        "(select count(*) from concentrator c where c.tenant_key = t.tenant_key) as concentrators "
        "from tenant t order by tenant_key limit 1000",
        (),
    )


def add_tenant(tenant_id: str, name: str) -> Statement:
    """Return the statement that stores a tenant; nothing if the id is taken."""
    return Statement(
        "insert into tenant (tenant_id, name) values ($1, $2) on conflict do nothing returning tenant_id, name, "
        "0 as meters, 0 as accounts, 0 as concentrators",
        (tenant_id, name),
    )


def give_concentrator(tenant_id: str, concentrator_id: str) -> Statement:
    """Return the statement that gives a concentrator to a tenant, with the meters that are heard through it.

    The meters leave their households. Returns how many meters moved; nothing if there is no such tenant.
    """
    return Statement(
        """
        with given as (
            insert into concentrator (concentrator_id, tenant_key)
            select $2, tenant_key from tenant where tenant_id = $1
            on conflict (concentrator_id) do update set tenant_key = excluded.tenant_key returning tenant_key
        ), moved as (
            update meter m set tenant_key = given.tenant_key, household_key = null from given
            where m.concentrator_id = $2 and m.tenant_key <> given.tenant_key returning 1
        )
        select (select count(*) from moved) as meters from given
        """,
        (tenant_id, concentrator_id),
    )


def select_households(after: int, limit: int) -> Statement:
    """Return the statement for ``limit`` households whose number follows ``after``."""
    return Statement(
        "select household_key as household_id, h.name, t.tenant_id from household h join tenant t using (tenant_key) "
        "where household_key > $1::bigint order by household_key limit $2::bigint",
        (after, limit),
    )


def select_residents(household_keys: list[int]) -> Statement:
    """Return the statement for who lives, lived and will live in households."""
    return Statement(
        "select household_key, a.login, a.name, from_time, until_time from resident join account a using (account_key) "
        "where household_key = any($1::integer[]) order by from_time, a.login",
        (household_keys,),
    )


def select_household_meters(household_keys: list[int]) -> Statement:
    """Return the statement for the meters of households."""
    return Statement(
        "select household_key, meter_id, name from meter where household_key = any($1::integer[]) order by meter_id",
        (household_keys,),
    )


def add_household(who: Viewer, name: str, tenant_id: str | None) -> Statement:
    """Return the statement that stores a household; nothing if there is no such tenant, or the name is taken there.

    Without ``tenant_id`` it is one of the tenant of who asks, or else of the first.
    """
    return Statement(
        "with added as (insert into household (tenant_key, name) select tenant_key, $1 from tenant "
        "where ($3::integer is null or tenant_key = $3) and case when $2::text is null then "
        "tenant_key = coalesce($3, 1) else tenant_id = $2 end on conflict do nothing returning *) "
        "select household_key as household_id, added.name, tenant_id from added join tenant using (tenant_key)",
        (name, tenant_id, who.tenant_key),
    )


def add_resident(who: Viewer, household_id: int, login: str, new: ResidentNew) -> Statement:
    """Return the statement that has somebody live in a household; nothing if either is not of one tenant."""
    return Statement(
        """
        insert into resident (account_key, household_key, from_time, until_time)
        select a.account_key, h.household_key, $4, $5 from account a, household h
        where h.household_key = $1::bigint and a.login = $2 and ($3::integer is null or h.tenant_key = $3)
              and a.tenant_key = h.tenant_key
        on conflict (account_key, household_key, from_time) do update set until_time = excluded.until_time
        returning 1
        """,
        (household_id, login, who.tenant_key, new.from_time, new.until_time),
    )


def end_residence(who: Viewer, household_id: int, login: str, until: datetime) -> Statement:
    """Return the statement that ends the newest residence of somebody in a household."""
    return Statement(
        """
        update resident r set until_time = $4 where (account_key, household_key, from_time) = (
            select r.account_key, r.household_key, r.from_time
            from resident r join account a using (account_key) join household h using (household_key)
            where r.household_key = $1::bigint and a.login = $2 and ($3::integer is null or h.tenant_key = $3)
            order by r.from_time desc limit 1) and from_time < $4
        returning 1
        """,
        (household_id, login, who.tenant_key, until),
    )
