"""What the routes about devices share: the registry for a request, its errors as problems, and who tries too often."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from fastapi import Request

from meterway.cloud.access.tries import Tries
from meterway.cloud.access.viewer import viewer
from meterway.cloud.context import Context
from meterway.cloud.devices.registry import STATUSES, BrokerForDevices, Registry, certificate_in
from meterway.cloud.problems import HttpError
from meterway.core.errors import BadDataError, SetupError, TransientError

FREE_TRIES = 10
LONGEST_PAUSE_S = 900.0


class Desk:
    """One per application; without ``broker`` nobody can enrol."""

    def __init__(self, api: Context, broker: BrokerForDevices | None) -> None:
        self._api = api
        self._broker = broker
        self._tries = Tries(free=FREE_TRIES, longest_s=LONGEST_PAUSE_S)

    def need_broker(self) -> None:
        """Raise ``HttpError`` 503 if no device could be told where to log in."""
        if self._broker is None:
            raise HttpError(
                503,
                "This server knows no broker for devices: set [devices] broker_url, or let it start one of its own.",
                reason="no-broker",
            )

    def pinned_certificate(self) -> str | None:
        """Return the certificate (PEM) that codes pin, if any."""
        with _as_problems():
            return certificate_in(self._broker.pinned_ca_file if self._broker else None)

    @asynccontextmanager
    async def registry(self) -> AsyncIterator[Registry]:
        """Lend the devices that the viewer of this request may handle; what is refused becomes an ``HttpError``."""
        with _as_problems():
            yield self._registry(viewer.get().tenant_key)

    @asynccontextmanager
    async def trying(self, request: Request) -> AsyncIterator[Registry]:
        """Lend all devices to somebody who shows a secret; failures are counted by address.

        Raises:
            HttpError: as above; 429, too many failures came from there.
        """
        address = request.client.host if request.client else ""
        pause_s = self._tries.pause_s(address, time.monotonic())
        if pause_s > 0:
            raise HttpError(
                429,
                f"Too many wrong codes or passwords came from here; try again in {pause_s:.0f} seconds.",
                reason="too-often",
                headers={"Retry-After": f"{pause_s:.0f}"},
            )
        self._tries.failed(address, time.monotonic())
        with _as_problems():
            yield self._registry(None)
        self._tries.succeeded(address)

    def noted(self, kind: str, device_id: str, what: str) -> None:
        """Have the audit log say what was done to a device."""
        self._api.audit.note("changed", f"device/{kind}-{device_id}", {"what": what})

    def _registry(self, tenant_key: int | None) -> Registry:
        return Registry(self._api.fetch_all, self._broker or BrokerForDevices(""), self._api.clock, tenant_key)


@contextmanager
def _as_problems() -> Iterator[None]:
    try:
        yield
    except BadDataError as error:
        headers = {"WWW-Authenticate": 'Basic realm="Meterway devices"'} if error.reason == "wrong-password" else None
        raise HttpError(STATUSES.get(error.reason, 422), str(error), reason=error.reason, headers=headers) from error
    except TransientError as error:
        raise HttpError(503, f"{error}; make a new code and try again in a moment.", reason="broker-away") from error
    except SetupError as error:
        raise HttpError(503, f"{error}.", reason="no-certificate") from error
