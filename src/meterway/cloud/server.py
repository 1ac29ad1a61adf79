"""Serving the application on a port of this machine."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

import uvicorn
from fastapi import FastAPI

from meterway.cloud.live import LiveHub
from meterway.core.errors import SetupError

STOP_S = 5
"""How long running requests may take to end when the server stops."""
LIMIT_CONNECTIONS = 1000
"""Beyond, the server answers 503 at once."""
NOTICE = "TLS and accounts are still to come: until then Meterway serves this machine only."


class _Server(uvicorn.Server):
    """Leaves signals to its owner, and ends live streams before it waits for connections."""

    def __init__(self, config: uvicorn.Config, live: LiveHub) -> None:
        super().__init__(config)
        self._live = live
        self.serves = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.serves.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._live.close()
        await super().shutdown(sockets)


@asynccontextmanager
async def serving(app: FastAPI, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve until the block ends; yields the address, ``http://127.0.0.1:8080``. Port 0 takes a free one.

    Raises:
        SetupError: ``host`` is not loopback, or the port is taken.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=STOP_S,
        limit_concurrency=LIMIT_CONNECTIONS,
        lifespan="on",
        ws="none",
        proxy_headers=False,
    )
    server = _Server(config, app.state.live)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="meterway.cloud.http")
    try:
        started = asyncio.create_task(server.serves.wait())
        await asyncio.wait((started, task), return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if task.done():
            task.result()
            raise SetupError("the HTTP server ended while it started; its log says why")
        name = f"[{host}]" if ":" in host else host
        yield f"http://{name}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.gather(task, return_exceptions=True)
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    if not _is_loopback(host):
        raise SetupError(f"HTTP cannot listen on {host}. {NOTICE} Use 127.0.0.1, and an SSH tunnel from elsewhere.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise SetupError(
            f"[http] {host}:{port} cannot be used ({error.strerror}): choose another port, 0 for any"
        ) from error
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
