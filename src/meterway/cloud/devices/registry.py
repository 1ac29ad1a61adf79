"""The provisioning table: devices are added, given a one-time code, enrolled, changed and revoked here.

Each step is one statement, so that it happens whole or not at all, whoever else is at it; whatever guards a broker
hears of it through the database (see ``directory``).
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from ssl import PEM_cert_to_DER_cert
from types import MappingProxyType
from typing import Final, TypeAlias

from meterway.cloud.answers import Row
from meterway.cloud.devices import queries
from meterway.cloud.devices.answers import (
    DeviceDetail,
    DeviceItem,
    DeviceList,
    NewDevice,
    grant_of_row,
    made,
    refusal_item,
    username_of,
)
from meterway.cloud.query import Statement
from meterway.core.enrolment import SECRET_BYTES, EnrolmentAnswer, EnrolmentCode, OwnAnswer, pin_of
from meterway.core.errors import BadDataError, SetupError
from meterway.core.grants import Grant

CODE_LIFE: Final = timedelta(minutes=15)
_PASSWORD_BYTES: Final = 32
FIRST_TENANT: Final = "main"

STATUSES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "no-device": 404,
        "device-taken": 409,
        "meter-taken": 409,
        "no-code": 403,
        "not-yours": 403,
        "wrong-password": 401,
    }
)
"""The reasons of what is refused here, and the HTTP status of each."""

Fetch: TypeAlias = Callable[[Statement], Awaitable[Sequence[Row]]]


@dataclass(frozen=True, slots=True)
class BrokerForDevices:
    """Where devices find the broker, and what they trust there."""

    url: str
    ca_file: Path | None = None
    """The certificate of the authority that signed the broker's; None: a public one did, or there is no TLS."""
    pinned_ca_file: Path | None = None
    """That of the authority that signed the cloud's own, for HTTPS; it is pinned by codes. None as above."""
    let_in: Callable[[str, Grant, str], Awaitable[None]] | None = None
    """Gives a user name its rights and password at a broker that does not ask the table."""


def certificate_in(ca_file: Path | None) -> str | None:
    """Return the certificate (PEM) in a file.

    Raises:
        SetupError: it cannot be read.
    """
    if ca_file is None:
        return None
    try:
        return ca_file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{ca_file}, the certificate for devices, cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Issued:
    """A code that was just made."""

    device: DeviceItem
    code: EnrolmentCode
    expires_time: datetime


class Registry:
    """The devices of one tenant, or of all (``tenant_key`` None).

    ``fetch`` runs a statement; what it raises comes out of every method. What a caller can mend is a BadDataError
    with one of the reasons in ``STATUSES``, or ``bad-device``.
    """

    def __init__(
        self, fetch: Fetch, broker: BrokerForDevices, clock: Callable[[], datetime], tenant_key: int | None = None
    ) -> None:
        self._fetch = fetch
        self._broker = broker
        self._clock = clock
        self._tenant_key = tenant_key

    async def list(self, after: tuple[str, str], limit: int) -> DeviceList:
        """Return ``limit`` devices that follow the kind and id ``after``."""
        rows = await self._fetch(queries.select_devices(self._tenant_key, after, limit + 1))
        content = tuple(made(DeviceItem, row) for row in rows[:limit])
        more = len(rows) > limit
        return DeviceList(content=content, next_after=f"{content[-1].kind}/{content[-1].device_id}" if more else None)

    async def show(self, kind: str, device_id: str) -> DeviceDetail:
        """Return a device with what was refused to it."""
        row = await self._row(kind, device_id)
        refused = await self._fetch(queries.select_refusals(row["device_key"]))
        return made(DeviceDetail, row, refusals=tuple(refusal_item(each, row) for each in refused))

    async def add(self, device: NewDevice) -> Issued:
        """Add a device and return the code with which it enrols.

        Its meters become its tenant's, also those that have not reported yet.
        """
        tenant_key = await self._tenant(device.tenant)
        if device.collects and self._tenant_key is not None:
            raise _collects()
        await self._claim(tenant_key, device.meter_ids)
        if device.kind == "concentrator":
            await self._claim_concentrator(tenant_key, device.id)
        added = await self._fetch(
            queries.add_device(tenant_key, device.kind, device.id, device.meter_ids, collects=device.collects)
        )
        if not added:
            raise BadDataError(
                f"There is a device {device.kind} {device.id} already: make a new code for it, or choose another id.",
                reason="device-taken",
            )
        return await self.renew(device.kind, device.id)

    async def renew(self, kind: str, device_id: str) -> Issued:
        """Return a new code for a device; its last one ends. Its password stays until the code is used."""
        await self._need_right(kind, device_id)
        code = EnrolmentCode(secrets.token_bytes(SECRET_BYTES), self._pin())
        expires_time = self._clock() + CODE_LIFE
        if not await self._fetch(queries.add_code(self._tenant_key, kind, device_id, code.digest, expires_time)):
            raise _no_device(kind, device_id)
        return Issued(made(DeviceItem, await self._row(kind, device_id)), code, expires_time)

    async def set_meters(self, kind: str, device_id: str, meter_ids: tuple[str, ...]) -> None:
        """Change for which meters an adapter publishes, at once."""
        row = await self._row(kind, device_id)
        if kind != "adapter":
            raise BadDataError("A concentrator passes on any meter: it has no `meterIds`.", reason="bad-device")
        await self._claim(await self._tenant(str(row["tenant_id"])), meter_ids)
        await self._fetch(queries.set_meters(self._tenant_key, kind, device_id, meter_ids))

    async def revoke(self, kind: str, device_id: str) -> None:
        """Take a device's password and code away, at once; it stays in the list, and a new code lets it in again."""
        await self._need_right(kind, device_id)
        if not await self._fetch(queries.revoke_device(self._tenant_key, kind, device_id, self._clock())):
            raise _no_device(kind, device_id)

    async def enrol(self, kind: str, code: EnrolmentCode) -> EnrolmentAnswer:
        """Use a code up and give its device a new password; the one of before ends at once.

        Raises:
            BadDataError: no such code waits (``no-code``); the sentence says whether it was used or is too old.
            TransientError: the broker does not take the password now; the code is used up.
        """
        password = secrets.token_urlsafe(_PASSWORD_BYTES)
        ca_certificate = certificate_in(self._broker.ca_file)
        now = self._clock()
        rows = await self._fetch(queries.enrol_device(kind, code.digest, now, digest_of(password)))
        if not rows:
            raise await self._bad_code(code, now)
        if self._broker.let_in is not None:
            await self._broker.let_in(username_of(rows[0]), grant_of_row(rows[0]), password)
        return made(
            EnrolmentAnswer,
            rows[0],
            broker_url=self._broker.url,
            username=username_of(rows[0]),
            password=password,
            ca_certificate=ca_certificate,
        )

    async def own(self, username: str, password: str) -> OwnAnswer:
        """Return what a device may know of itself.

        Raises:
            BadDataError: there is no such device, or its password is another (``wrong-password``).
        """
        kind, _, device_id = username.replace("\0", "").partition("-")
        rows = await self._fetch(queries.select_own(kind, device_id, digest_of(password)))
        if not rows:
            raise BadDataError(
                "No device has this user name and password; enrol it again with a new code.", reason="wrong-password"
            )
        refused = await self._fetch(queries.select_refusals(rows[0]["device_key"]))
        return made(OwnAnswer, rows[0], refusals=tuple(refusal_item(each, rows[0]) for each in refused))

    async def _row(self, kind: str, device_id: str) -> Row:
        rows = await self._fetch(queries.select_device(self._tenant_key, kind, device_id))
        if not rows:
            raise _no_device(kind, device_id)
        return rows[0]

    async def _need_right(self, kind: str, device_id: str) -> None:
        """See that the caller may take over a device or put it off: one that collects is there for all tenants."""
        if (await self._row(kind, device_id))["collects"] and self._tenant_key is not None:
            raise _collects()

    async def _tenant(self, tenant_id: str | None) -> int:
        """Return the key of the tenant that is named, or of the caller's own."""
        if tenant_id is None and self._tenant_key is not None:
            return self._tenant_key
        rows = await self._fetch(queries.select_tenant((tenant_id or FIRST_TENANT).replace("\0", "")))
        if not rows or self._tenant_key not in (None, rows[0]["tenant_key"]):
            raise BadDataError(f"There is no tenant {tenant_id} of yours.", reason="not-yours")
        key = rows[0]["tenant_key"]
        return key if isinstance(key, int) else 0

    async def _claim(self, tenant_key: int, meter_ids: Sequence[str]) -> None:
        """Have meters belong to a tenant; that of one tenant is no other's, even before it reports."""
        if not meter_ids:
            return
        await self._fetch(queries.claim_meters(tenant_key, meter_ids, of_all=self._tenant_key is None))
        taken = await self._fetch(queries.select_taken(tenant_key, meter_ids))
        if taken:
            named = ", ".join(str(row["meter_id"]) for row in taken)
            raise BadDataError(
                f"Another tenant has {named} already: correct `meterIds`, or have an operator of all tenants move it.",
                reason="meter-taken",
            )

    async def _claim_concentrator(self, tenant_key: int, device_id: str) -> None:
        """Have a concentrator, and so what it reports, belong to a tenant."""
        await self._fetch(queries.claim_concentrator(tenant_key, device_id, of_all=self._tenant_key is None))
        if await self._fetch(queries.select_concentrator_taken(tenant_key, device_id)):
            raise BadDataError(
                f"Another tenant has a concentrator or meter {device_id}; choose another id.", reason="device-taken"
            )

    def _pin(self) -> bytes:
        certificate = certificate_in(self._broker.pinned_ca_file)
        return pin_of(PEM_cert_to_DER_cert(certificate)) if certificate else b""

    async def _bad_code(self, code: EnrolmentCode, now: datetime) -> BadDataError:
        rows = await self._fetch(queries.select_code(code.digest))
        said = "No device waits for this code; it may have been replaced by a newer one"
        if rows and isinstance(used := rows[0]["used_time"], datetime):
            said = f"This code was used at {used:%H:%M:%S} UTC; if that was not you, revoke the device"
        elif rows and isinstance(over := rows[0]["expires_time"], datetime) and over <= now:
            said = f"This code was good until {over:%H:%M} UTC"
        elif rows:
            return BadDataError(f"This code is for a device of the kind {rows[0]['kind']}.", reason="no-code")
        return BadDataError(f"{said}. Make a new one on the devices page.", reason="no-code")


def digest_of(password: str) -> bytes:
    """Return what is stored of a device's password."""
    return sha256(password.encode()).digest()


def _collects() -> BadDataError:
    return BadDataError(
        "A concentrator that collects reads all tenants' meters: only an operator of all of them may handle one.",
        reason="not-yours",
    )


def _no_device(kind: str, device_id: str) -> BadDataError:
    return BadDataError(
        f"There is no device {kind} {device_id}; `meterway cloud device list`, or GET /v1/devices, lists those that "
        "there are.",
        reason="no-device",
    )
