"""``meterway meter town``: a whole town of meters that are not there."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meterway.cli.output import ZoneType, json_option, print_json
from meterway.cli.virtual import start_s

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from zoneinfo import ZoneInfo

    from meterway.meter.virtual.town.lines import TownOffer
    from meterway.meter.virtual.town.record import Summary
    from meterway.meter.virtual.town.serve import Progress, TownRun

_POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command(short_help="A whole town of meters that are not there, over all protocols.")
@click.option("--households", type=click.IntRange(1, 5000), default=20, show_default=True, help="How many households.")
@click.option(
    "--profile", default="mixed", show_default=True, help="village, apartment-block, campus, street or mixed."
)
@click.option("--seed", default="1", show_default=True, help="The same seed gives the same town.")
@click.option(
    "--speed", type=_POSITIVE, metavar="X", default=1.0, show_default=True, help="How much faster than real time."
)
@click.option("--start", help="The meters' time at the start (2026-03-29T00:00:00+01:00); else now.")
@click.option("--days", type=_POSITIVE, metavar="DAYS", help="Stop after so many days of the meters' time.")
@click.option(
    "--duration", "duration_s", type=_POSITIVE, metavar="SECONDS", help="Stop after so many seconds; else at Ctrl-C."
)
@click.option(
    "--interval",
    "interval_s",
    type=click.IntRange(1, 86_400),
    metavar="SECONDS",
    default=1,
    show_default=True,
    help="Meters that send by themselves do not do it more often, in their own time.",
)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=0.0,
    help="Let no time pass until every meter that sends has a reader, but at most so many seconds.",
)
@click.option(
    "--past",
    "past_s",
    type=click.IntRange(0, 31 * 86_400),
    metavar="SECONDS",
    default=0,
    help="Meters that send and have a clock first tell so many last seconds quickly.",
)
@click.option("--fault", "faults", multiple=True, metavar="KIND[:CLASS][=SHARE]", help="See above; several at will.")
@click.option(
    "--config-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write adapter.toml (several from 250 meters on), edge.toml and keys/ there, ready to run.",
)
@click.option(
    "--broker", default="mqtt://127.0.0.1:1883", show_default=True, help="With --config-dir: the adapters' broker."
)
@click.option(
    "--ledger", type=click.Path(dir_okay=False, path_type=Path), help="Append the truth, as JSON lines, to FILE."
)
@click.option("--tcp", "tcp_port", type=click.IntRange(0, 65_535), default=0, help="First port; 0 takes free ones.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--pty", is_flag=True, help="Offer pseudo-terminals (serial devices) in place of TCP.")
@click.option(
    "--alias-folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to link pseudo-terminals by their meter ids; left out: CONFIG_DIR/ptys.",
)
@click.option(
    "--zone", type=ZoneType(), default="Europe/Vienna", show_default=True, help="Where the town lies (IANA name)."
)
@json_option
def town(  # noqa: PLR0917 - click passes them by name
    households: int,
    profile: str,
    seed: str,
    speed: float,
    start: str | None,
    days: float | None,
    duration_s: float | None,
    interval_s: int,
    wait_s: float,
    past_s: int,
    faults: tuple[str, ...],
    config_dir: Path | None,
    broker: str,
    ledger: Path | None,
    tcp_port: int,
    host: str,
    pty: bool,  # noqa: FBT001
    alias_folder: Path | None,
    zone: "ZoneInfo",
    as_json: bool,  # noqa: FBT001
) -> None:
    """A whole town of meters that are not there: households under one sky, with PV, heat pumps and cars.

    Electricity, gas, water and heat meters over P1, SML, DLMS, IEC 62056-21, M-Bus on wire and radio, Modbus and
    JSON, plain and encrypted, sending and asked. Everything follows from the seed; what every meter truly measured
    stands in the ledger.

    \b
    Look at a town:
      meterway meter town --households 5
    Read it with real software:
      meterway meter town --config-dir town --ledger truth.jsonl --wait 60
      meterway adapter --config town/adapter.toml
    A day in five minutes:
      meterway meter town --speed 288 --days 1 --interval 60
    A year, as fast as it is read:
      meterway meter town --start 2025-01-01 --days 365 --interval 3600 \\
        --speed 100000 --wait 60 --config-dir town
    The end of summer time:
      meterway meter town --fault dst --speed 60
    One meter in five is swapped, water leaks in every house:
      meterway meter town --fault swap:electricity=0.2 --fault leak=1

    Faults: noise, loss, silence, drift (of the clock), swap (of the meter), rollover (of a register), dst (the clock
    changes), wrong-key, zero (readings), leak (of water). CLASS is a medium, protocol or family; SHARE (0.1) is the
    share of the meters that can have the fault. Each stands in the ledger with what a good system says about it.

    First comes a line for each meter (--json: one line {"ready": true, "meters": [...]}), at the end what was
    counted, as JSON. Progress goes to stderr.
    """
    from meterway.meter.virtual.town.faults import parse_wishes
    from meterway.meter.virtual.town.lines import Places
    from meterway.meter.virtual.town.serve import TownRun
    from meterway.meter.virtual.town.town import Town

    run = TownRun(
        town=Town(profile, households, seed, zone),
        places=Places(
            host=host,
            tcp_port=tcp_port,
            pty=pty,
            alias_folder=alias_folder or (config_dir and config_dir / "ptys"),
        ),
        start_s=start_s(start, zone),
        speed=speed,
        days=days,
        duration_s=duration_s,
        past_s=past_s,
        wait_s=wait_s,
        interval_s=interval_s,
        faults=parse_wishes(faults),
        ledger=ledger,
    )

    if config_dir is not None:
        from meterway.demo.town import private_folder

        private_folder(config_dir)  # now, for the ledger may lie in it too

    def ready(offers: "Sequence[TownOffer]") -> None:
        if config_dir is not None:
            _configure(config_dir, run, offers, broker)
        if as_json:
            print_json({"ready": True, "meters": offers})
            return
        for offer in offers:
            address = f"{offer.address} {offer.unit}".rstrip()
            click.echo(f"{address:28}  {offer.medium:11}  {offer.family:26}  {offer.meter_id}")

    print_json(_serve(run, ready))


def _configure(folder: Path, run: "TownRun", offers: "Sequence[TownOffer]", broker: str) -> None:
    from meterway.bus.bus import BrokerConfig
    from meterway.demo.town import write_config

    keys = {meter.meter_id: meter.keys for meter in run.town.meters}
    paths = write_config(folder, offers, keys, zone=str(run.town.zone), broker=BrokerConfig(url=broker))
    for path in paths:
        click.echo(f"meterway: to read this town: meterway adapter --config {path}", err=True)


def _serve(run: "TownRun", ready: "Callable[[Sequence[TownOffer]], None]") -> "Summary":
    import asyncio
    import signal

    from meterway.meter.virtual.town.serve import serve_town

    async def main() -> "Summary":
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        return await serve_town(run, ready, stop, show=_show)

    summary = asyncio.run(main())
    if sys.stderr.isatty():
        click.echo("", err=True)
    return summary


def _show(progress: "Progress") -> None:
    """Say how far it is, on one line that is written over; nothing where nobody looks."""
    if sys.stderr.isatty():
        text = f"\r  {progress.time:%Y-%m-%d %H:%M} UTC  {progress.telegrams} telegrams  {progress.faults} faults "
        click.echo(text, nl=False, err=True)
