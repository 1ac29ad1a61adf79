"""``meterway config check``: every mistake is named with file and place, before anything runs."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from meterway.cli.config import config

ADAPTER = """
id = "a"
spool_dir = "spool"
[[meters]]
id = "m"
source = { type = "replay", file = "x" }
"""


def check(tmp_path: Path, *texts: str, options: tuple[str, ...] = ()) -> Result:
    paths = []
    for number, text in enumerate(texts):
        paths.append(tmp_path / f"{number}.toml")
        paths[-1].write_text(text)
    return CliRunner().invoke(config, ["check", *options, *map(str, paths)])


def test_every_file_is_looked_at_even_behind_a_wrong_one(tmp_path: Path) -> None:
    result = check(tmp_path, "zzz = 1", ADAPTER)
    assert result.exit_code == 2
    assert "0.toml: no component's configuration" in result.stderr
    assert result.stdout == f"{tmp_path / '1.toml'}: good, a configuration for `meterway adapter`\n"


def test_with_json_each_file_is_a_line(tmp_path: Path) -> None:
    wrong, good = map(json.loads, check(tmp_path, "x = ", ADAPTER, options=("--json",)).stdout.splitlines())
    assert (wrong["ok"], good["ok"], good["component"]) == (False, True, "adapter")
    assert "not TOML" in wrong["error"]


def test_a_family_that_there_is_not_is_named_with_the_nearest(tmp_path: Path) -> None:
    result = check(tmp_path, ADAPTER + 'family = "p1-genric"\n')
    assert result.exit_code == 2
    assert "0.toml: there is no family of meters `p1-genric`; did you mean `p1-generic`?" in result.stderr


def test_a_property_that_there_is_not_is_named(tmp_path: Path) -> None:
    result = check(tmp_path, ADAPTER + 'mapping = { "1.8.0" = "OBIS_1.8.O" }\n')
    assert result.exit_code == 2
    assert "OBIS_1.8.O" in result.stderr
    assert "0.toml: meter m: " in result.stderr


def test_a_brokers_url_of_another_form_is_named(tmp_path: Path) -> None:
    result = check(tmp_path, ADAPTER + '[broker]\nurl = "127.0.0.1:1883"\n')
    assert result.exit_code == 2
    assert "'127.0.0.1:1883' is not mqtts://host:port" in result.stderr


def test_a_broker_that_the_embedded_one_replaces_is_not_looked_at(tmp_path: Path) -> None:
    text = '[embedded_broker]\ndata_dir = "b"\n[broker]\nurl = "nonsense"\n'
    assert check(tmp_path, text).exit_code == 0
