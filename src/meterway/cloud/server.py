"""Serving the application on a port of this machine, for itself or, with TLS, for others."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from meterway.cloud.redirect import Redirect
from meterway.core.errors import SetupError
from meterway.core.hosts import in_url, is_loopback, reached_at

STOP_S = 5
"""How long running requests may take to end when the server stops."""
LIMIT_CONNECTIONS = 1000
"""Beyond, the server answers 503 at once."""
HANDSHAKE_WITHIN_S = 10.0
"""How long a connection may take until TLS stands; so many that never finish do not keep others out for longer."""
HEAD_S = 30.0
"""How long a connection may take from its beginning, or from its last answer, to the end of the next request's head;
so many that never finish theirs do not keep others out for longer."""


class _Server(uvicorn.Server):
    """Leaves signals to its owner, ends live streams before it waits for connections, and slow requests in time."""

    def __init__(self, config: uvicorn.Config, before_stop: Callable[[], None], head_s: float) -> None:
        super().__init__(config)
        self._before_stop = before_stop
        self._head_s = head_s
        self._heads: dict[H11Protocol, tuple[RequestResponseCycle | None, float]] = {}
        """Connections that owe a request: their last one, and since when."""
        self.serves = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on the sockets; of uvicorn's own way to do so only the limit of TLS differs."""
        await super().startup([])
        loop = asyncio.get_running_loop()
        handshake_s = HANDSHAKE_WITHIN_S if self.config.ssl is not None else None
        for each in sockets or ():
            self.servers.append(
                await loop.create_server(
                    self._protocol,
                    sock=each,
                    ssl=self.config.ssl,
                    ssl_handshake_timeout=handshake_s,
                    backlog=self.config.backlog,
                )
            )
        self.serves.set()

    def _protocol(self) -> H11Protocol:
        return H11Protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

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
        self._before_stop()
        await super().shutdown(sockets)


@asynccontextmanager
async def serving(
    app: FastAPI, *, host: str = "127.0.0.1", port: int = 0, head_s: float = HEAD_S, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve until the block ends; yields the address, ``http://127.0.0.1:8080``. Port 0 takes a free one.

    With ``tls`` it is ``https``, and ``host`` may be another than loopback.

    Raises:
        SetupError: ``host`` is for other machines and there is no ``tls``, or the port is taken.
    """
    if tls is None and not is_loopback(host):
        raise SetupError(f"HTTP cannot listen on {host} without TLS; name 127.0.0.1, or its certificate")
    async with _running(_config(app, tls), host, port, head_s=head_s, before_stop=app.state.live.close) as bound:
        yield f"{'https' if tls else 'http'}://{in_url(reached_at(host))}:{bound}"


@asynccontextmanager
async def redirecting(
    hosts: Collection[str], *, host: str, port: int, https_port: int, head_s: float = HEAD_S
) -> AsyncIterator[str]:
    """Answer plain HTTP with where TLS is, until the block ends; yields the address.

    Raises:
        SetupError: the port is taken.
    """
    config = _config(Redirect(hosts, https_port), None)
    async with _running(config, host, port, head_s=head_s, before_stop=lambda: None) as bound:
        yield f"http://{in_url(reached_at(host))}:{bound}"


def _config(app: FastAPI | Redirect, tls: ssl.SSLContext | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=H11Protocol,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=STOP_S,
        limit_concurrency=LIMIT_CONNECTIONS,
        lifespan="on" if isinstance(app, FastAPI) else "off",
        ws="none",
        proxy_headers=False,
        ssl_context_factory=(lambda _config, _default: tls) if tls is not None else None,
    )


@asynccontextmanager
async def _running(
    config: uvicorn.Config, host: str, port: int, *, head_s: float, before_stop: Callable[[], None]
) -> AsyncIterator[int]:
    """Run a server until the block ends; yields its port."""
    listener = _listen(host, port)
    server = _Server(config, before_stop, head_s)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="meterway.cloud.http")
    try:
        started = asyncio.create_task(server.serves.wait())
        await asyncio.wait((started, task), return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if task.done():
            task.result()
            raise SetupError("the HTTP server ended while it started; its log says why")
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        await asyncio.gather(task, return_exceptions=True)
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        right = ", or give the right to it (docs/operations.md#tls)" if isinstance(error, PermissionError) else ""
        raise SetupError(
            f"[http] {host}:{port} cannot be used ({error.strerror}): choose another port, 0 for any{right}"
        ) from error
    return listener
