"""``/metrics`` of an adapter or concentrator: numbers in the Prometheus text format, for this machine only.

Never a meter's id, never a label: whoever may connect to a port of this machine may read them.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Annotated, NamedTuple

import msgspec

from meterway.core.config import Table
from meterway.core.errors import SetupError
from meterway.delivery.stats import RelayStats, SpoolStats

_log = logging.getLogger(__name__)

HOST = "127.0.0.1"
LIMIT_REQUEST_BYTES = 8192
LIMIT_CONNECTIONS = 16
"""Further ones are closed at once."""
WITHIN_S = 5.0
"""A request that takes longer is closed."""

_GAUGES = frozenset({"pending", "size_bytes", "oldest_age_s", "overdue", "in_flight", "in_flight_bytes"})


class MetricsConfig(Table, frozen=True):
    """Numbers for a Prometheus server on this machine, at `http://127.0.0.1:port/metrics`."""

    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    """Left out: there are none. Every process has its own."""


class Metrics(NamedTuple):
    """Numbers by name, without the ``meterway_`` before it and the ``_total`` behind that of a counter."""

    gauges: Mapping[str, float]
    counters: Mapping[str, int]


def sending_metrics(stored: SpoolStats, sent: RelayStats, *, limit_bytes: int) -> Metrics:
    """Return the numbers of the sending side of a hop."""
    numbers = {f"spool_{name}": value for name, value in asdict(stored).items()}
    numbers |= {f"relay_{name}": value for name, value in asdict(sent).items()}
    gauges = {name: value for name, value in numbers.items() if name.partition("_")[2] in _GAUGES}
    counters = {name: value for name, value in numbers.items() if name not in gauges}
    return Metrics({**gauges, "spool_limit_bytes": limit_bytes}, counters)


def render(metrics: Metrics) -> str:
    """Return the text that Prometheus reads."""
    lines: list[str] = []
    for kind, suffix, numbers in (("gauge", "", metrics.gauges), ("counter", "_total", metrics.counters)):
        for name, value in sorted(numbers.items()):
            full_name = f"meterway_{name}{suffix}"
            lines += (f"# TYPE {full_name} {kind}", f"{full_name} {float(value):.15g}")
    return "\n".join(lines) + "\n"


@asynccontextmanager
async def serving_metrics(config: MetricsConfig, read: Callable[[], Metrics]) -> AsyncIterator[None]:
    """Answer ``GET /metrics`` with what ``read`` returns then; do nothing where no port is configured.

    Raises:
        SetupError: the port is in use.
    """
    if config.port is None:
        yield
        return
    open_writers: set[asyncio.StreamWriter] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_writers.add(writer)
        try:
            if len(open_writers) <= LIMIT_CONNECTIONS:
                async with asyncio.timeout(WITHIN_S):
                    request = await reader.readuntil(b"\r\n\r\n")
                    writer.write(_response(request, read))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asks badly gets no answer
        finally:
            open_writers.discard(writer)
            writer.close()

    try:
        server = await asyncio.start_server(answer, HOST, config.port, limit=LIMIT_REQUEST_BYTES)
    except OSError as error:
        raise SetupError(
            f"[metrics] port {config.port} cannot be used: {error.strerror}; choose another, each process has its own"
        ) from error
    _log.info("metrics at http://%s:%d/metrics", HOST, config.port)
    try:
        yield
    finally:
        server.close()
        for writer in open_writers:
            writer.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(WITHIN_S):
                await server.wait_closed()


def _response(request: bytes, read: Callable[[], Metrics]) -> bytes:
    method, _, rest = request.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if path != b"/metrics" or method not in (b"GET", b"HEAD"):
        return _http("404 Not Found", "There is only GET /metrics.\n")
    return _http("200 OK", render(read()), with_body=method == b"GET")


def _http(status: str, text: str, *, with_body: bool = True) -> bytes:
    body = text.encode()
    head: Iterable[str] = (
        f"HTTP/1.1 {status}",
        "Content-Type: text/plain; version=0.0.4; charset=utf-8",
        f"Content-Length: {len(body)}",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    )
    return "\r\n".join((*head, "", "")).encode() + (body if with_body else b"")
