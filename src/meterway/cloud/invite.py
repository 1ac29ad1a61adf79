"""``meterway cloud invite``: a one-time link for an account, made beside the running cloud."""

from datetime import UTC, datetime

from meterway.cloud.access.accounts import Accounts
from meterway.cloud.access.audit import AuditLog
from meterway.cloud.access.viewer import Role, Viewer
from meterway.cloud.backup import reachable
from meterway.cloud.config import CloudConfig, HttpConfig
from meterway.cloud.store import Store
from meterway.core.errors import SetupError

_ON_THE_SERVER = Viewer(account_key=None, tenant_key=None, actor="(meterway cloud invite)", role="operator")


async def invited(config: CloudConfig, login: str, role: Role, tenant_id: str | None) -> str:
    """Return a link for an account, which is made if there is none of that login.

    Raises:
        SetupError: there is no such tenant, or the database is not that of a cloud.
        BadDataError: the login cannot be one.
        TransientError: the database is away.
    """
    async with reachable(config.database) as dsn, await Store.connect(dsn, connections=2) as store:
        await store.migrate(now=_utc_now())
        audit = AuditLog(store, _utc_now)
        tenant_key = await _tenant_key(store, tenant_id or ("main" if role == "member" else None))
        secret = await Accounts(store, audit, _utc_now).invite(login, role, tenant_key)
        audit.note("changed", f"account/{login}", {"made": "link"}, who=_ON_THE_SERVER)
        await audit.flush()
    return f"{_address(config.http)}/link/{secret}"


async def _tenant_key(store: Store, tenant_id: str | None) -> int | None:
    if tenant_id is None:
        return None
    rows = await store.fetch("select tenant_key from tenant where tenant_id = $1", tenant_id)
    if not rows:
        raise SetupError(f"there is no tenant {tenant_id}: an operator adds it on the page People")
    key: int = rows[0]["tenant_key"]
    return key


def _address(http: HttpConfig) -> str:
    """Return where people reach the cloud, as well as the configuration tells."""
    name = http.names[0] if http.names else http.host
    return f"{'https' if http.speaks_tls else 'http'}://{f'[{name}]' if ':' in name else name}:{http.port}"


def _utc_now() -> datetime:
    return datetime.now(UTC)
