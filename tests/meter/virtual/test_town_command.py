"""``meterway meter town``, as people and programs use it: a process of its own."""

import json
import signal
import socket
from pathlib import Path

from click.testing import CliRunner

from meterway.cli import root
from meterway.meter.virtual.ledger import read_ledger
from meterway.meter.virtual.town.faults import FaultKind
from meterway.meter.virtual.town.shape import town_names
from support.platform import Process, running

MOST_MB = 160
"""Of a town of 200 households, Python itself included; 60 were measured."""


def resident_mb(process: Process) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def test_two_hundred_households_fit_in_one_small_process(tmp_path: Path) -> None:
    with running(tmp_path, "town", "meter", "town", "--households", "200", "--profile", "village", "--json") as town:
        offers = town.wait_ready()["meters"]
        assert len({offer["household"] for offer in offers}) == 200
        assert {offer["medium"] for offer in offers} == {"electricity", "gas", "water", "heat"}
        with socket.create_connection((offers[0]["source"]["host"], offers[0]["source"]["port"]), 30) as reader:
            assert reader.recv(100)
        assert resident_mb(town) < MOST_MB
        town.signal(signal.SIGINT)
        assert town.wait() == 0
    assert (town.err, "Traceback" in town.out) == ("", False)
    summary = json.loads(town.out.splitlines()[-1])
    assert summary["households"] == 200
    assert sum(summary["meters"].values()) >= 400


def test_a_town_ends_by_itself_and_leaves_its_configuration_and_ledger(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    ledger = folder / "truth.jsonl"
    arguments = ("--days", "0.5", "--speed", "100000", "--start", "2026-03-28T12:00", "--fault", "leak", "--seed", "s")
    with running(
        tmp_path, "town", "meter", "town", "--config-dir", str(folder), "--ledger", str(ledger), *arguments
    ) as town:
        assert town.wait() == 0, town.err
    assert town.err.startswith(f"meterway: to read this town: meterway adapter --config {folder}/adapter.toml")
    *lines, last = town.out.splitlines()
    assert len(lines) > 20
    summary = json.loads(last)
    assert (summary["meters_time"], summary["faults"]) == ("2026-03-28T23:00:00+00:00", {"leak": 2})
    assert summary["unheard"] > 0
    assert [line.fault for line in read_ledger(ledger)] == ["leak", "leak"]
    for name in ("adapter.toml", "edge.toml"):
        checked = CliRunner().invoke(root, ["config", "check", str(folder / name)])
        assert checked.exit_code == 0, checked.output


def test_without_a_start_the_fault_dst_begins_on_the_eve_of_the_next_change(tmp_path: Path) -> None:
    arguments = ("--households", "2", "--profile", "village", "--fault", "dst=1", "--days", "0.1", "--speed", "100000")
    ledger = tmp_path / "truth.jsonl"
    with running(tmp_path, "town", "meter", "town", "--ledger", str(ledger), *arguments) as town:
        assert town.wait() == 0, town.err
    assert {line.fault for line in read_ledger(ledger)} == {"dst"}
    assert {line.instant[11:] for line in read_ledger(ledger)} == {"01:00:00+00:00"}


def test_the_help_names_every_profile_and_fault() -> None:
    shown = CliRunner().invoke(root, ["meter", "town", "--help"], terminal_width=200).output
    assert [name for name in (*town_names(), *FaultKind) if name not in shown] == []


def test_a_wrong_wish_is_a_sentence_and_no_traceback(tmp_path: Path) -> None:
    for number, (arguments, sentence) in enumerate(
        [
            (("--profile", "hamlet"), "there is no town profile 'hamlet'"),
            (("--fault", "fire"), "fault 'fire' is unknown"),
            (("--start", "soon"), "--start soon: not a time"),
        ]
    ):
        with running(tmp_path, f"town-{number}", "meter", "town", *arguments) as town:
            assert town.wait() == 2
        assert sentence in town.err
        assert "Traceback" not in town.err
