"""Serving the application on a port of this machine."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from meterway.cloud.live import LiveHub
from meterway.core.errors import SetupError

STOP_S = 5
"""How long running requests may take to end when the server stops."""
LIMIT_CONNECTIONS = 1000
"""Beyond, the server answers 503 at once."""
HEAD_S = 30.0
"""How long a connection may take from its beginning, or from its last answer, to the end of the next request's head;
so many that never finish theirs do not keep others out for longer."""
NOTICE = "TLS and accounts are still to come: until then Meterway serves this machine only."


class _Server(uvicorn.Server):
    """Leaves signals to its owner, ends live streams before it waits for connections, and slow requests in time."""

    def __init__(self, config: uvicorn.Config, live: LiveHub, head_s: float) -> None:
        super().__init__(config)
        self._live = live
        self._head_s = head_s
        self._heads: dict[H11Protocol, tuple[RequestResponseCycle | None, float]] = {}
        """Connections that owe a request: their last one, and since when."""
        self.serves = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.serves.set()

    async def on_tick(self, counter: int) -> bool:
        self._end_slow_heads(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    def _end_slow_heads(self, now_s: float) -> None:
        heads: dict[H11Protocol, tuple[RequestResponseCycle | None, float]] = {}
        for connection in self.server_state.connections:
            if not isinstance(connection, H11Protocol):
                continue
            last = connection.cycle
            if last is not None and not last.response_complete:
                continue
            known, since_s = self._heads.get(connection, (last, now_s))
            heads[connection] = (last, since_s if known is last else now_s)
            if now_s - heads[connection][1] > self._head_s:
                connection.transport.close()
        self._heads = heads

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._live.close()
        await super().shutdown(sockets)


@asynccontextmanager
async def serving(
    app: FastAPI, *, host: str = "127.0.0.1", port: int = 0, head_s: float = HEAD_S
) -> AsyncIterator[str]:
    """Serve until the block ends; yields the address, ``http://127.0.0.1:8080``. Port 0 takes a free one.

    Raises:
        SetupError: ``host`` is not loopback, or the port is taken.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        http=H11Protocol,
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
    server = _Server(config, app.state.live, head_s)
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
