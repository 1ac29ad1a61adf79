"""Child processes, with real ones."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from meterway.core.errors import SetupError
from meterway.process import LIMIT_LINE_BYTES, LIMIT_LOGGED_CHARACTERS, ChildProcess, Command

READY = 'import time; print(\'{"ready": true, "port": 4711}\', flush=True); time.sleep(60)'


def python(code: str, **options: object) -> Command:
    return Command(name="child", arguments=[sys.executable, "-c", textwrap.dedent(code)], **options)  # type: ignore[arg-type]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    return not alive(pid)


async def test_entered_when_it_says_ready_and_ended_when_left() -> None:
    async with ChildProcess(python(READY)) as child:
        pid = child.pid
        assert pid is not None
        assert alive(pid)
        assert child.ready_message == {"ready": True, "port": 4711}
    assert not alive(pid)


async def test_ready_when_the_probe_says_so(tmp_path: Path) -> None:
    async def probe() -> bool:
        return (tmp_path / "there").exists()

    async with ChildProcess(
        python(
            f"import time, pathlib; time.sleep(0.2); pathlib.Path('{tmp_path}/there').touch(); time.sleep(60)",
            probe=probe,
        )
    ) as child:
        assert child.ready
        assert child.ready_message == {}


async def test_end_before_ready_quotes_the_last_lines() -> None:
    with pytest.raises(SetupError, match=r"child ended with status 3 before it was ready; it said: no disk"):
        async with ChildProcess(python("import sys; print('no disk', file=sys.stderr); sys.exit(3)")):
            pass


async def test_not_ready_in_time_is_an_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    code = f"import os, pathlib, time; pathlib.Path('{tmp_path}/pid').write_text(str(os.getpid())); time.sleep(60)"
    with pytest.raises(SetupError, match="child was not ready within 1 s"):
        async with ChildProcess(python(code, ready_within_s=1.0)):
            pass
    assert not alive(int((tmp_path / "pid").read_text()))


async def test_missing_program_is_an_error() -> None:
    with pytest.raises(SetupError, match=r"child ended with status 127 .*no-such-program"):
        async with ChildProcess(Command(name="child", arguments=["/no-such-program"])):
            pass


async def test_killed_process_is_started_again() -> None:
    async with ChildProcess(python(READY)) as child:
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert await gone(first)
        while child.restarts == 0:
            await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            while not child.ready:
                await asyncio.sleep(0.01)
        assert child.pid not in (None, first)


async def test_process_that_fails_again_is_tried_again(tmp_path: Path) -> None:
    """The second start fails, the third works."""
    code = f"""
        import pathlib, sys, time
        count = pathlib.Path('{tmp_path}/count')
        number = int(count.read_text()) if count.exists() else 0
        count.write_text(str(number + 1))
        if number == 1: sys.exit(1)
        print('{{"ready": true}}', flush=True)
        time.sleep(60 if number else 0.1)
    """
    async with ChildProcess(python(code)) as child:
        while child.restarts < 2:
            await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            while not child.ready:
                await asyncio.sleep(0.01)
        assert (tmp_path / "count").read_text() == "3"


async def test_process_that_does_not_answer_is_replaced() -> None:
    answers = True

    async def probe() -> bool:
        return answers

    async with ChildProcess(python("import time; time.sleep(60)", probe=probe, check_every_s=0.02)) as child:
        first = child.pid
        answers = False
        while child.restarts == 0:
            await asyncio.sleep(0.01)
        answers = True
        async with asyncio.timeout(10):
            while not child.ready:
                await asyncio.sleep(0.01)
        assert child.pid != first


async def test_process_that_ignores_the_signal_is_killed() -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + READY
    async with ChildProcess(python(code, stop_within_s=0.3)) as child:
        pid = child.pid
        assert pid is not None
    assert not alive(pid)


async def test_long_lines_without_end_do_not_block_it(caplog: pytest.LogCaptureFixture) -> None:
    code = f"import sys; sys.stderr.write('x' * {3 * LIMIT_LINE_BYTES} + chr(10)); sys.stderr.flush();" + READY
    with caplog.at_level("INFO", "meterway.process"):
        async with ChildProcess(python(code)):
            pass
    logged = [record.getMessage().count("x") for record in caplog.records]
    assert logged
    assert max(logged) <= LIMIT_LOGGED_CHARACTERS


async def test_child_dies_with_a_killed_parent() -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
                import asyncio, sys
                from meterway.process import LIMIT_LINE_BYTES, LIMIT_LOGGED_CHARACTERS, ChildProcess, Command
                async def main():
                    code = "import time; print('{\\"ready\\": true}', flush=True); time.sleep(60)"
                    async with ChildProcess(Command(name="child", arguments=[sys.executable, "-c", code])) as child:
                        print(child.pid, flush=True)
                        await asyncio.sleep(60)
                asyncio.run(main())
            """),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert parent.stdout is not None
        pid = int(await asyncio.to_thread(parent.stdout.readline))
        assert alive(pid)
        parent.kill()
        assert await gone(pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            parent.kill()
        parent.wait(10)
        assert parent.stdout is not None
        parent.stdout.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_runs_as_another_user() -> None:
    code = textwrap.dedent("""
        import json, os, time
        print(json.dumps({"ready": True, "user": os.getuid(), "group": os.getgid()}), flush=True)
        time.sleep(60)
    """)
    command = Command(name="child", arguments=["/usr/bin/env", "python3", "-c", code], user_id=65534, group_id=65534)
    async with ChildProcess(command) as child:
        assert child.ready_message == {"ready": True, "user": 65534, "group": 65534}
