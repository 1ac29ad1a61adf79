"""``meterway doctor``: what is wrong here, one line a check, with the fix."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from meterway.adapter.doctor.check import Check
from meterway.cli.config import load_any
from meterway.cli.output import json_option, print_json, quietly
from meterway.core.errors import MeterwayError

_FILE = click.Path(path_type=Path, dir_okay=False)
_LONGEST_LISTEN_S = 600


@click.command(short_help="Look for what would keep Meterway from working here.")
@click.option(
    "--config",
    "config_paths",
    type=_FILE,
    multiple=True,
    help="A configuration whose meters, brokers, folders, ports and database are tried; may be given several times.",
)
@click.option(
    "--listen",
    "listen_s",
    type=click.FloatRange(0, _LONGEST_LISTEN_S),
    default=0.0,
    show_default=True,
    help="For so many seconds listen to meters whose adapter does not run, or watch the broker of one that does.",
)
@json_option
def doctor(config_paths: tuple[Path, ...], *, listen_s: float, as_json: bool) -> None:
    """Look for what would keep Meterway from working here; one line a check, with the fix.

    Changes nothing. Where an adapter runs, its meters are judged by the last bytes that it recorded; where none runs,
    `--listen` opens their lines. Exit code 1 if a check fails.

    \b
    Examples:
      meterway doctor
      meterway doctor --config edge.toml --config cloud.toml
      meterway doctor --config adapter.toml --listen 20
    """
    failed = False
    with quietly():
        for check in _checks(config_paths, listen_s):
            failed = failed or not check.ok
            _print(check, as_json=as_json)
    sys.exit(1 if failed else 0)


def _print(check: Check, *, as_json: bool) -> None:
    if as_json:
        print_json({"check": check.name, "code": check.word, "ok": check.ok, "detail": check.detail, "fix": check.fix})
    else:
        mark = click.style("ok  ", fg="green") if check.ok else click.style("FAIL", fg="red", bold=True)
        click.echo(f"{mark}  {check.name}: {check.detail}" + (f"\n      fix: {check.fix}" if not check.ok else ""))


def _checks(config_paths: tuple[Path, ...], listen_s: float) -> Iterator[Check]:
    from meterway.cli.doctor_machine import machine
    from meterway.cli.doctor_parts import look_at, look_for_twins

    yield from machine()
    configs: list[tuple[Path, object]] = []
    for path in config_paths:
        try:
            component, config = load_any(path)
        except MeterwayError as error:
            detail = str(error).removeprefix(f"{path}: ")
            fix = "mend the file; docs/config.md lists the keys"
            yield Check(str(path), ok=False, detail=detail, fix=fix, code="config")
            continue
        yield Check(str(path), ok=True, detail=f"a configuration for `meterway {component}`", code="config")
        configs.append((path, config))
        checks, _ = asyncio.run(look_at(config, listen_s=listen_s))
        yield from checks
    yield from look_for_twins(configs)
