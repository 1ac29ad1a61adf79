"""The command, as the demo and people use it: a process of its own."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from meterway.meter.sml import SmlDecoder
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.ledger import read_ledger

if TYPE_CHECKING:
    from meterway.meter.codec import CodecError

DEADLINE_S = 90
COMMAND = [str(Path(sys.executable).with_name("meterway")), "meter", "virtual"]


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ready(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    assert process.stdout
    line = json.loads(process.stdout.readline())
    assert line["ready"] is True
    meters: list[dict[str, Any]] = line["meters"]
    return meters


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_a_whole_telegram(tmp_path: Path, number: signal.Signals) -> None:
    ledger = tmp_path / "ledger.jsonl"
    arguments = ("--kind", "sml", "--speed", "500", "--seed", "stop", "--json", "--ledger", str(ledger))
    with running(*arguments) as process:
        (meter,) = ready(process)
        with socket.create_connection((meter["source"]["host"], meter["source"]["port"]), DEADLINE_S) as reader:
            data = reader.recv(700)
            while len(data) < 20_000:
                data += reader.recv(700)
            process.send_signal(number)
            while more := reader.recv(700):
                data += more
        out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (0, "")
    decoder = SmlDecoder()
    items: list[Telegram | CodecError] = decoder.feed(data, 0.0)
    assert all(isinstance(item, Telegram) for item in items)
    assert decoder.idle(1.0) == []
    assert decoder.skipped_bytes == 0
    whole = [line for line in read_ledger(ledger) if line.state == "whole"]
    assert len(whole) == len(items)
    counters = json.loads(out)
    assert counters["telegrams_whole"] == len(items)
    assert counters["bytes_sent"] == len(data)


def test_people_get_a_line_for_each_meter() -> None:
    with running("--kind", "p1", "--kind", "sml", "--count", "3", "--duration", "0.1") as process:
        out, err = process.communicate(timeout=DEADLINE_S)
    assert err == ""
    *meters, counters = out.splitlines()
    assert [line.split()[1] for line in meters] == ["p1", "sml", "p1"]
    assert all(line.startswith("tcp://127.0.0.1:") for line in meters)
    assert json.loads(counters)["telegrams_whole"] == 0


def test_the_ready_line_tells_all_that_an_adapter_needs(tmp_path: Path) -> None:
    with running("--pty", "--alias-folder", str(tmp_path), "--seed", "1", "--duration", "0.1", "--json") as process:
        (meter,) = ready(process)
        assert process.wait(DEADLINE_S) == 0
    assert meter == {
        "meter_id": "295748dd-25c7-5ce9-8971-ffd2fc5be68d",
        "kind": "p1",
        "address": str(tmp_path / meter["meter_id"]),
        "source": {"type": "serial", "port": str(tmp_path / meter["meter_id"])},
        "interval_s": 1.0,
        "channels": [
            {"channel": 1, "meter_id": "ca07b9f2-2f14-52ff-89ca-0c373e134f16", "medium": "gas"},
            {"channel": 2, "meter_id": "3bcbb051-ff45-56b7-9e5c-b3ade844c4e6", "medium": "water"},
        ],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pty", "--tcp", "0"), "--pty and --tcp exclude each other"),
        (("--alias-folder", "x"), "--alias-folder needs --pty"),
        (("--zone", "Europe/Wien"), "time zone 'Europe/Wien' is not an IANA zone"),
        (("--start", "yesterday"), "--start yesterday: not a time such as"),
        (("--start", "2019-01-01T00:00:00Z"), "virtual meters exist from 2020-01-01"),
        (("--fault", "nose=1"), "fault 'nose' is unknown; there are noise, garble"),
        (("--speed", "0"), "--speed"),
    ],
)
def test_wrong_options_are_explained_in_a_sentence(arguments: tuple[str, ...], message: str) -> None:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_help_teaches() -> None:
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True, timeout=DEADLINE_S)
    for taught in ("--kind sml --pty", "--speed 60", "--fault garble=0.01", "silence", "--ledger"):
        assert taught in done.stdout
