"""Every import contract holds, and each fails when it is broken; what no import contract can say."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--config", folder / "pyproject.toml", "--no-cache"],
        cwd=folder / "src",
        env={"PYTHONPATH": str(folder / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "src", folder / "src", ignore=ignore)
    shutil.copy(PROJECT / "pyproject.toml", folder)
    return folder


def test_all_contracts_hold(copy: Path) -> None:
    found = lint(copy)
    assert "0 broken" in found.stdout, found.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("adapter/intake.py", "import meterway.cloud.config", "Components meet only on the wire"),
        ("core/obis.py", "import meterway.bus.bus", "Components meet only on the wire"),
        ("stray.py", "x = 1", "Components meet only on the wire"),
        ("core/units.py", "import time", "The shared language, codecs and deciders are pure"),
        ("meter/p1.py", "import asyncio", "The shared language, codecs and deciders are pure"),
        ("concentrator/forward.py", "import meterway.core.wire", "The concentrator cannot read what it carries"),
        ("concentrator/intake.py", "import json", "The concentrator cannot read what it carries"),
        ("cloud/ingest.py", "import gmqtt", "Only bus.session knows the MQTT library"),
        ("meter/virtual/links.py", "import serialx", "Only adapter.links.serial knows the serial library"),
        ("cloud/query.py", "import asyncpg", "Only cloud.store knows the database driver"),
    ],
)
def test_a_contract_that_is_broken_is_named(copy: Path, file: str, line: str, contract: str) -> None:
    path = copy / "src/meterway" / file
    before = path.read_text() if path.exists() else None
    path.write_text(f"{before or ''}\n{line}\n")
    try:
        found = lint(copy)
    finally:
        path.write_text(before) if before is not None else path.unlink()
    assert found.returncode == 1
    assert f"{contract} BROKEN" in found.stdout or "not listed" in found.stdout + found.stderr, found.stdout


def test_no_group_of_a_pattern_is_possessive() -> None:
    """Python before 3.11.5, that of Debian 12 among them, takes a part of such a group (CPython issue 106052)."""
    possessive = re.compile(r"\)(?:[?*+]|\{[0-9,]+\})\+")
    assert possessive.search(r"1(?:\*kWh)?+"), "the check itself"
    for path in (PROJECT / "src").rglob("*.py"):
        assert possessive.findall(path.read_text()) == [], path
