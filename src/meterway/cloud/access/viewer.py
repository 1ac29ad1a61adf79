"""Who asks: the person or program behind a request. Pure.

Every request runs as one viewer, which the access middleware sets before the route begins. The store hands the viewer
to PostgreSQL, whose row-level security then shows only what is theirs; routes need not filter.
"""

from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Role = Literal["operator", "auditor", "member", "researcher"]
"""operator: changes everything of the tenant. auditor: sees everything, audit log included, changes nothing. member:
sees the meters of the own household. researcher: sees no meter, only answers about many households."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """A person, or a program with a person's token."""

    account_key: int | None
    """None: nobody in particular (`[http] open`, or the process itself)."""
    tenant_key: int | None
    """None: of all tenants."""
    actor: str
    """The login, as the audit log names them."""
    role: Role
    scopes: frozenset[str] | None = field(default=None)
    """What a token may do of what the role may; None: all of it."""
    session: bytes | None = field(default=None, repr=False)
    """The digest of the session; None for a token, or nobody in particular."""
    token_key: int | None = field(default=None, repr=False)
    """The key of the API token; None for a session, or nobody in particular."""
    expires: datetime | None = field(default=None)
    """When an access token of an OpenID Connect provider ends; None for a session, an API token, or nobody."""
    csrf_token: str | None = field(default=None, repr=False)
    """What a page of this session sends as ``X-CSRF-Token`` with what is not safe."""

    @property
    def sees_everything(self) -> bool:
        """Whether no row is hidden from them, so that the database need not look."""
        return self.tenant_key is None and self.role in ("operator", "auditor")

    @property
    def settings(self) -> dict[str, str]:
        """What row-level security is told: ``meterway.tenant``, ``.account`` and ``.role``."""
        return {
            "meterway.tenant": "" if self.tenant_key is None else str(self.tenant_key),
            "meterway.account": "" if self.account_key is None else str(self.account_key),
            "meterway.role": self.role,
        }


EVERYBODY = Viewer(account_key=None, tenant_key=None, actor="(open)", role="operator")
"""Who everybody is where the cloud is open, on a loopback address; and the process itself."""

NOBODY = Viewer(account_key=None, tenant_key=None, actor="(nobody)", role="researcher", scopes=frozenset())
"""Who has not signed in: may do nothing, and sees no row."""

viewer: ContextVar[Viewer] = ContextVar("viewer", default=EVERYBODY)
"""The viewer of the request that runs."""
