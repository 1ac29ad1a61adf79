"""The cloud as one process: its database, ingest, and the query API with the pages."""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from fastapi import FastAPI

from meterway.bus.mqtt import MqttBus
from meterway.cloud.api import create_app
from meterway.cloud.config import CloudConfig, DatabaseConfig
from meterway.cloud.devices.guard import broker_for_devices, guarded_broker
from meterway.cloud.devices.mosquitto import guarded_mosquitto
from meterway.cloud.devices.mosquitto_log import noting_refusals
from meterway.cloud.ingest import Ingest
from meterway.cloud.keep_ledger import keep_ledger
from meterway.cloud.postgres import Cluster, EmbeddedPostgres
from meterway.cloud.server import redirecting, serving
from meterway.cloud.store import Bounds, Store
from meterway.cloud.tls import server_tls
from meterway.core.errors import SetupError, TransientError
from meterway.delivery.confirm import Confirmer

if TYPE_CHECKING:
    from meterway.bus.broker import EmbeddedBroker
    from meterway.cloud.access.oidc_config import OidcConfig
    from meterway.cloud.access.oidc_provider import Provider

_log = logging.getLogger(__name__)

DSN_VARIABLE = "METERWAY_DSN"

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 5.0


async def run(config: CloudConfig, *, ready: Callable[[], None]) -> None:
    """Run until cancelled; calls ``ready`` once the database is there, HTTP is served and the broker connected.

    A database or a broker that is away is waited for, at the start and later; the log and /readyz say so.

    Raises:
        SetupError: the configuration, the database or the port cannot be used as they are.
    """
    try:
        async with AsyncExitStack() as stack:
            await _start(config, stack)
            ready()
            await asyncio.Event().wait()
    except BaseExceptionGroup as group:  # not `except*`: Python before 3.11.4 wraps again what it raises
        found, other = group.split(SetupError)
        if found is None or other is not None:
            raise
        raise _first(found) from group


async def _start(config: CloudConfig, stack: AsyncExitStack) -> None:
    if config.database.embedded is not None and config.role == "all":
        await stack.enter_async_context(EmbeddedPostgres(config.database.embedded))
    store = await stack.enter_async_context(await _open_store(config))
    ingest = Ingest(store, config.ingest, clock=_utc_now)
    broker = config.broker
    expires: dict[str, Callable[[], datetime | None]] = {}
    embedded: EmbeddedBroker | None = None
    if config.embedded_broker is not None and config.role == "all":
        embedded = guard = await stack.enter_async_context(guarded_broker(config.embedded_broker, store, _utc_now))
        expires["broker_certificate"] = lambda: guard.certificate.expires if guard.certificate else None
        broker = embedded.config()
        _log.info("broker at %s", broker.url)
    tasks = await stack.enter_async_context(asyncio.TaskGroup())
    bus: MqttBus | None = None
    if config.role != "api":
        handlers = dict.fromkeys(config.ingest.filters, ingest.receive)
        bus = await stack.enter_async_context(MqttBus(broker, f"meterway-cloud-{config.worker}", handlers))
        tasks.create_task(ingest.run(Confirmer(bus).confirm), name="meterway.cloud.ingest")
        tasks.create_task(keep_ledger(store, config.ledger, _utc_now), name="meterway.cloud.ledger")
    if config.role != "ingest":
        mosquitto = None
        if config.devices.mosquitto is not None:
            mosquitto = await stack.enter_async_context(guarded_mosquitto(config.devices.mosquitto, store))
        if config.devices.mosquitto_log is not None:
            await stack.enter_async_context(noting_refusals(config.devices.mosquitto_log, store, _utc_now))
        app = create_app(
            store,
            replay=ingest.replay,
            hosts=config.http.all_names,
            ready=lambda: _missing(ingest, bus),
            counters=ingest.counters.totals,
            gauges=lambda: {**_expiries(expires), **ingest.gauges(), **store.gauges(), **_connections(bus)},
            is_open=config.http.open,
            keep_audit=timedelta(days=config.audit.keep_days),
            provider=_provider(config.oidc) if config.oidc is not None else None,
            devices=broker_for_devices(config, embedded, mosquitto),
            privacy=config.privacy,
        )
        await _serve(app, config, stack, expires)
    if bus is not None:
        await bus.wait_connected()


def _provider(config: "OidcConfig") -> "Provider":
    """Return the provider; only who has one loads the HTTP client.

    Raises:
        SetupError: a file cannot be read.
    """
    from meterway.cloud.access.oidc_provider import Provider

    return Provider(config)


async def _serve(
    app: FastAPI, config: CloudConfig, stack: AsyncExitStack, expires: dict[str, Callable[[], datetime | None]]
) -> None:
    """Serve the API and the pages, beyond this machine with TLS; notes what expires when.

    Raises:
        SetupError: a port is taken, or the certificate cannot be used.
    """
    http, context = config.http, None
    if http.speaks_tls:
        tls = await stack.enter_async_context(server_tls(http, config.certificate_dir, clock=_utc_now))
        context = tls.context
        expires["http_certificate"] = lambda: tls.expires
        if (authority := tls.authority) is not None:
            expires["authority"] = lambda: authority.expires
            _log.info("authority %s, SHA-256 %s", authority.ca_file, authority.fingerprint)
    url = await stack.enter_async_context(serving(app, host=http.host, port=http.port, tls=context))
    _log.info("%s/%s", url, "" if http.is_local else f" ({', '.join(http.names)})")
    await _tell_how_to_enter(app, config, url)
    if http.redirect_port is not None:
        https_port = int(url.rpartition(":")[2])
        await stack.enter_async_context(
            redirecting(http.all_names, host=http.host, port=http.redirect_port, https_port=https_port)
        )


def _expiries(expires: Mapping[str, Callable[[], datetime | None]]) -> dict[str, float]:
    """Return when certificates expire, by the names of metrics."""
    found = {name: at() for name, at in expires.items()}
    return {f"{name}_expires_timestamp_seconds": at.timestamp() for name, at in found.items() if at is not None}


def _connections(bus: MqttBus | None) -> dict[str, float]:
    """Return whether the broker is there, by the name of the metric."""
    return {} if bus is None else {"broker_connected": bus.connected, "broker_connections": bus.connections}


async def _tell_how_to_enter(app: FastAPI, config: CloudConfig, url: str) -> None:
    """Say that everybody may enter, or at the first start how the first operator does."""
    if config.http.open:
        _log.warning("[http] open: everybody on this machine may do everything, nobody signs in")
        return
    secret = await app.state.accounts.first_link()
    if secret is not None:
        _log.warning("there are no accounts yet: open %s/link/%s within 24 hours to make yours", url, secret)


async def _open_store(config: CloudConfig) -> Store:
    """Connect and bring the schema up to date, as soon as the database is there.

    Raises:
        SetupError: no database is named, or it refuses us.
    """
    delay_s, last_reason = FIRST_DELAY_S, ""
    while True:
        try:
            return await _try_store(config)
        except TransientError as error:
            if str(error) != last_reason:
                last_reason = str(error)
                _log.warning("! waiting for the database: %s", error)
        await asyncio.sleep(delay_s)
        delay_s = min(delay_s * 2, LONGEST_DELAY_S)


async def _try_store(config: CloudConfig) -> Store:
    store = await Store.connect(
        await asyncio.to_thread(read_dsn, config.database),
        connections=config.database.connections,
        strict=config.ingest.strict,
        limit_unclaimed_meters=config.ingest.limit_unclaimed_meters,
        bounds=Bounds(rows=config.quarantine.limit_rows, bytes=config.quarantine.limit_bytes),
    )
    try:
        await store.migrate(now=_utc_now())
    except BaseException:
        await store.close()
        raise
    return store


def read_dsn(config: DatabaseConfig) -> str:
    """Return the address of the database; it holds a password and is never logged.

    Raises:
        SetupError: none is named, or the file that is named cannot be read.
        TransientError: the embedded cluster is not made yet.
    """
    if config.embedded is not None:
        return Cluster(config.embedded).dsn
    if config.dsn_file is not None:
        try:
            return config.dsn_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SetupError(f"[database] dsn_file {config.dsn_file} cannot be read: {error}") from error
    try:
        return os.environ[DSN_VARIABLE]
    except KeyError:
        raise SetupError(
            f"no database is named: set [database] embedded or dsn_file, or the environment variable {DSN_VARIABLE}"
        ) from None


def _missing(ingest: Ingest, bus: MqttBus | None) -> str | None:
    """Return what keeps this process from doing its work, as a sentence."""
    if bus is not None and not bus.connected:
        return f"The broker is away: {bus.last_error or 'not connected yet'}"
    return ingest.trouble


def _first(group: BaseExceptionGroup[SetupError]) -> SetupError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, SetupError) else SetupError(str(error))


def _utc_now() -> datetime:
    return datetime.now(UTC)
