import asyncio
import logging
import sys
from pathlib import Path

import pytest

from meterway.adapter.config import ProcessSource
from meterway.adapter.links import open_link
from meterway.core.config import convert_config
from meterway.core.errors import SetupError, TransientError
from meterway.meter.family import Line
from support.links import IN_TIME_S, read_exactly, until
from support.platform import alive

SAY_PID = "import os, sys; sys.stdout.write(f'{os.getpid():8d}'); sys.stdout.flush(); "


def python(code: str, *arguments: str, **environment: str) -> ProcessSource:
    return ProcessSource(command=(sys.executable, "-c", code, *arguments), environment=environment)


async def read_to_the_end(source: ProcessSource) -> bytes:
    """Read until the link breaks; the error is raised."""
    data = b""
    async with asyncio.timeout(IN_TIME_S), open_link(source, Line()) as link:
        while True:
            data += await link.read()


async def test_what_a_program_prints_is_read_with_its_arguments_and_environment() -> None:
    code = "import os, sys; print(sys.argv[1], os.environ['REGION'], 'PATH' in os.environ); sys.stdin.read()"
    source = python(code, "$HOME; ls", REGION="Tirol")
    async with open_link(source, Line()) as link:
        assert not link.message_bounded
        assert await read_exactly(link, 21) == b"$HOME; ls Tirol True\n"


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("raise SystemExit(3)", "ended with exit code 3"),
        ("print('done')", "ended with exit code 0"),
        ("import os; os.kill(os.getpid(), 11)", "was ended by SIGSEGV"),
    ],
)
async def test_a_program_that_ends_is_a_transient_error_that_says_how(code: str, how: str) -> None:
    with pytest.raises(TransientError, match=rf"program python\S* {how}; what it said to standard error stands in"):
        await read_to_the_end(python(code))


async def test_a_program_that_closes_its_output_and_runs_on_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meterway.adapter.links.process.STOP_WITHIN_S", 0.2)
    with pytest.raises(TransientError, match="has closed its output and runs on"):
        await read_to_the_end(python("import os, time; os.close(1); time.sleep(600)"))


async def test_a_program_that_is_not_there_is_named_without_its_arguments() -> None:
    with pytest.raises(TransientError, match=r"^program no-such is not there; install it, or correct `command`$"):
        await read_to_the_end(ProcessSource(command=("no-such", "geheim")))


async def test_closing_ends_the_program() -> None:
    async with open_link(python(SAY_PID + "import time; time.sleep(600)"), Line()) as link:
        pid = int(await read_exactly(link, 8))
        assert alive([pid]) == {pid}
    assert not alive([pid])


async def test_a_program_that_ignores_sigterm_is_killed_with_its_children(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("meterway.adapter.links.process.STOP_WITHIN_S", 0.3)
    stubborn = "import signal, subprocess, time; signal.signal(15, signal.SIG_IGN); " + SAY_PID
    child = "import subprocess; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    source = python(stubborn + child, stubborn + "time.sleep(600)")
    async with open_link(source, Line()) as link:
        said = await read_exactly(link, 16)
        pids = [int(said[:8]), int(said[8:])]
    await until(lambda: not alive(pids))
    assert "did not end within 0 s: killing it" in caplog.text


async def test_a_program_that_prints_without_end_is_slowed_down_and_ends_when_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    code = "import os, sys\nwhile True: os.write(1, bytes(65536)); os.write(2, b'.')"
    async with open_link(python(code), Line()) as link:
        await read_exactly(link, 1_000_000)
        assert len(await link.read()) <= 16_384
    assert "killing it" not in caplog.text


async def test_standard_error_is_logged_a_line_at_a_time_and_not_too_much_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "meterway.adapter.links.process")
    code = (
        "import sys\n"
        "print('receiver \\x1b[31mfound', file=sys.stderr)\n"
        "print('x' * 100_000, file=sys.stderr)\n"
        "for number in range(1000): print('noise', number, file=sys.stderr)\n"
        "sys.stderr.close(); print('over')\n"
    )
    with pytest.raises(TransientError, match="exit code 0"):
        await read_to_the_end(python(code))
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == f"program {Path(sys.executable).name}: receiver  [31mfound"
    assert not any("xxx" in line for line in lines)
    assert 2 < len(lines) < 30


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_no_pipe_is_left_open() -> None:
    counts = []
    for _ in range(4):
        async with open_link(python("print('x')"), Line()) as link:
            await read_exactly(link, 1)
        counts.append(open_files())
    await until(lambda: open_files() <= counts[0])


@pytest.mark.parametrize("command", [[], [""], ["a\0b"]])
def test_a_command_that_names_no_program_is_refused(command: list[str]) -> None:
    with pytest.raises(SetupError, match=r"adapter\.toml: .*command"):
        convert_config({"type": "process", "command": command}, ProcessSource, where="adapter.toml")
