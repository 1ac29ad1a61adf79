"""``meterway meter virtual``: meters that are not there."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meterway.cli.output import ZoneType, json_option, print_json
from meterway.core.errors import SetupError

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from meterway.meter.virtual.serve import Offer, Run

_POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command(short_help="Meters that are not there, and speak like real ones.")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(["p1", "sml"]),
    multiple=True,
    default=("p1",),
    show_default=True,
    help="What the meters speak; given twice, they take turns.",
)
@click.option("--count", type=click.IntRange(1, 10_000), default=1, show_default=True, help="How many meters.")
@click.option("--tcp", "tcp_port", type=click.IntRange(0, 65_535), help="First port, one a meter; 0 takes free ones.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--pty", is_flag=True, help="Offer pseudo-terminals (serial devices) in place of TCP.")
@click.option(
    "--alias-folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="With --pty: where to link them by their meter id, so that their paths stay the same.",
)
@click.option("--seed", default="1", show_default=True, help="The same seed gives the same meters and households.")
@click.option(
    "--speed", type=_POSITIVE, metavar="X", default=1.0, show_default=True, help="How much faster than real time."
)
@click.option(
    "--interval",
    "interval_s",
    type=click.IntRange(1, 86_400),
    metavar="SECONDS",
    default=1,
    show_default=True,
    help="From telegram to telegram, in the meters' time.",
)
@click.option("--start", help="The meters' time at the start (2026-03-29T00:00:00+01:00); else now.")
@click.option(
    "--past",
    "past_s",
    type=click.IntRange(0, 31 * 86_400),
    metavar="SECONDS",
    default=0,
    help="P1: first tell so many last seconds quickly.",
)
@click.option(
    "--zone", type=ZoneType(), default="Europe/Vienna", show_default=True, help="Where the meters hang (IANA name)."
)
@click.option("--phases", type=click.Choice(["1", "3"]), default="3", show_default=True, help="Phases of the meters.")
@click.option("--pv/--no-pv", "pv", default=None, help="All households have PV, or none; else the seed decides.")
@click.option("--gas/--no-gas", "gas", default=True, show_default=True, help="P1: a gas meter on channel 1.")
@click.option("--water/--no-water", "water", default=True, show_default=True, help="P1: a water meter on channel 2.")
@click.option("--fault", "faults", multiple=True, metavar="NAME=RATE", help="See above; may be given several times.")
@click.option(
    "--ledger", type=click.Path(dir_okay=False, path_type=Path), help="Append what was sent, as JSON lines, to FILE."
)
@click.option(
    "--duration", "duration_s", type=_POSITIVE, metavar="SECONDS", help="Stop after so many seconds; else at Ctrl-C."
)
@json_option
def virtual(  # noqa: PLR0917 - click passes them by name
    kinds: tuple[str, ...],
    count: int,
    tcp_port: int | None,
    host: str,
    pty: bool,  # noqa: FBT001
    alias_folder: Path | None,
    seed: str,
    speed: float,
    interval_s: int,
    start: str | None,
    past_s: int,
    zone: "ZoneInfo",
    phases: str,
    pv: bool | None,  # noqa: FBT001
    gas: bool,  # noqa: FBT001
    water: bool,  # noqa: FBT001
    faults: tuple[str, ...],
    ledger: Path | None,
    duration_s: float | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Virtual meters: households with PV, gas and water that speak like real meters.

    \b
    One P1 meter, on a free TCP port; then look at its bytes:
      meterway meter virtual
      nc 127.0.0.1 PORT
    An SML meter as a serial device:
      meterway meter virtual --kind sml --pty
    Ten of each, a day in 24 minutes:
      meterway meter virtual --kind p1 --kind sml --count 20 --speed 60
    A bad line, and what was sent on it:
      meterway meter virtual --fault garble=0.01 --ledger sent.jsonl
    The end of summer time:
      meterway meter virtual --start 2026-10-25T02:55:00+02:00

    Faults, each with the share of telegrams it hits: noise (stray bytes before a telegram), garble (changed
    bytes), cut (the rest is missing), checksum (a wrong one), silence (several telegrams in a row are not sent).

    Meters begin to speak when someone listens. First comes a line for each meter: its address, kind and id
    (--json: one line {"ready": true, "meters": [...]}); at the end, what was counted, as JSON.
    """
    if pty and tcp_port is not None:
        raise click.UsageError("--pty and --tcp exclude each other")
    if alias_folder and not pty:
        raise click.UsageError("--alias-folder needs --pty")
    from meterway.meter.virtual.faults import parse_faults
    from meterway.meter.virtual.meter import Build, Kind
    from meterway.meter.virtual.serve import Run

    run = Run(
        kinds=tuple(Kind(kind) for kind in kinds),
        count=count,
        seed=seed,
        zone=zone,
        build=Build(phases=int(phases), gas=gas, water=water, pv=pv),
        tcp_port=None if pty else tcp_port or 0,
        host=host,
        alias_folder=alias_folder,
        start_s=start_s(start, zone),
        past_s=past_s,
        speed=speed,
        interval_s=interval_s,
        faults=parse_faults(faults),
        duration_s=duration_s,
        ledger=ledger,
    )
    _serve(run, _ready_json if as_json else _ready_text)


def _serve(run: "Run", ready: Callable[[list["Offer"]], None]) -> None:
    import asyncio
    import signal

    from meterway.meter.virtual.serve import serve

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        print_json(await serve(run, ready, stop))

    asyncio.run(main())


def _ready_json(offers: list["Offer"]) -> None:
    print_json({"ready": True, "meters": offers})


def _ready_text(offers: list["Offer"]) -> None:
    for offer in offers:
        click.echo(f"{offer.address}  {offer.kind:3}  {offer.meter_id}")


def start_s(text: str | None, zone: "ZoneInfo") -> int | None:
    """Return a start time as Unix time; a time without offset is local time in ``zone``."""
    if text is None:
        return None
    try:
        start = datetime.fromisoformat(text)
    except ValueError:
        raise SetupError(f"--start {text}: not a time such as 2026-03-29T00:00:00+01:00") from None
    return int((start if start.tzinfo else start.replace(tzinfo=zone)).astimezone(UTC).timestamp())
