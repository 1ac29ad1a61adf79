"""Configuration files on the command line: ``meterway config check``, and reading one for a component."""

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from meterway.cli.output import json_option, print_json
from meterway.core.config import Config, convert_config
from meterway.core.errors import SetupError


@click.group(short_help="Check configuration files.")
def config() -> None:
    """Work with configuration files.

    \b
    Example:
      meterway config check edge.toml
    """


@config.command(short_help="Read files as their component would, and say what is wrong.")
@click.argument("files", type=click.Path(path_type=Path, dir_okay=False), nargs=-1, required=True)
@json_option
def check(files: tuple[Path, ...], *, as_json: bool) -> None:
    """Read FILES as their component would, and say what is wrong with each.

    Families of meters, property ids and broker URLs that a file names are looked up too. Nothing is connected:
    `meterway doctor` does that. Exit code 2 if a file is wrong.

    \b
    Example:
      meterway config check edge.toml cloud.toml
    """
    whole = [_check(path, as_json=as_json) for path in files]
    sys.exit(0 if all(whole) else 2)


def _check(path: Path, *, as_json: bool) -> bool:
    try:
        component, _ = load_any(path)
    except SetupError as error:
        if as_json:
            print_json({"file": str(path), "ok": False, "error": str(error)})
        else:
            click.echo(f"meterway: {error}", err=True)
        return False
    if as_json:
        print_json({"file": str(path), "ok": True, "component": component})
    else:
        click.echo(f"{path}: good, a configuration for `meterway {component}`")
    return True


def load_any(path: Path) -> tuple[str, object]:
    """Return a configuration and the component that it is for.

    Raises:
        SetupError: it is for none, or wrong, or names a family or property that there is not.
    """
    table = _read(path)
    component = _component(table)
    if component is None:
        raise SetupError(
            f"{path}: no component's configuration: an adapter has [[meters]], a concentrator [cloud], the cloud "
            "[database], an edge [concentrator] and [[adapters]]"
        )
    found: object = convert_config(table, _kind(component), where=str(path))
    _look_up(found, where=str(path))
    return component, found


def read_config(path: Path, kind: type[Config]) -> Config:
    """Return the configuration in a file.

    Raises:
        SetupError: it cannot be read, or says something that is not understood.
    """
    table = _read(path)
    try:
        return convert_config(table, kind, where=str(path))
    except SetupError as error:
        component = _component(table)
        if component is None or _kind(component) is kind:
            raise
        raise SetupError(f"{error}; the file looks like one for `meterway {component}`") from error


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SetupError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SetupError(f"{path}: cannot be read: it is not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise SetupError(f"{path}: not TOML: {error}") from error


def _component(table: dict[str, object]) -> str | None:
    """Tell a file's component by the table that only it has."""
    signs = {
        "edge": {"adapters", "concentrator"},
        "adapter": {"meters"},
        "concentrator": {"cloud"},
        "cloud": {"database", "http", "ingest", "embedded_broker"},
    }
    return next((component for component, names in signs.items() if names & table.keys()), None)


def _kind(component: str) -> type:
    if component == "edge":
        from meterway.edge import EdgeConfig

        return EdgeConfig
    if component == "adapter":
        from meterway.adapter.config import AdapterConfig

        return AdapterConfig
    if component == "concentrator":
        from meterway.concentrator.config import ConcentratorConfig

        return ConcentratorConfig
    from meterway.cloud.config import CloudConfig

    return CloudConfig


def tables(value: object) -> Iterator[msgspec.Struct]:
    """Return all tables of a configuration, the outermost first; not those that another one makes void."""
    if isinstance(value, msgspec.Struct):
        yield value
        void = {"broker"} if getattr(value, "embedded_broker", None) is not None else set()
        for name in value.__struct_fields__:
            if name not in void:
                yield from tables(getattr(value, name))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tables(item)


def _look_up(found: object, *, where: str) -> None:
    """Look for what a configuration only names.

    Raises:
        SetupError: there is no such family or property, or a broker's URL has another form.
    """
    from meterway.adapter.config import MeterConfig
    from meterway.adapter.mapping import Mapper
    from meterway.bus.bus import BrokerConfig
    from meterway.bus.mqtt import broker_address
    from meterway.plugins import find_family

    try:
        for table in tables(found):
            if isinstance(table, BrokerConfig):
                broker_address(table)
            if isinstance(table, MeterConfig):
                Mapper(table, find_family(table.family))
    except SetupError as error:
        raise SetupError(f"{where}: {error}") from error
