"""What Meterway stands on, and what stands around it: the lock file, licences, systemd units."""

import importlib.util
import re
import shutil
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
UNITS = sorted((ROOT / "examples" / "systemd").glob("*.service"))
EXPOSURE_LIMIT = 2.0
"""Of `systemd-analyze security`: 0 is closed, 10 open. A service without any hardening has 9.6."""


@pytest.fixture
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "scripts" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_that_runs_is_pinned_and_under_a_licence_that_is_accepted() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "audit.py", "--offline"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_licence_that_binds_and_a_version_that_is_not_pinned_are_found(
    audit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bound-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: bound\nVersion: 1.0\nLicense-Expression: GPL-3.0-only\n")
    monkeypatch.setattr(audit, "needed", lambda: {"bound": Distribution.at(folder)})
    found = list(audit.faults_of_packages())
    assert ["pin it" in line for line in found] == [True, False]
    assert "GPL-3.0-only" in found[1]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_are_hardened(unit: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed here")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", unit], capture_output=True, text=True, check=False
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE_LIMIT
