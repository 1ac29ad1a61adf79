"""What all commands print alike: errors, JSON lines, and the life of a long-running service."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import NoReturn
from zoneinfo import ZoneInfo

import click
import msgspec

from meterway.core.errors import BadDataError
from meterway.core.zones import find_zone
from meterway.secret_store import secret_name

_encoder = msgspec.json.Encoder(decimal_format="number")

_GC_THRESHOLD = 20_000
"""New objects between two looks of the garbage collector."""

Service = Callable[[Callable[[], None]], Coroutine[None, None, None]]
"""Takes a function to call once it is ready; runs until cancelled."""


class ZoneType(click.ParamType[ZoneInfo]):
    """An option whose value is an IANA time zone."""

    name = "zone"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> ZoneInfo:
        if isinstance(value, ZoneInfo):
            return value
        try:
            return find_zone(str(value))
        except BadDataError as error:
            self.fail(str(error), param, ctx)


class SecretType(click.ParamType[Path]):
    """An option that names a file with a secret, or ``secret:NAME`` of the store."""

    name = "file"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        place = Path(str(value))
        if secret_name(place) is None and not place.is_file():
            self.fail(f"File '{place}' does not exist.", param, ctx)
        return place


def json_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--json`` to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line, and nothing else.")(
        command
    )


def print_json(value: object) -> None:
    """Print one JSON object on a line of its own, at once."""
    sys.stdout.write(_encoder.encode(value).decode() + "\n")
    sys.stdout.flush()


def plain(value: Decimal | None) -> str:
    """Return a number as people write it, without an exponent."""
    return "" if value is None else f"{value:f}"


def fail(message: str, *, code: int, usage: click.ClickException | None = None) -> NoReturn:
    """Print an error for people (or for programs, after ``--json``) and leave."""
    if "--json" in sys.argv:
        print_json({"error": message})
    context = getattr(usage, "ctx", None)
    hint = f"\nTry: {context.command_path} --help" if context else ""
    sys.stderr.write(f"meterway: {message}{hint}\n")
    sys.exit(code)


def run_service(name: str, service: Service, *, as_json: bool, verbose: bool = False) -> None:
    """Run a component until SIGINT or SIGTERM; says on stdout when it is ready (``{"ready": true}`` with JSON)."""
    import uvloop

    start_logging(level=logging.DEBUG if verbose else logging.INFO)

    def ready() -> None:
        spare_garbage_collection()
        if as_json:
            print_json({"ready": True, "component": name, "pid": os.getpid()})
        else:
            click.echo(f"{name}: ready (Ctrl-C stops)")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine run by asyncio has a task
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        loop.add_signal_handler(signal.SIGUSR1, _print_tasks)
        try:
            await service(ready)
        except asyncio.CancelledError:
            logging.getLogger("meterway").info("%s: stopped", name)

    uvloop.run(main())


def _print_tasks() -> None:
    """Print on stderr where each task waits: `kill -USR1 PID` when something seems to stand still."""
    for task in sorted(asyncio.all_tasks(), key=asyncio.Task.get_name):
        places = " > ".join(f"{frame.f_code.co_name}:{frame.f_lineno}" for frame in _frames(task.get_coro()))
        sys.stderr.write(f"{task.get_name()}: {places}\n")
    sys.stderr.flush()


def _frames(waiting: object) -> Iterator[FrameType]:
    """Yield the frames of a coroutine and of what it awaits, from the outermost inwards."""
    while waiting is not None:
        kind = next((each for each in ("cr", "ag", "gi") if hasattr(waiting, f"{each}_frame")), None)
        frame = getattr(waiting, f"{kind}_frame", None)
        if frame is None:
            return
        yield frame
        waiting = getattr(waiting, "gi_yieldfrom" if kind == "gi" else f"{kind}_await", None)


def spare_garbage_collection() -> None:
    """Have the garbage collector look less often, and never at what the start made.

    Messages in flight are thousands of objects and no cycle; looking at them costs a fifth of the speed.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)


@contextmanager
def quietly() -> Iterator[None]:
    """Log nothing meanwhile: what goes wrong is in the answer.

    That of asyncio neither: a port whose opening is broken off by Ctrl-C makes it log a traceback.
    """
    logs = [logging.getLogger(name) for name in ("meterway", "asyncio")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def start_logging(*, level: int = logging.INFO) -> None:
    """Log to stderr; the only place that sets levels and handlers."""
    logging.basicConfig(
        stream=sys.stderr,
        level=level,
        format="%(asctime)s %(levelname)-7s %(name)s  %(message)s",
    )
    logging.getLogger("gmqtt").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    for name in ("serialx", "httpx", "httpcore"):  # they log bytes sent and URLs: a meter's password, a token
        logging.getLogger(name).setLevel(logging.WARNING)
