"""``meterway adapter | concentrator | edge``: the components, each a process that runs until it is stopped."""

from collections.abc import Callable
from pathlib import Path

import click

from meterway.cli.config import read_config
from meterway.cli.enroll import enroll_command
from meterway.cli.output import json_option, run_service


def _component(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--verbose", is_flag=True, help="Log more, frames included (as hex, elided)."),
        click.option(
            "--config",
            "config_path",
            type=click.Path(path_type=Path, dir_okay=False),
            help="The configuration (TOML); docs/config.md lists the keys. `meterway config check` tests it.",
        ),
    ):
        command = option(command)
    return click.pass_context(json_option(command))


def _config_path(context: click.Context, config_path: Path | None, *, given: bool) -> Path | None:
    """Return the configuration to run; None where a command below is what was asked for."""
    if context.invoked_subcommand is not None:
        if config_path is not None or given:
            place = f"{context.info_name} {context.invoked_subcommand}"
            raise click.UsageError(f"options stand behind `{place}`, not before it", context)
        return None
    if config_path is None:
        raise click.MissingParameter(ctx=context, param_hint="'--config'", param_type="option")
    return config_path


@click.group(short_help="Read meters and publish their readings.", invoke_without_command=True)
@_component
def adapter(context: click.Context, *, config_path: Path | None, verbose: bool, as_json: bool) -> None:
    """Read meters and publish smartMeterMessage/[smartMeterId]/[specificTopic].

    \b
    Examples:
      meterway adapter --config adapter.toml
      meterway adapter enroll https://cloud.example CODE --config adapter.toml
    """
    path = _config_path(context, config_path, given=verbose or as_json)
    if path is None:
        return
    from meterway.adapter.config import AdapterConfig
    from meterway.adapter.service import run

    config = read_config(path, AdapterConfig)
    run_service(f"adapter {config.id}", lambda ready: run(config, ready=ready), as_json=as_json, verbose=verbose)


@click.group(short_help="Pass on what adapters publish, byte for byte.", invoke_without_command=True)
@_component
def concentrator(context: click.Context, *, config_path: Path | None, verbose: bool, as_json: bool) -> None:
    """Pass on smartMeterMessage/# to concentrator/[concentratorId]/..., byte for byte.

    \b
    Examples:
      meterway concentrator --config concentrator.toml
      meterway concentrator enroll https://cloud.example CODE --config concentrator.toml
    """
    path = _config_path(context, config_path, given=verbose or as_json)
    if path is None:
        return
    from meterway.concentrator.config import ConcentratorConfig
    from meterway.concentrator.service import run

    config = read_config(path, ConcentratorConfig)
    run_service(f"concentrator {config.id}", lambda ready: run(config, ready=ready), as_json=as_json, verbose=verbose)


@click.group(short_help="Adapters and concentrator on one device, from one file.", invoke_without_command=True)
@_component
def edge(context: click.Context, *, config_path: Path | None, verbose: bool, as_json: bool) -> None:
    """Run adapters and concentrator on this device from one file.

    Each is a process of its own, watched and started again; a broker between them is started too.

    \b
    Examples:
      meterway edge --config edge.toml
      meterway edge enroll https://cloud.example CODE --config edge.toml
    """
    path = _config_path(context, config_path, given=verbose or as_json)
    if path is None:
        return
    from meterway.edge import EdgeConfig, run

    config = read_config(path, EdgeConfig)
    run_service(
        f"edge {config.concentrator.id}",
        lambda ready: run(config, ready=ready),
        as_json=as_json,
        verbose=verbose,
    )


for _component_group in (adapter, concentrator, edge):
    _component_group.add_command(enroll_command(str(_component_group.name)))
