"""``meterway detect``: what is plugged in here, and the configuration that reads it."""

import asyncio
import platform
import re
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

from meterway.cli.output import SecretType, fail, json_option, print_json, quietly
from meterway.core.errors import BadDataError, SetupError, TransientError
from meterway.core.zones import find_zone

if TYPE_CHECKING:
    from meterway.adapter.config import AdapterConfig, Source
    from meterway.adapter.detect import Detection, Found
    from meterway.adapter.detect_plan import Step
    from meterway.adapter.detect_questions import Known
    from meterway.bus.bus import BrokerConfig

_INTERRUPTED = 130


@click.command(short_help="Find out which meter is plugged in, and write its configuration.")
@click.argument("places", metavar="[PLACE]...", nargs=-1)
@click.option(
    "--write",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the proposed adapter configuration to this new file.",
)
@click.option(
    "--key-file",
    type=SecretType(),
    help="A file with the meter's key as 32 hexadecimal digits; on a second line the authentication key, if known. Or "
    "secret:NAME (meterway secret).",
)
@click.option(
    "--password-file",
    type=SecretType(),
    help="A file with the password, or secret:NAME: of --username, else the one that the meter wants.",
)
@click.option("--username", help="To log in with at a place of HTTP or MQTT.")
@click.option(
    "--token-file", type=SecretType(), help="A file with the token that a place of HTTP wants, or secret:NAME."
)
@click.option(
    "--broker", metavar="URL", help="The broker to propose for the readings.  [default: mqtt://127.0.0.1:1883]"
)
@click.option(
    "--listen",
    "listen_s",
    type=click.FloatRange(0.1, 600),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to listen at each line setting; 12 for a meter that sends every 10 s.",
)
@click.option(
    "--limit",
    "limit_s",
    type=click.FloatRange(1, 86_400),
    metavar="SECONDS",
    help="Stop after so long, whatever happens.  [default: what the steps may take, at most 30 minutes a place]",
)
@click.option("--ask/--no-ask", default=True, show_default=True, help="Also ask, where nothing is heard.")
@click.option("--list", "list_only", is_flag=True, help="Only list the serial ports, and leave.")
@json_option
def detect(
    places: tuple[str, ...],
    *,
    target: Path | None,
    key_file: Path | None,
    password_file: Path | None,
    username: str | None,
    token_file: Path | None,
    broker: str | None,
    listen_s: float,
    limit_s: float | None,
    ask: bool,
    list_only: bool,
    as_json: bool,
) -> None:
    """Find out which meter is plugged in, and propose the configuration that reads it.

    PLACE is a serial port, HOST:PORT of a gateway or a meter in the network, rfc2217://HOST:PORT, http://HOST/PATH, or
    mqtt://BROKER/TOPIC; left out: all serial ports that are plugged in, one after the other.

    First it listens: at 9600 8N1, 9600 7E1, 115200 8N1 and 2400 8E1. Where nothing is heard, it asks: IEC 62056-21,
    M-Bus, Modbus, DLMS; and it tells receivers of wireless M-Bus to listen. A port at which nobody answers takes two
    minutes; Ctrl-C ends it at any time, and says what was tried. Nothing at the meter is changed.

    What it does it says on standard error, what it found on standard output. Exit code 1 if no meter was found.

    \b
    Examples:
      meterway detect
      meterway detect /dev/ttyUSB0 --write adapter.toml
      meterway detect 192.168.1.20:2001 --key-file my-meter.key --listen 12
      meterway detect http://192.168.1.30/
      meterway detect 'mqtt://127.0.0.1/tele/+/SENSOR' --listen 320
    """
    from meterway.adapter.detect_place import sources
    from meterway.adapter.detect_ports import serial_ports
    from meterway.bus.bus import BrokerConfig
    from meterway.bus.mqtt import broker_address

    ports = [str(port) for port in serial_ports()]
    if list_only:
        _list(ports, as_json=as_json)
        return
    if target is not None and target.exists():
        raise SetupError(f"{target} exists already; name a new file, then move its [[meters]] tables over")
    proposed = BrokerConfig() if broker is None else BrokerConfig(url=broker)
    broker_address(proposed)
    named = places or tuple(ports) or _no_port()
    known = _known(key_file, password_file if username is None else None)
    looking = _Looking(
        [sources(place, username=username, password_file=password_file, token_file=token_file) for place in named],
        known,
        listen_s=listen_s,
        ask=ask,
        limit_s=limit_s,
    )
    with quietly():
        looking.run()
    files = _Files(target, key_file, password_file, proposed)
    _report(looking, files, as_json=as_json)


def _list(ports: list[str], *, as_json: bool) -> None:
    if as_json:
        print_json({"ports": ports})
        return
    for port in ports:
        click.echo(port)
    if not ports:
        click.echo("no serial port is plugged in", err=True)


def _no_port() -> tuple[str, ...]:
    raise SetupError(
        "no serial port is plugged in; plug the reading head in, or name a place: meterway detect /dev/ttyUSB0, "
        "HOST:PORT of a gateway, http://HOST/PATH or mqtt://BROKER/TOPIC"
    )


def _known(key_file: Path | None, password_file: Path | None) -> "Known":
    from meterway.adapter.detect_questions import Known
    from meterway.meter.family import family_names
    from meterway.meter.keys import load_keys, load_password
    from meterway.plugins import family_folders, find_family

    return Known(
        families=[find_family(name) for name in family_names(family_folders())],
        zone=_local_zone(),
        keys=load_keys(key_file),
        password=load_password(password_file),
    )


def _local_zone() -> ZoneInfo:
    """Return this machine's time zone; UTC if it does not tell."""
    _, _, name = str(Path("/etc/localtime").resolve()).partition("zoneinfo/")
    try:
        return find_zone(name)
    except BadDataError:
        return find_zone("UTC")


class _Looking:
    """Looks at place after place; ``detections`` grows meanwhile, and stays when it is broken off."""

    def __init__(
        self,
        places: "Sequence[Sequence[Source]]",
        known: "Known",
        *,
        listen_s: float,
        ask: bool,
        limit_s: float | None,
    ) -> None:
        from meterway.adapter.detect_plan import limit_s as longest_s
        from meterway.adapter.detect_plan import plan

        self._places: list[list[tuple[Source, list[Step]]]] = [
            [(source, plan(source, known, listen_s=listen_s, ask=ask)) for source in place] for place in places
        ]
        self._known = known
        every = [min(longest_s(steps), _LONGEST_S) for place in self._places for _, steps in place]
        self._limit_s = limit_s or sum(every) + _SLACK_S * len(every)
        self.detections: list[Detection] = []
        self.ended = "done"
        """``done``, ``limit`` or ``interrupted``."""

    def run(self) -> None:
        """Look; Ctrl-C and the limit break it off."""
        try:
            asyncio.run(self._all())
        except TimeoutError:
            self.ended = "limit"
            click.echo(f"  broken off after {self._limit_s:g} s, as --limit says", err=True)
        except (KeyboardInterrupt, asyncio.CancelledError):
            self.ended = "interrupted"
            click.echo("  interrupted", err=True)

    async def _all(self) -> None:
        cancel_on_interrupt()
        async with asyncio.timeout(self._limit_s), _progress() as progress:
            for place in self._places:
                for source, steps in place:
                    if await self._one(source, steps, progress):
                        break

    async def _one(self, source: "Source", steps: "Sequence[Step]", progress: "_Progress") -> bool:
        from meterway.adapter.detect import Detector
        from meterway.adapter.links import describe
        from meterway.meter.diagnose import Finding

        progress.head(describe(source))
        detector = Detector(source, self._known, say=progress.say)
        self.detections.append(detector.result)
        try:
            return await detector.run(steps)
        except TransientError as error:
            detector.result.findings.append(Finding("cannot-open", str(error), _fix(source)))
            return False


def cancel_on_interrupt() -> None:
    """Let the first Ctrl-C cancel this task; the second raises KeyboardInterrupt wherever the process is.

    The loop hands it on, between two steps. ``asyncio.run`` cancels the task in the midst of a step, and an
    ``asyncio.timeout`` whose time is over as it begins then takes that cancellation for its own: it is lost.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine run by asyncio has a task

    def interrupt() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        task.cancel()

    loop.add_signal_handler(signal.SIGINT, interrupt)


_LONGEST_S = 1800.0
"""At one place, where nobody says how long."""
_SLACK_S = 30.0
"""For opening and closing a place many times, and for the processor."""


@dataclass(slots=True)
class _Progress:
    """Says on standard error what is done, how long it may take, and how long all has taken."""

    begin: float = field(default_factory=time.monotonic)
    line: str = ""

    def head(self, where: str) -> None:
        """Say where is looked from now on."""
        self._end_line()
        self.line = ""
        click.echo(f"Looking at {where}; Ctrl-C ends it.", err=True)

    def say(self, what: str, step_limit_s: float) -> None:
        """Say what is done from now on."""
        self._end_line()
        self.line = f"{what}, at most {_clock(step_limit_s)}"
        self.show()

    def show(self) -> None:
        """Write the line; on a terminal it is written anew every second."""
        text = f"  {_clock(time.monotonic() - self.begin)} {self.line}"
        if sys.stderr.isatty():
            click.echo(f"\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K", err=True, nl=False)
        else:
            click.echo(text, err=True)

    def _end_line(self) -> None:
        if self.line and sys.stderr.isatty():
            click.echo(err=True)


@asynccontextmanager
async def _progress() -> AsyncIterator[_Progress]:
    progress = _Progress()
    is_terminal = sys.stderr.isatty()

    async def tick() -> None:
        while True:
            await asyncio.sleep(1)
            if progress.line:
                progress.show()

    ticking = asyncio.create_task(tick()) if is_terminal else None
    try:
        yield progress
    finally:
        if ticking is not None:
            ticking.cancel()
            click.echo(err=True)


def _fix(source: "Source") -> str:
    """Return what to do where a place cannot be opened."""
    from meterway.adapter.config import SerialSource

    if isinstance(source, SerialSource):
        return "mend that, then try again; `meterway doctor` lists the ports and who may open them"
    return "is it switched on and in this network, and are address and port right? Then try again"


def _clock(seconds_s: float) -> str:
    minutes, seconds = divmod(max(0, round(seconds_s)), 60)
    return f"{minutes}:{seconds:02}"


@dataclass(frozen=True, slots=True)
class _Files:
    """What the configuration is written to, and names."""

    target: Path | None
    key: Path | None
    password: Path | None
    broker: "BrokerConfig"


def _report(looking: _Looking, files: _Files, *, as_json: bool) -> None:
    from meterway.cli.detect_show import as_table, show

    found = [each for detection in looking.detections for each in detection.found]
    text = ""
    if found:
        from meterway.adapter.propose import written

        text = written(_propose(found, files), found)
    if as_json:
        print_json(as_table(looking.detections, looking.ended, text))
    else:
        show(looking.detections, text, is_written=files.target is not None)
    if text and files.target is not None:
        _write(files.target, text)
    if looking.ended == "interrupted":
        sys.exit(_INTERRUPTED)
    sys.exit(0 if found else 1)


def _propose(found: "Sequence[Found]", files: _Files) -> "AdapterConfig":
    from meterway.adapter.propose import propose

    name = re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:40] or "home"
    return propose(
        found, adapter_id=f"adapter-{name}", broker=files.broker, key_file=files.key, password_file=files.password
    )


def _write(target: Path, text: str) -> None:
    try:
        with target.open("x") as file:
            file.write(text)
    except OSError as error:
        fail(f"{target} cannot be written: {error.strerror}", code=2)
    click.echo(f"written to {target}; next: meterway adapter --config {target}", err=True)
