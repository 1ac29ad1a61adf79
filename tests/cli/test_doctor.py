"""The doctor looks at the folders and secrets that a configuration names."""

import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from meterway.cli.doctor import doctor

ADAPTER = """
id = "a"
spool_dir = "{spool}"
[broker]
url = "mqtt://127.0.0.1:1"
password_file = "{secret}"
[[meters]]
id = "m"
source = {{ type = "replay", file = "x" }}
"""


def checks(tmp_path: Path, *, spool: Path, secret: Path) -> dict[str, tuple[bool, str]]:
    config = tmp_path / "adapter.toml"
    config.write_text(ADAPTER.format(spool=spool, secret=secret))
    result = CliRunner().invoke(doctor, ["--json", "--config", str(config)])
    lines = [json.loads(line) for line in result.output.splitlines()]
    return {line["check"]: (line["ok"], line["detail"] + line["fix"]) for line in lines}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "broker.password"
    path.write_text("x")
    path.chmod(0o600)
    return path


def test_the_spools_folder_is_looked_at(tmp_path: Path, secret: Path) -> None:
    found = checks(tmp_path, spool=tmp_path / "spool", secret=secret)
    assert f"{tmp_path / 'spool'} can be written" in found["folder"][1]


def test_a_secret_that_everybody_can_read_fails(tmp_path: Path, secret: Path) -> None:
    assert checks(tmp_path, spool=tmp_path, secret=secret)["password_file"][0]
    secret.chmod(0o644)
    ok, said = checks(tmp_path, spool=tmp_path, secret=secret)["password_file"]
    assert not ok
    assert f"{secret} is open to every user of this machine" in said
    assert f"chmod 600 {secret}" in said


def test_a_secret_that_is_not_there_fails(tmp_path: Path) -> None:
    ok, said = checks(tmp_path, spool=tmp_path, secret=tmp_path / "nothing")["password_file"]
    assert not ok
    assert "No such file or directory" in said


def test_a_port_in_use_by_something_else_is_named(tmp_path: Path) -> None:
    config = tmp_path / "cloud.toml"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        config.write_text(f'[embedded_broker]\ndata_dir = "{tmp_path}"\n[http]\nport = {port}\n')
        result = CliRunner().invoke(doctor, ["--json", "--config", str(config)], env={"METERWAY_DSN": "postgresql:///"})
    lines = {line["check"]: line for line in map(json.loads, result.output.splitlines())}
    assert result.exit_code == 1
    assert (lines["http"]["ok"], lines["http"]["fix"]) == (False, "choose another `port` under [http]")
    assert lines["database"]["ok"] is False
    assert "broker" not in lines


def test_a_wrong_file_is_named_once(tmp_path: Path) -> None:
    result = CliRunner().invoke(doctor, ["--json", "--config", str(tmp_path / "nosuch.toml")])
    last = json.loads(result.output.splitlines()[-1])
    assert (last["check"], last["detail"]) == (
        str(tmp_path / "nosuch.toml"),
        "cannot be read: No such file or directory",
    )
