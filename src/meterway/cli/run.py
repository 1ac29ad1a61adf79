"""``meterway adapter | concentrator | edge``: the components, each a process that runs until it is stopped."""

from collections.abc import Callable
from pathlib import Path

import click

from meterway.cli.config import read_config
from meterway.cli.output import json_option, run_service


def _component(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--verbose", is_flag=True, help="Log more, frames included (as hex, elided)."),
        click.option(
            "--config",
            "config_path",
            type=click.Path(path_type=Path, dir_okay=False),
            required=True,
            help="The configuration (TOML); docs/config.md lists the keys. `meterway config check` tests it.",
        ),
    ):
        command = option(command)
    return json_option(command)


@click.command(short_help="Read meters and publish their readings.")
@_component
def adapter(config_path: Path, *, verbose: bool, as_json: bool) -> None:
    """Read meters and publish smartMeterMessage/[smartMeterId]/[specificTopic].

    \b
    Example:
      meterway adapter --config adapter.toml
    """
    from meterway.adapter.config import AdapterConfig
    from meterway.adapter.service import run

    config = read_config(config_path, AdapterConfig)
    run_service(f"adapter {config.id}", lambda ready: run(config, ready=ready), as_json=as_json, verbose=verbose)


@click.command(short_help="Pass on what adapters publish, byte for byte.")
@_component
def concentrator(config_path: Path, *, verbose: bool, as_json: bool) -> None:
    """Pass on smartMeterMessage/# to concentrator/[concentratorId]/..., byte for byte.

    \b
    Example:
      meterway concentrator --config concentrator.toml
    """
    from meterway.concentrator.config import ConcentratorConfig
    from meterway.concentrator.service import run

    config = read_config(config_path, ConcentratorConfig)
    run_service(f"concentrator {config.id}", lambda ready: run(config, ready=ready), as_json=as_json, verbose=verbose)


@click.command(short_help="Adapters and concentrator on one device, from one file.")
@_component
def edge(config_path: Path, *, verbose: bool, as_json: bool) -> None:
    """Run adapters and concentrator on this device from one file.

    Each is a process of its own, watched and started again; a broker between them is started too.

    \b
    Example:
      meterway edge --config edge.toml
    """
    from meterway.edge import EdgeConfig, run

    config = read_config(config_path, EdgeConfig)
    run_service(
        f"edge {config.concentrator.id}",
        lambda ready: run(config, ready=ready),
        as_json=as_json,
        verbose=verbose,
    )
