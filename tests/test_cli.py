"""The command line as people and programs use it: a process, its exit code, what it prints where."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from meterway.meter.crc import crc16_arc
from meterway.meter.family import load_family

COMMANDS = [
    ("demo",),
    ("edge",),
    ("adapter",),
    ("concentrator",),
    ("cloud",),
    ("meter",),
    ("meter", "virtual"),
    ("drivers",),
    ("decode",),
    ("doctor",),
    ("config",),
    ("config", "check"),
]
ADAPTER = """\
id = "a"
spool_dir = "/var/lib/meterway/a"
[[meters]]
id = "0f6a3d6e-7a53-4f0e-9a57-1c2a54c6a001"
source = { type = "tcp", host = "127.0.0.1", port = 8001 }
"""
CONCENTRATOR = 'id = "c"\nspool_dir = "/var/lib/meterway/c"\n[cloud]\nurl = "mqtt://127.0.0.1:1883"\n'
CLOUD = '[database]\nembedded = "/var/lib/meterway/postgres"\n[http]\nport = 8080\n'
EDGE = f"""\
data_dir = "/var/lib/meterway"
[concentrator]
id = "c"
cloud = {{ url = "mqtt://127.0.0.1:1883" }}
[[adapters]]
id = "a"
[[adapters.meters]]
{ADAPTER.partition("[[meters]]")[2].strip()}
"""


def meterway(*arguments: str | Path, given: bytes = b"") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "meterway", *map(str, arguments)]
    done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=60)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def p1(number: float) -> bytes:
    """Return a telegram of our own making."""
    body = b"/MWY5\\2CLITEST\r\n\r\n1-3:0.2.8(50)\r\n0-0:1.0.0(261102060000W)\r\n1-0:1.8.1(%010.3f*kWh)\r\n!" % number
    return body + b"%04X\r\n" % crc16_arc(body)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def test_the_menu_names_every_command() -> None:
    done = meterway("--help")
    assert done.returncode == 0
    for name, *_ in COMMANDS:
        assert f"\n  {name} " in done.stdout
    assert meterway("--version").stdout.startswith("meterway, version ")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_a_help_with_an_example(command: tuple[str, ...]) -> None:
    done = meterway(*command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    if command not in {("meter",), ("config",)}:  # groups
        assert f"meterway {' '.join(command)} -" in done.stdout.replace("FILES", "-") or (
            f"  meterway {' '.join(command)}" in done.stdout
        )
    assert "--json" in done.stdout or "Commands:" in done.stdout


@pytest.mark.parametrize(
    ("component", "text"),
    [("adapter", ADAPTER), ("concentrator", CONCENTRATOR), ("cloud", CLOUD), ("edge", EDGE)],
)
def test_a_good_configuration_is_recognised(write: Any, component: str, text: str) -> None:
    path = write("good.toml", text)
    done = meterway("config", "check", path)
    assert (done.returncode, done.stdout) == (0, f"{path}: good, a configuration for `meterway {component}`\n")
    done = meterway("config", "check", "--json", path)
    assert json.loads(done.stdout) == {"file": str(path), "component": component, "ok": True}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ADAPTER.replace("spool_dir", "spool_dri"), "did you mean `spool_dir`?"),
        (ADAPTER.replace("8001", "80010"), "$.meters[0].source.port"),
        (ADAPTER.replace('"a"', '"a b"'), "'a b' is not 1 to 64 letters"),
        (CLOUD.replace("8080", '"8080"'), "$.http.port"),
        ("id = \n", "line 1"),
        ("x = 1\n", "no component's configuration"),
        ("", "no component's configuration"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_bad_configuration_is_one_sentence_with_the_place(write: Any, text: str | bytes, said: str) -> None:
    path = write("bad.toml", text)
    done = meterway("config", "check", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"meterway: {path}: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    as_json = meterway("config", "check", "--json", path)
    assert as_json.returncode == 2
    assert said in json.loads(as_json.stdout)["error"]


@pytest.mark.parametrize("command", ["adapter", "concentrator", "cloud", "edge"])
def test_a_service_refuses_a_file_that_is_none_with_one_sentence(write: Any, tmp_path: Path, command: str) -> None:
    broken = write("broken.toml", "id = [\n")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "absent.toml", tmp_path / "folder", broken):
        done = meterway(command, "--config", path)
        assert (done.returncode, done.stdout) == (2, "")
        assert str(path) in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.startswith("meterway: ")


def test_a_file_without_permission_is_a_sentence(write: Any) -> None:
    path: Path = write("secret.toml", ADAPTER)
    path.chmod(0)
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "meterway"]
    done = subprocess.run(
        [*command, "config", "check", str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not readable" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("family", ["p1-generic", "sml-generic"])
def test_decode_recognises_the_protocol_and_shows_readings(write: Any, family: str) -> None:
    sample = load_family(family).sample
    assert sample is not None
    path = write("capture.bin", sample.telegram)
    done = meterway("decode", "--json", path)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    answer = json.loads(line)
    assert (answer["file"], answer["protocol"], answer["errors"]) == (str(path), family.partition("-")[0], [])
    (reading,) = answer["readings"]
    assert any(value["propertyId"] and "numericalValue" in value for value in reading["propertyValues"])
    shown = meterway("decode", path)
    assert shown.returncode == 0
    assert "1 reading(s), 0 rejected" in " ".join(shown.stdout.split())


def test_decode_keeps_digits_and_says_what_it_rejects(write: Any) -> None:
    path = write("two.bin", p1(815.25) + p1(816.5).replace(b"(50)", b"(42)") + p1(817.125))
    done = meterway("decode", "--json", path)
    assert done.returncode == 0
    answer = json.loads(done.stdout, parse_float=str)
    numbers = [
        value["numericalValue"]
        for reading in answer["readings"]
        for value in reading["propertyValues"]
        if "1.8.1" in value["obis"]
    ]
    assert numbers == ["815.250", "817.125"]
    assert [error["reason"] for error in answer["errors"]] == ["bad-checksum"]
    from_stdin = meterway("decode", "--json", "--protocol", "p1", "-", given=p1(1))
    assert (from_stdin.returncode, len(json.loads(from_stdin.stdout)["readings"])) == (0, 1)


def test_decode_of_something_else_leaves_with_one_and_a_sentence(write: Any) -> None:
    path = write("noise.bin", bytes(range(256)))
    done = meterway("decode", path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no known protocol in these 256 bytes" in done.stderr
    answer = json.loads(meterway("decode", "--json", path).stdout)
    assert (answer["readings"], answer["errors"][0]["reason"]) == ([], "unknown-protocol")
    half = write("half.bin", p1(1)[:50])
    assert meterway("decode", "--protocol", "p1", half).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("decode", "/absent.bin"), "/absent.bin"),
        (("decode", "/"), "'/' is a directory"),
        (("decode", "--protocol", "morse", "/dev/null"), "'morse' is not one of"),
        (("decode", "--timezone", "Mars/Olympus", "/dev/null"), "'Mars/Olympus' is not an IANA zone"),
        (("decode",), "Missing argument"),
        (("demo", "--meters", "0"), "0 is not in the range"),
        (("demo", "--fault", "nose=1", "--duration", "1"), "nose"),
        (("unheard-of",), "No such command 'unheard-of'"),
        (("demo", "--unheard-of"), "No such option"),
    ],
)
def test_wrong_usage_leaves_with_two_and_a_sentence(arguments: tuple[str, ...], said: str) -> None:
    done = meterway(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_prints_one_line_a_check(write: Any, tmp_path: Path) -> None:
    done = meterway("doctor", "--json")
    checks = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == (0 if all(check["ok"] for check in checks) else 1)
    assert {"python", "nats-server", "postgresql"} <= {check["check"] for check in checks}
    assert all(set(check) == {"check", "code", "ok", "detail", "fix"} for check in checks)
    for_people = meterway("doctor").stdout.splitlines()
    assert len([line for line in for_people if line.startswith(("ok ", "FAIL"))]) == len(checks)

    broken = meterway("doctor", "--json", "--config", write("broken.toml", "id = ["))
    assert broken.returncode == 1
    assert [check["ok"] for check in map(json.loads, broken.stdout.splitlines())][-1] is False

    text = CONCENTRATOR.replace("1883", "1").replace("/var/lib/meterway", str(tmp_path))
    nobody = meterway("doctor", "--json", "--config", write("concentrator.toml", text))
    failed = [check for check in map(json.loads, nobody.stdout.splitlines()) if not check["ok"]]
    assert nobody.returncode == 1
    assert failed
    assert all(check["check"] == "broker" and "127.0.0.1:1" in check["detail"] for check in failed)


def test_families_are_listed() -> None:
    listed = [json.loads(line) for line in meterway("drivers", "--json").stdout.splitlines()]
    assert {"p1-generic", "sml-generic"} <= {family["name"] for family in listed}
    [family] = [json.loads(line) for line in meterway("drivers", "p1-generic", "--json").stdout.splitlines()]
    assert family == next(each for each in listed if each["name"] == "p1-generic")
