"""What the pages say is there, and what is there is said."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import click
import msgspec
import pytest
from click.testing import CliRunner

from meterway.adapter.config import MeterConfig, ReplaySource
from meterway.adapter.mapping import Mapper
from meterway.cli import root
from meterway.core import errors, topics, wire
from meterway.meter.driver import MeterSetup
from meterway.meter.family import family_names, load_family
from meterway.meter.telegram import Telegram
from meterway.plugins import make_decoder

PROJECT = Path(__file__).parent.parent
PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])
README = (PROJECT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_file_that_the_specification_page_names_is_there() -> None:
    text = (PROJECT / "docs/spec.md").read_text()
    named = set(re.findall(r"`((?:src|tests)/[^`\s]+)`", text))
    assert len(named) > 30
    assert [name for name in sorted(named) if not (PROJECT / name).exists()] == []


def test_the_pages_made_from_the_code_are_up_to_date() -> None:
    made = subprocess.run(
        [sys.executable, PROJECT / "scripts/make_docs.py", "--check"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout


def test_the_readmes_telegram_is_the_examples_and_becomes_the_readmes_reading() -> None:
    telegram = (PROJECT / "examples/telegram.p1").read_bytes()
    shown = re.findall(r"```text\n(/MWY5.*?)```", README, re.DOTALL)[0]
    assert shown.encode() == telegram.replace(b"\r\n", b"\n")
    family = load_family("p1-generic")
    (decoded,) = make_decoder(MeterSetup(family=family, zone=ZoneInfo(family.timezone))).feed(telegram, 0.0)
    assert isinstance(decoded, Telegram)
    meter = MeterConfig(id="bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff", source=ReplaySource(file=Path("telegram.p1")))
    first = Mapper(meter, family).readings(decoded, datetime.now(UTC))[0].reading
    payload = wire.encode(msgspec.structs.replace(first, sequence_number=1))
    block = re.findall(r"```json\n(.*?)```", README, re.DOTALL)[0]
    assert msgspec.json.decode(payload) == msgspec.json.decode(block.encode())


def test_every_command_is_on_the_command_page_and_shows_how_to_use_it() -> None:
    page = (PROJECT / "docs/cli.md").read_text()
    runner = CliRunner()
    for name in root.list_commands(click.Context(root)):
        assert f"`meterway {name}`" in page
        assert runner.invoke(root, [name, "--help"]).exit_code == 0


def test_every_specific_topic_and_family_is_described() -> None:
    architecture = (PROJECT / "docs/architecture.md").read_text()
    assert [each for each in topics.SpecificTopic if f"`{each}`" not in architecture] == []
    for name in family_names():
        assert load_family(name).title


def test_the_tree_of_errors_is_the_tree() -> None:
    assert errors.__doc__ is not None
    for error in (errors.MeterwayError, errors.BadDataError, errors.TransientError, errors.SetupError):
        assert error.__name__ in errors.__doc__


@pytest.mark.parametrize("file", sorted(PROJECT.glob("examples/*.toml")), ids=lambda file: file.name)
def test_every_example_is_a_good_configuration(file: Path) -> None:
    result = CliRunner().invoke(root, ["config", "check", str(file)])
    assert result.exit_code == 0, result.output
