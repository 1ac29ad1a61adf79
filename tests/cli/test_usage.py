"""Wrong usage: one sentence that says what, where and the next step; never a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest


def meterway(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "meterway", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("group", [(), ("meter",), ("config",)])
def test_a_group_alone_shows_its_help(group: tuple[str, ...]) -> None:
    result = meterway(*group)
    assert result.returncode == 2
    assert result.stderr.startswith(f"Usage: {' '.join(('meterway', *group))} [OPTIONS] COMMAND")
    assert "..." not in result.stderr.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("demoo",), "meterway: No such command 'demoo'.\nTry: meterway --help\n"),
        (("edge",), "meterway: Missing option '--config'.\nTry: meterway edge --help\n"),
        (("edge", "--config", "nosuch.toml"), "meterway: nosuch.toml: cannot be read: No such file or directory\n"),
        (("decode", "nosuch.bin"), "meterway: nosuch.bin: cannot be read: No such file or directory\n"),
        (
            ("demo", "--fault", "nois=0.1"),
            "meterway: fault 'nois' is unknown; there are noise, garble, cut, checksum, silence\n",
        ),
    ],
)
def test_a_mistake_is_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    result = meterway(*arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", sentence)


def test_a_file_for_another_component_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text('data_dir = "d"\n[concentrator]\nid = "c"\ncloud = {}\n')
    result = meterway("cloud", "--config", str(path))
    assert result.returncode == 2
    assert result.stderr.endswith("; the file looks like one for `meterway edge`\n")


def test_a_command_whose_packages_are_not_installed_says_what_to_install(tmp_path: Path) -> None:
    path = tmp_path / "cloud.toml"
    path.write_text('[database]\nembedded = "d"\n')
    without = f"import sys; sys.modules['fastapi'] = None; sys.argv = ['meterway', 'cloud', '--config', '{path}']"
    program = f"{without}; from meterway.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert result.stderr == (
        "meterway: fastapi is not installed; this command needs: pip install 'meterway[cloud,embedded]'\n"
    )
