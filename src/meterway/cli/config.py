"""``meterway config check``: is this file right, and for which component?"""

import tomllib
from pathlib import Path

import click

from meterway.cli.output import json_option, print_json
from meterway.core.config import convert_config
from meterway.core.errors import SetupError


@click.group()
def config() -> None:
    """Work with configuration files."""


@config.command()
@click.argument("files", type=click.Path(path_type=Path, dir_okay=False), nargs=-1, required=True)
@json_option
def check(files: tuple[Path, ...], *, as_json: bool) -> None:
    """Read FILES as their component would, and say what is wrong with the first that is.

    \b
    Example:
      meterway config check edge.toml cloud.toml
    """
    for path in files:
        component, _ = load_any(path)
        if as_json:
            print_json({"file": str(path), "component": component, "ok": True})
        else:
            click.echo(f"{path}: good, a configuration for `meterway {component}`")


def load_any(path: Path) -> tuple[str, object]:
    """Return a configuration and the component that it is for.

    Raises:
        SetupError: it is for none, or wrong.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SetupError(f"{path}: cannot be read: {error}") from error
    component, kind = _kind(path, table)
    return component, convert_config(table, kind, where=str(path))


def _kind(path: Path, table: dict[str, object]) -> tuple[str, type]:
    """Tell a file's component by the table that only it has."""
    if "adapters" in table or "concentrator" in table:
        from meterway.edge import EdgeConfig

        return "edge", EdgeConfig
    if "meters" in table:
        from meterway.adapter.config import AdapterConfig

        return "adapter", AdapterConfig
    if "cloud" in table:
        from meterway.concentrator.config import ConcentratorConfig

        return "concentrator", ConcentratorConfig
    if {"database", "http", "ingest"} & table.keys():
        from meterway.cloud.config import CloudConfig

        return "cloud", CloudConfig
    raise SetupError(
        f"{path}: no component's configuration: an adapter has [[meters]], a concentrator [cloud], the cloud "
        "[database], an edge [concentrator] and [[adapters]]"
    )
