"""``meterway doctor``: what is wrong here, one line a check, with the fix."""

import asyncio
import dataclasses
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meterway.adapter.doctor.check import Check
from meterway.cli.config import load_any
from meterway.cli.output import json_option, print_json, quietly
from meterway.core.errors import MeterwayError

if TYPE_CHECKING:
    from meterway.adapter.doctor.adapter import AdapterReport

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
@click.option(
    "--bundle", type=_FILE, help="Write what was found, and the bytes, to this zip file; nobody is named in it."
)
@click.option("--replay", type=_FILE, help="Look at a bundle instead: decode its bytes again, and judge them.")
@json_option
def doctor(
    config_paths: tuple[Path, ...], *, listen_s: float, bundle: Path | None, replay: Path | None, as_json: bool
) -> None:
    """Look for what would keep Meterway from working here; one line a check, with the fix.

    Changes nothing. Where an adapter runs, its meters are judged by the last bytes that it recorded; where none runs,
    `--listen` opens their lines. Exit code 1 if a check fails.

    A bundle is for those who help: keys, passwords, ids, addresses, names and numbers of meters are not in it, and what
    the meters sent decodes as before. Look at it before you send it.

    \b
    Examples:
      meterway doctor
      meterway doctor --config edge.toml --config cloud.toml
      meterway doctor --config adapter.toml --listen 20
      meterway doctor --config adapter.toml --bundle help.zip
      meterway doctor --replay help.zip
    """
    if replay is not None and (bundle is not None or config_paths):
        raise click.UsageError("--replay looks at a bundle alone; leave --config and --bundle away")
    if bundle is not None and bundle.exists():
        raise click.UsageError(f"{bundle} is there already; name another file")
    failed = False
    seen = _Seen()
    with quietly():
        for check in _replayed(replay) if replay else _checks(config_paths, listen_s, seen):
            failed = failed or not check.ok
            _print(check, as_json=as_json)
        if bundle is not None:
            _write(bundle, seen, as_json=as_json)
    sys.exit(1 if failed else 0)


@dataclass(slots=True)
class _Seen:
    """What goes into a bundle."""

    adapters: "list[AdapterReport]" = field(default_factory=list)
    machine: list[Check] = field(default_factory=list)


def _write(path: Path, seen: _Seen, *, as_json: bool) -> None:
    from meterway.adapter.doctor.bundle import build, write

    contents = build(seen.adapters, seen.machine)
    write(path, contents)
    if as_json:
        files = [{"file": each.file, "bytes": len(each.data), "what": each.what} for each in contents]
        print_json({"bundle": str(path), "contents": files})
        return
    click.echo(f"\n{path} holds, for you to look at before anybody else does:")
    for each in contents:
        click.echo(f"  {each.file}: {each.what} ({len(each.data)} bytes)")
    click.echo(f"Nothing was sent. `unzip -p {path} manifest.json` shows what was found of each link.")


def _replayed(path: Path) -> Iterator[Check]:
    from meterway.adapter.doctor.replay import replay

    found = replay(path)
    for link in found.links:
        for check in link.checks:
            yield dataclasses.replace(check, detail=f"{'recorded' if link.is_recorded else 'replayed'}: {check.detail}")
    for check in found.others:
        yield dataclasses.replace(check, detail=f"recorded: {check.detail}")


def _print(check: Check, *, as_json: bool) -> None:
    if as_json:
        print_json({"check": check.name, "code": check.word, "ok": check.ok, "detail": check.detail, "fix": check.fix})
    else:
        mark = click.style("ok  ", fg="green") if check.ok else click.style("FAIL", fg="red", bold=True)
        click.echo(f"{mark}  {_plain(check.name)}: {_plain(check.detail)}")
        if not check.ok:
            click.echo(f"      fix: {_plain(check.fix)}")


def _plain(text: str) -> str:
    """Return text that a terminal shows as it is: a bundle may be anybody's."""
    return "".join(each if each.isprintable() else "?" for each in text)


def _checks(config_paths: tuple[Path, ...], listen_s: float, seen: _Seen) -> Iterator[Check]:
    from meterway.cli.doctor_machine import machine
    from meterway.cli.doctor_parts import look_at, look_for_twins

    seen.machine = list(machine())
    yield from seen.machine
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
        checks, adapters = asyncio.run(look_at(config, listen_s=listen_s))
        seen.adapters += adapters
        yield from checks
    yield from look_for_twins(configs)
