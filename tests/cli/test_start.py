"""What the disk does to a start: a sentence or going on, never a traceback."""

import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from meterway.bus.bus import BrokerConfig
from meterway.concentrator.config import ConcentratorConfig
from meterway.core.config import load_config
from meterway.edge import component

EDGE = """
data_dir = "{folder}"
[concentrator]
id = "c"
cloud = {{ url = "mqtt://127.0.0.1:1" }}
[[adapters]]
id = "a"
[[adapters.meters]]
id = "m"
source = {{ type = "tcp", host = "127.0.0.1", port = 1 }}
"""
CLOUD = """
[database]
embedded = "{folder}"
"""


def meterway(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "meterway", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("component", ["demo", "edge", "cloud"])
def test_a_data_directory_that_cannot_be_made_is_named(component: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "data"
    config = tmp_path / "config.toml"
    config.write_text((EDGE if component == "edge" else CLOUD).format(folder=folder))
    where = ("--data-dir", folder) if component == "demo" else ("--config", config)
    result = meterway(component, *where)
    assert result.returncode == 2
    assert f"{folder}" in result.stderr
    assert "cannot be used: Not a directory" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_demo_goes_on_without_its_note_of_the_meters_time(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "meters-until").touch()
    (tmp_path / "meters-until.new").mkdir()
    result = meterway("demo", "--duration", "1", "--meters", "1", "--data-dir", tmp_path, "--json")
    assert result.returncode == 0, result.stderr
    assert msgspec.json.decode(result.stdout.splitlines()[-1])["missing"] == 0


def test_the_configuration_of_a_component_is_only_ours_to_read(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    config = ConcentratorConfig(id="c", cloud=BrokerConfig(), spool_dir=tmp_path / "spool")
    for _ in range(2):
        command = component("concentrator", config, folder)
        assert str(folder / "concentrator.toml") in command.arguments
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "concentrator.toml").stat().st_mode) == 0o600
    assert load_config((folder / "concentrator.toml").read_text(), ConcentratorConfig, where="it") == config
