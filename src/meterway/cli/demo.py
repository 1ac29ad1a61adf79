"""``meterway demo``: the whole platform on this machine."""

import asyncio
import fcntl
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

from meterway.cli.output import json_option, print_json, start_logging
from meterway.core.errors import SetupError
from meterway.meter.virtual.faults import parse_faults

if TYPE_CHECKING:
    from meterway.demo.count import Count
    from meterway.demo.platform import Options
    from meterway.demo.run import Progress, Watcher

_SHOW_INTERVAL_S = 2.0
_SPOILT_METERS = 4
"""So many meters there are if faults are asked for and no number is given."""


@click.command(short_help="The whole platform with virtual meters, and a page that ticks.")
@click.option(
    "--duration",
    "duration_s",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="Stop, count and leave after so long.",
)
@click.option(
    "--households", type=click.IntRange(1, 200), default=5, show_default=True, help="How many households are there."
)
@click.option(
    "--meters", type=click.IntRange(1, 2000), help="In their place, so many meters that send every second (P1, SML)."
)
@click.option(
    "--speed",
    type=click.FloatRange(min=0.01),
    metavar="X",
    default=1.0,
    show_default=True,
    help="The meters' time runs X times.",
)
@click.option("--seed", default="river-lane", show_default=True, help="The same seed gives the same households.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    help="With --meters (4 if not given): spoil telegrams, noise=0.01; see `meterway meter virtual`.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the data are kept; else a folder of its own, thrown away at the end if --duration is given.",
)
@click.option("--verbose", is_flag=True, help="Show the log of all processes.")
@json_option
def demo(
    *,
    duration_s: float | None,
    households: int,
    meters: int | None,
    speed: float,
    seed: str,
    faults: tuple[str, ...],
    data_dir: Path | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Start the whole platform with virtual meters, and a page that ticks.

    The meters are those of a street: electricity, gas, water and heat over P1, SML, DLMS and M-Bus on wire and radio.
    Adapter, concentrator and cloud run as on real devices. Broker and database are embedded, free ports are found.
    Without --duration it runs until Ctrl-C and keeps its data. DATA-DIR/demo.json says where the page is and how any
    MQTT client can watch.

    At the end everything is counted end to end; exit code 1 if a reading is missing or stored twice.

    \b
    Examples:
      meterway demo
      meterway demo --duration 60 --meters 50 --speed 10
      meterway demo --duration 30 --fault noise=0.05 --json
    """
    start_logging(level=logging.INFO if verbose else logging.WARNING)
    parse_faults(faults)
    with _data_dir(data_dir, keep=duration_s is None or data_dir is not None) as folder:
        from meterway.demo.platform import Options

        start = _start(folder, duration_s, speed)
        past_s = _past_s(folder, start) if duration_s is None and speed == 1 else 0
        if faults and meters is None:
            meters = _SPOILT_METERS
        options = Options(
            data_dir=folder,
            meters=meters or 0,
            households=households if meters is None else 0,
            speed=speed,
            seed=seed,
            faults=faults,
            start=start,
            past_s=past_s,
        )
        try:
            result = asyncio.run(_run(options, duration_s, as_json=as_json))
        except asyncio.CancelledError:
            raise click.Abort from None
    sys.exit(1 if result.missing or result.duplicated else 0)


async def _run(options: "Options", duration_s: float | None, *, as_json: bool) -> "Count":
    """Run one demo; return what was counted.

    Raises:
        asyncio.CancelledError: the second SIGINT or SIGTERM; all processes have ended and nothing is counted.
    """
    from meterway.demo.platform import Platform
    from meterway.demo.run import finish, name_meters, watching, write_note

    stop = _stop_on_signals()
    loop = asyncio.get_running_loop()
    say = _Narrator(as_json=as_json)
    say.line("Starting broker, database, cloud, concentrator, meters and adapter ...")
    since = datetime.now(UTC)
    async with Platform(options) as platform, watching(platform) as watcher:
        say.welcome(platform.note(), write_note(platform), duration_s)
        naming = asyncio.create_task(name_meters(platform), name="meterway.demo.names")
        begun_s = loop.time()
        while not stop.is_set() and (duration_s is None or loop.time() - begun_s < duration_s):
            remaining_s = _SHOW_INTERVAL_S if duration_s is None else begun_s + duration_s - loop.time()
            say.watched(watcher)
            _note_end(options, loop.time() - begun_s)
            try:
                async with asyncio.timeout(max(0.0, min(_SHOW_INTERVAL_S, remaining_s))):
                    await stop.wait()
            except TimeoutError:
                continue
        _note_end(options, loop.time() - begun_s)
        naming.cancel()
        say.line("\nStopping the meters; waiting until all that was said is stored ... (Ctrl-C again: leave uncounted)")
        result = await finish(platform, watcher, since, show=say.progress)
    say.result(result)
    if duration_s is None:
        say.line(f"  The data are kept in {options.data_dir}; the next demo there goes on with them.")
    return result


def _stop_on_signals() -> asyncio.Event:
    """Return an event that the first SIGINT or SIGTERM sets; the second cancels the task that called this."""
    stop = asyncio.Event()
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def on_signal() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    return stop


class _Narrator:
    """What a demo says while it runs: for people on stdout; with --json progress on stderr, the result on stdout."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._is_terminal = sys.stderr.isatty() if as_json else sys.stdout.isatty()

    def line(self, text: str) -> None:
        click.echo(text, err=self._as_json)

    def welcome(self, note: dict[str, object], path: Path, duration_s: float | None) -> None:
        broker = note["broker"]
        assert isinstance(broker, dict)  # noqa: S101 - as Platform.note makes it
        self.line(f"\n  Page     {note['page']}")
        self.line(f"  Broker   {broker['url']}   (user {broker['username']}, password in {path})")
        self.line(f"  Data     {note['data_dir']}")
        self.line("  Bound to this machine only, and there open to everybody: a try, without TLS and accounts.\n")
        self.line(f"Running for {duration_s:g} s." if duration_s else "Running; Ctrl-C stops and counts.")

    def watched(self, watcher: "Watcher") -> None:
        if self._is_terminal:
            click.echo(f"\r  {len(watcher.reading_times)} readings published ", nl=False, err=self._as_json)

    def progress(self, progress: "Progress") -> None:
        self.line(f"  {progress.published} published, {progress.stored} stored")

    def result(self, result: "Count") -> None:
        if self._as_json:
            print_json(result)
            return
        p50_s, p99_s = result.latency_p50_s, result.latency_p99_s
        self.line(f"\n  {result.telegrams} telegrams -> {result.published} published -> {result.stored} stored")
        self.line(f"  missing {result.missing}, duplicated {result.duplicated}, quarantined {result.quarantined}")
        if p50_s is not None and p99_s is not None:
            self.line(f"  telegram to committed row: p50 {p50_s * 1000:.0f} ms, p99 {p99_s * 1000:.0f} ms")


@contextmanager
def _data_dir(wanted: Path | None, *, keep: bool) -> Iterator[Path]:
    """Give the folder for the data, locked against a second demo.

    Raises:
        SetupError: another demo runs there.
    """
    if not keep:
        with tempfile.TemporaryDirectory(prefix="meterway-demo-", ignore_cleanup_errors=True) as temporary:
            folder = Path(temporary)
            folder.chmod(0o711)  # PostgreSQL may run as another user, who must be able to pass
            yield folder
        return
    folder = (wanted or _default_data_dir()).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SetupError(
                f"a demo runs in {folder} already; see {folder / 'demo.json'}, or give --data-dir"
            ) from error
        if shutil.disk_usage(folder).free < 1 << 30:
            click.echo(f"meterway: less than 1 GiB is free in {folder}", err=True)
        yield folder


def _default_data_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/meterway/demo")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "meterway" / "demo"


def _start(folder: Path, duration_s: float | None, speed: float) -> datetime:
    """Return the meters' time at the start: such that they end now, and never before where they ended last time."""
    now = datetime.now(UTC)
    wanted = now - timedelta(seconds=(duration_s or 0) * (speed - 1)) if speed > 1 else now
    return max(wanted, _told_until(folder))


def _past_s(folder: Path, start: datetime) -> int:
    """Return how much of today the meters have not told yet."""
    midnight = start.astimezone(ZoneInfo("Europe/Vienna")).replace(hour=0, minute=0, second=0, microsecond=0)
    return max(0, int((start - max(midnight, _told_until(folder))).total_seconds()))


def _told_until(folder: Path) -> datetime:
    """Return where the meters' time had come to; long ago if there is no note, or a power cut spoilt it."""
    try:
        return datetime.fromisoformat((folder / "meters-until").read_text())
    except (OSError, ValueError):
        return datetime.fromtimestamp(0, UTC)


def _note_end(options: "Options", ran_s: float) -> None:
    """Remember where the meters' time has come to: the same instant said twice would be the same reading.

    Noted while the demo runs, and ahead, so that it holds after a kill as well: a minute, or two where meters count in
    whole minutes. On a full disk the last note stays: that is no reason to end.
    """
    ahead_s = 120 if options.households else 60
    until = options.start + timedelta(seconds=(ran_s + ahead_s) * max(options.speed, 1.0))
    new = options.data_dir / "meters-until.new"
    with suppress(OSError):
        new.write_text(until.isoformat())
        new.replace(options.data_dir / "meters-until")
