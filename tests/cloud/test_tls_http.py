"""HTTP beyond this machine: TLS, the redirect to it, and certificates that are replaced while it serves."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from msgspec.structs import replace

from meterway.authority import Authority
from meterway.cloud.api import create_app
from meterway.cloud.config import CloudConfig, DatabaseConfig, HttpConfig
from meterway.cloud.server import redirecting, serving
from meterway.cloud.service import run
from meterway.cloud.store import Store
from meterway.cloud.tls import ServerTls, server_tls
from meterway.core.errors import SetupError
from support.brokers import free_port

WITHIN_S = 60.0
HTTP = HttpConfig(host="0.0.0.0", names=("meters.example.org", "pi.local"))


def now() -> datetime:
    return datetime.now(UTC)


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.ca_file))


@asynccontextmanager
async def served(
    app: FastAPI, folder: Path, config: HttpConfig = HTTP, *, clock: object = now
) -> AsyncIterator[tuple[str, ServerTls]]:
    """Serve as the cloud does; yields the address and the TLS."""
    assert callable(clock)
    async with (
        server_tls(config, folder, clock=clock, look_every_s=0.05) as tls,
        serving(app, host=config.host, tls=tls.context) as url,
    ):
        yield url, tls


async def shown(url: str) -> bytes:
    """Return the certificate that a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), ssl=context)
    try:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    assert isinstance(certificate, bytes)
    return certificate


async def test_beyond_loopback_it_speaks_tls_alone(store: Store, tmp_path: Path) -> None:
    app = create_app(store, hosts=HTTP.all_names)
    async with served(app, tmp_path) as (url, tls):
        assert url.startswith("https://127.0.0.1:")
        assert tls.authority is not None
        async with httpx.AsyncClient(base_url=url, verify=trusting(tls.authority)) as client:
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/healthz", headers={"Host": "pi.local"})).status_code == 200
            foreign = await client.get("/healthz", headers={"Host": "evil.example"})
            assert foreign.status_code == 421
            assert "a name that stands in `[http] names`" in foreign.text
        async with httpx.AsyncClient(base_url=url) as client:
            with pytest.raises(httpx.ConnectError, match="unable to get local issuer certificate"):
                await client.get("/healthz")
        async with httpx.AsyncClient(base_url=url.replace("https", "http")) as client:
            with pytest.raises(httpx.TransportError):
                await client.get("/healthz")
    with pytest.raises(SetupError, match=r"HTTP cannot listen on 0.0.0.0 without TLS"):
        async with serving(app, host="0.0.0.0"):
            pass


async def test_a_browser_is_told_to_use_tls_alone_only_under_a_public_name(store: Store, tmp_path: Path) -> None:
    app = create_app(store, hosts=HTTP.all_names)
    async with served(app, tmp_path) as (url, tls):
        assert tls.authority is not None
        async with httpx.AsyncClient(base_url=url, verify=trusting(tls.authority)) as client:
            told = await client.get("/healthz", headers={"Host": "Meters.example.org:8443"})
            assert told.headers["strict-transport-security"] == "max-age=31536000"
            for host in ("pi.local", "127.0.0.1", "localhost"):
                answer = await client.get("/healthz", headers={"Host": host})
                assert answer.status_code == 200
                assert "strict-transport-security" not in answer.headers
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.get("/healthz", headers={"Host": "meters.example.org"})
        assert answer.status_code == 200
        assert "strict-transport-security" not in answer.headers


async def test_under_tls_the_same_page_without_it_is_another_site(store: Store, tmp_path: Path) -> None:
    async with served(create_app(store, hosts=HTTP.all_names), tmp_path) as (url, tls):
        assert tls.authority is not None
        async with httpx.AsyncClient(base_url=url, verify=trusting(tls.authority)) as client:
            host = url.removeprefix("https://")
            own = await client.post("/v1/meterReadings", json={}, headers={"Origin": f"https://{host}"})
            other = await client.post("/v1/meterReadings", json={}, headers={"Origin": f"http://{host}"})
    assert own.status_code == 200
    assert (other.status_code, other.json()["reason"]) == (403, "cross-origin")


async def test_plain_http_answers_with_where_tls_is() -> None:
    async with (
        redirecting(HTTP.all_names, host="127.0.0.1", port=0, https_port=8443) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        answer = await client.get("/curve/a%20b?x=%2F&y=", headers={"Host": "meters.example.org:8080"})
        assert answer.status_code == 308
        assert answer.headers["location"] == "https://meters.example.org:8443/curve/a%20b?x=%2F&y="
        assert answer.headers["cache-control"] == "no-store"
        posted = await client.post("/v1/meterReadings", json={}, headers={"Host": "[::1]"})
        assert (posted.status_code, posted.headers["location"]) == (308, "https://[::1]:8443/v1/meterReadings")
        assert posted.content == b""
        for host in ("evil.example", "", "meters.example.org@evil.example"):
            foreign = await client.get("/", headers={"Host": host})
            assert foreign.status_code == 421
            assert "location" not in foreign.headers
    async with (
        redirecting(HTTP.all_names, host="127.0.0.1", port=0, https_port=443) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        answer = await client.get("/", headers={"Host": "pi.local"})
        assert answer.headers["location"] == "https://pi.local/"


async def test_a_renewed_certificate_is_taken_up_and_connections_stay(store: Store, tmp_path: Path) -> None:
    start = now()
    clock = [start]
    app = create_app(store, hosts=HTTP.all_names)
    async with asyncio.timeout(WITHIN_S), served(app, tmp_path, clock=lambda: clock[0]) as (url, tls):
        assert tls.authority is not None
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(base_url=url, verify=trusting(tls.authority), limits=limits) as client:
            first = await client.get("/healthz")
            before, expires = await shown(url), tls.expires
            clock[0] = start + timedelta(days=70)
            while await shown(url) == before:
                await asyncio.sleep(0.02)
            again = await client.get("/healthz")
        assert tls.expires == expires + timedelta(days=70)
        streams = [each.extensions["network_stream"] for each in (first, again)]
        assert streams[0] is streams[1]
        assert again.status_code == 200


async def test_a_certificate_of_your_own_is_shown_and_replaced_while_it_serves(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    yours = Authority.open(tmp_path / "yours", clock=now)
    one, two = (yours.server_certificate(name, HTTP.all_names).file for name in ("one", "two"))
    config = replace(HTTP, certificate_file=tmp_path / "chain.pem", key_file=tmp_path / "key.pem")
    for name in ("chain.pem", "key.pem"):
        shutil.copy(one, tmp_path / name)
    app = create_app(store, hosts=config.all_names)
    async with asyncio.timeout(WITHIN_S), served(app, tmp_path / "unused", config) as (url, tls):
        assert tls.authority is None
        assert not (tmp_path / "unused").exists()
        before = await shown(url)
        shutil.copy(yours.ca_file, tmp_path / "chain.pem")
        while "stays as it was: [http] certificate_file" not in caplog.text:
            await asyncio.sleep(0.02)
        assert await shown(url) == before
        shutil.copy(two, tmp_path / "key.pem")
        shutil.copy(two, tmp_path / "chain.pem")
        while await shown(url) == before:
            await asyncio.sleep(0.02)
        async with httpx.AsyncClient(base_url=url, verify=trusting(yours)) as client:
            assert (await client.get("/healthz")).status_code == 200


@pytest.mark.parametrize("content", [None, "", "no PEM"])
async def test_a_certificate_of_your_own_that_cannot_be_used_is_named(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "own.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SetupError, match=r"\[http\] certificate_file .*own.pem cannot be used .*: they must be PEM"):
        async with server_tls(replace(HTTP, certificate_file=file), None, clock=now):
            pass


async def test_the_cloud_beyond_loopback_speaks_tls_and_wants_people_to_sign_in(
    database_dsn: str, tmp_path: Path
) -> None:
    (tmp_path / "dsn").write_text(database_dsn)
    http = HttpConfig(
        host="0.0.0.0",
        names=("pi.local",),
        port=free_port(),
        redirect_port=free_port(),
        certificate_dir=tmp_path / "certificates",
    )
    ready = asyncio.Event()
    config = CloudConfig(role="api", http=http, database=DatabaseConfig(dsn_file=tmp_path / "dsn"))
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(run(config, ready=ready.set))
        await ready.wait()
        context = ssl.create_default_context(cafile=str(tmp_path / "certificates" / "ca.pem"))
        async with httpx.AsyncClient(verify=context, follow_redirects=True) as client:
            answer = await client.get(f"http://127.0.0.1:{http.redirect_port}/healthz")
            assert (answer.status_code, str(answer.url)) == (200, f"https://127.0.0.1:{http.port}/healthz")
            assert (await client.get(f"https://127.0.0.1:{http.port}/v1/meters")).status_code == 401
        task.cancel()


async def test_what_expires_when_is_a_metric(store: Store) -> None:
    app = create_app(store, gauges=lambda: {"http_certificate_expires_timestamp_seconds": 1.5e9})
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:
        text = (await client.get("/metrics")).text
    assert "# TYPE meterway_http_certificate_expires_timestamp_seconds gauge" in text
    assert "meterway_http_certificate_expires_timestamp_seconds 1500000000\n" in text
