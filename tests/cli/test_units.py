"""The systemd units of examples/ start commands that there are, with examples that there are."""

import shlex
from configparser import RawConfigParser
from pathlib import Path

import click
import pytest

from meterway.cli import root

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.mark.parametrize("unit", sorted(EXAMPLES.glob("systemd/*.service")), ids=lambda unit: unit.name)
def test_a_unit_starts_a_command_with_an_example(unit: Path) -> None:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read(unit)
    program, command, option, config = shlex.split(parser["Service"]["ExecStart"])
    assert Path(program).name == "meterway"
    assert root.get_command(click.Context(root), command) is not None
    assert option == "--config"
    assert (EXAMPLES / Path(config).name).exists()
