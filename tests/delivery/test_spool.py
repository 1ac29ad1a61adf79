"""The spool on real files."""

import asyncio
import errno
import os
import re
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from meterway.core.config import load_config
from meterway.core.errors import BadDataError, SetupError, TransientError
from meterway.delivery import fresh
from meterway.delivery import spool as spool_module
from meterway.delivery.config import SpoolConfig
from meterway.delivery.record import Record
from meterway.delivery.spool import Spool
from meterway.delivery.tally import TopicState

SMALL = SpoolConfig(segment_bytes=4096, limit_bytes=1 << 20, linger_s=0)
WITHIN_S = 60.0


@pytest.fixture(autouse=True)
def housekeeping_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_KEEP_INTERVAL_S", 0.05)


@asynccontextmanager
async def spool(
    directory: Path,
    config: SpoolConfig = SMALL,
    *,
    count_topics: bool = False,
    clock: Callable[[], float] = lambda: 1_800_000_000.0,
) -> AsyncIterator[Spool]:
    async with Spool(directory, config, count_topics=count_topics, clock=clock) as opened:
        yield opened


async def fill(target: Spool, start: int, end: int, *, topics: int = 1, each: bool = False) -> None:
    for number in range(start, end):
        target.append(f"t{number % topics}", payload(number), mark=b"%d" % number)
        if each:
            await target.commit()
    await target.commit()


async def fill_up(target: Spool, step: int) -> tuple[int, str]:
    """Append until it is refused; return how many were accepted and why no more."""
    for start in range(0, 100_000, step):
        try:
            await fill(target, start, start + step)
        except TransientError as error:
            return start, str(error)
    pytest.fail("the spool never got full")


def payload(number: int) -> bytes:
    return b"%06d" % number + b"." * 94


async def take_all(target: Spool) -> list[Record]:
    taken: list[Record] = []
    while records := await target.take(7, 1000):
        taken += records
    return taken


def numbers(records: list[Record]) -> list[int]:
    return [int(record.payload[:6]) for record in records]


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.segment"))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_is_committed_is_there_in_order_after_a_restart(tmp_path: Path) -> None:
    async with spool(tmp_path / "s") as first:
        await fill(first, 0, 200)
    async with spool(tmp_path / "s") as second:
        assert second.pending == 200
        await fill(second, 200, 210)
        assert numbers(await take_all(second)) == list(range(210))
        assert await second.take(7, 1000) == []


async def test_fresh_messages_and_a_backlog_come_once_each_in_order(tmp_path: Path) -> None:
    async with spool(tmp_path) as target:
        await fill(target, 0, 10)
        taken = await target.take(4, 10_000)
        await fill(target, 10, 60)
        taken += await take_all(target)
        await fill(target, 60, 61)
        taken += await take_all(target)
        assert numbers(taken) == list(range(61))


async def test_a_backlog_longer_than_memory_is_read_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh, "LIMIT_FRESH_BYTES", 2000)
    async with spool(tmp_path) as target:
        taken: list[Record] = []
        for start in range(0, 600, 30):
            await fill(target, start, start + 30)
            taken += await target.take(11, 100_000)
        taken += await take_all(target)
        await fill(target, 600, 610)
        taken += await take_all(target)
        assert numbers(taken) == list(range(610))


async def test_what_overtakes_a_backlog_comes_once_and_is_not_sent_again_after_a_restart(tmp_path: Path) -> None:
    async with spool(tmp_path) as first:
        await fill(first, 0, 100)
    async with spool(tmp_path) as second:
        taken = await second.take(10, 100_000)
        await fill(second, 100, 120)
        newest = second.take_newest(15, 100_000, lambda _topic: True)
        assert numbers(newest) == list(range(100, 115))
        second.done(record.number for record in newest)
        taken += await take_all(second)
        assert numbers(taken) == [*range(100), *range(115, 120)]
        second.done(record.number for record in taken[:50])
    async with spool(tmp_path) as third:
        assert numbers(await take_all(third)) == [*range(50, 100), *range(115, 120)]


async def test_what_is_done_does_not_come_back_after_a_restart(tmp_path: Path) -> None:
    async with spool(tmp_path) as first:
        await fill(first, 0, 100)
        taken = await take_all(first)
        first.done(record.number for record in taken[:50])
        first.done(record.number for record in taken[60:70])
        assert first.pending == 40
    async with spool(tmp_path) as second:
        assert second.pending == 40
        assert numbers(await take_all(second)) == [*range(50, 60), *range(70, 100)]


async def test_done_twice_counts_once(tmp_path: Path) -> None:
    async with spool(tmp_path) as target:
        await fill(target, 0, 3)
        target.done([0, 0])
        target.done([0])
        assert (target.pending, target.stats().done) == (2, 1)


async def test_losing_the_record_of_what_is_done_only_means_sending_again(tmp_path: Path) -> None:
    async with spool(tmp_path) as first:
        await fill(first, 0, 50)
        first.done(record.number for record in await take_all(first))
    (tmp_path / "done").write_bytes(b"garbage")
    async with spool(tmp_path) as second:
        assert numbers(await take_all(second)) == list(range(50))


async def test_delivered_segments_are_unlinked_also_behind_one_that_is_stuck(tmp_path: Path) -> None:
    async with spool(tmp_path) as target:
        await fill(target, 0, 200, each=True)
        before = segments(tmp_path)
        assert len(before) > 4
        taken = await take_all(target)
        target.done(record.number for record in taken[1:])
        await until(lambda: len(segments(tmp_path)) == 2)
        assert segments(tmp_path) == [before[0], before[-1]]
        await until(lambda: target.stats().size_bytes == sum(path.stat().st_size for path in segments(tmp_path)))
    async with spool(tmp_path) as again:
        assert numbers(await take_all(again)) == [0]
        assert again.stats().lost == 0
        again.done([taken[0].number])
        await until(lambda: segments(tmp_path) == [before[-1]])
        assert again.pending == 0


async def test_topic_counts_and_marks_survive_restarts_and_the_deletion_of_their_messages(tmp_path: Path) -> None:
    for start in range(0, 300, 100):
        async with spool(tmp_path, count_topics=True) as target:
            await fill(target, start, start + 100, topics=3)
            target.done(record.number for record in await take_all(target))
            await until(lambda: len(segments(tmp_path)) == 1)
    async with spool(tmp_path, count_topics=True) as target:
        assert [target.topic_state(f"t{n}") for n in range(4)] == [
            TopicState(100, b"297"),
            TopicState(100, b"298"),
            TopicState(100, b"299"),
            TopicState(0, b""),
        ]


async def test_a_new_segment_carries_the_counts_of_topics_that_are_silent_since(tmp_path: Path) -> None:
    async with spool(tmp_path, count_topics=True) as target:
        target.append("silent", b"once", b"mark")
        await fill(target, 0, 100, each=True)
        target.done(record.number for record in await take_all(target))
        await until(lambda: len(segments(tmp_path)) == 1)
    async with spool(tmp_path, count_topics=True) as target:
        assert target.topic_state("silent") == TopicState(1, b"mark")


async def test_a_torn_tail_at_every_byte_is_cut_off_and_costs_only_the_unacknowledged(tmp_path: Path) -> None:
    async with spool(tmp_path, count_topics=True) as target:
        await fill(target, 0, 5)
        acknowledged = segments(tmp_path)[0].stat().st_size
        await fill(target, 5, 6)
    whole = segments(tmp_path)[0].read_bytes()
    for cut in range(acknowledged, len(whole)):
        segments(tmp_path)[0].write_bytes(whole[:cut])
        async with spool(tmp_path, count_topics=True) as target:
            assert target.stats().torn_bytes == cut - acknowledged
            assert target.topic_state("t0") == TopicState(5, b"4")
            assert numbers(await take_all(target)) == list(range(5)), cut
        assert segments(tmp_path)[0].stat().st_size == acknowledged
    async with spool(tmp_path, count_topics=True) as target:
        await fill(target, 6, 7)
        assert target.topic_state("t0") == TopicState(6, b"6")
        assert numbers(await take_all(target)) == [*range(5), 6]


async def test_a_corrupted_byte_costs_one_message_which_is_counted_and_kept_aside(tmp_path: Path) -> None:
    async with spool(tmp_path, count_topics=True) as target:
        await fill(target, 0, 30)
    path = segments(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[data.index(payload(13))] ^= 1
    path.write_bytes(data)
    for _ in range(2):
        async with spool(tmp_path, count_topics=True) as target:
            assert numbers(await take_all(target)) == [number for number in range(30) if number != 13]
            assert target.topic_state("t0") == TopicState(30, b"29")
            assert target.pending == 29
        (kept,) = tmp_path.glob("*.corrupt")
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert payload(13)[1:] in kept.read_bytes()


async def test_a_corrupted_byte_in_an_old_segment_is_found_when_it_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with spool(tmp_path) as target:
        await fill(target, 0, 200, each=True)
    path = segments(tmp_path)[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    data[-1] ^= 1
    path.write_bytes(data)
    async with spool(tmp_path) as target:
        assert target.pending == 200
        taken = numbers(await take_all(target))
        assert len(taken) == 198
        assert taken == sorted(taken)
        assert (target.stats().lost, target.pending) == (2, 198)
    assert len(list(tmp_path.glob("*.corrupt"))) == 2
    assert "messages in" in caplog.text
    assert "are unreadable; the bytes are in *.corrupt files" in caplog.text


async def test_a_corrupted_last_message_leaves_a_gap_rather_than_a_repeated_number(tmp_path: Path) -> None:
    async with spool(tmp_path, count_topics=True) as target:
        await fill(target, 0, 10)
        target.done(record.number for record in await take_all(target))
    path = segments(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    async with spool(tmp_path, count_topics=True) as target:
        assert target.topic_state("t0").appended == 10
        await fill(target, 10, 11)
        assert numbers(await take_all(target)) == [10]


async def test_a_segment_that_is_taken_away_is_counted_as_lost(tmp_path: Path) -> None:
    async with spool(tmp_path) as target:
        await fill(target, 0, 200, each=True)
    gone = segments(tmp_path)[2]
    missing = gone.read_bytes().count(b"." * 94)
    gone.unlink()
    async with spool(tmp_path) as target:
        assert len(await take_all(target)) == 200 - missing
        assert (target.stats().lost, target.pending) == (missing, 200 - missing)


async def test_one_damaged_copy_of_the_counts_does_no_harm_and_two_stop_with_a_reason(tmp_path: Path) -> None:
    async with spool(tmp_path, count_topics=True) as target:
        await fill(target, 0, 100, topics=4, each=True)
    path = segments(tmp_path)[-1]
    data = bytearray(path.read_bytes())
    first = data.index(b"t3")
    second = data.index(b"t3", first + 1)
    data[first] ^= 1
    path.write_bytes(data)
    async with spool(tmp_path, count_topics=True) as target:
        assert [target.topic_state(f"t{n}").appended for n in range(4)] == [25] * 4
    data[second] ^= 1
    path.write_bytes(data)
    with pytest.raises(SetupError, match="the sequence numbers of the meters are unreadable; move the directory"):
        async with spool(tmp_path, count_topics=True):
            pass


async def test_a_spool_that_counts_is_not_opened_as_one_that_does_not(tmp_path: Path) -> None:
    async with spool(tmp_path, count_topics=True):
        pass
    with pytest.raises(SetupError, match="is a spool that counts topics; an adapter and a concentrator need a direct"):
        async with spool(tmp_path):
            pass


async def test_two_processes_cannot_have_one_directory(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom meterway.delivery.spool import Spool\n"
        "async def main():\n  async with Spool(Path(sys.argv[1])):\n    print('open', flush=True)\n    input()\n"
        "asyncio.run(main())"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(SetupError, match="is in use by another process; give each adapter and concentrator"):
            async with spool(tmp_path):
                pass
    finally:
        other.kill()
        other.communicate()
    async with spool(tmp_path):
        pass


async def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match=r"the spool in .*/file/s cannot be opened: Not a directory; it needs a dir"):
        async with spool(tmp_path / "file" / "s"):
            pass


def test_limits_that_would_block_for_ever_are_refused() -> None:
    with pytest.raises(SetupError, match=r"adapter.toml.*limit_bytes = 10000 is less than twice segment_bytes = 8192;"):
        load_config("segment_bytes = 8192\nlimit_bytes = 10_000", SpoolConfig, where="adapter.toml")


async def test_a_full_spool_refuses_and_goes_on_when_messages_are_delivered(tmp_path: Path) -> None:
    async with spool(tmp_path, SpoolConfig(segment_bytes=4096, limit_bytes=16_384, linger_s=0)) as target:
        accepted, reason = await fill_up(target, 1)
        assert re.match(r"spool full: \d+ messages wait in .*, limit_bytes = 16384; it goes on by itself", reason)
        assert target.stats().size_bytes <= 16_384
        assert target.stats().refused == 1
        taken = await take_all(target)
        assert numbers(taken) == list(range(accepted))
        target.done(record.number for record in taken)
        await until(lambda: target.stats().size_bytes < 8192)
        await fill(target, accepted, accepted + 20)
        assert numbers(await take_all(target)) == list(range(accepted, accepted + 20))


async def test_a_spool_that_is_full_of_delivered_messages_takes_the_next(tmp_path: Path) -> None:
    """The newest segment, which may be longer than ``segment_bytes``, is deleted only after the next has begun."""
    async with spool(tmp_path, SpoolConfig(segment_bytes=4096, limit_bytes=8192, linger_s=0)) as target:
        for number in range(3):
            target.append("t", bytes(7000))
            await target.commit()
            with pytest.raises(TransientError, match="spool full: 1 messages wait"):
                target.append("t", bytes(7000))
            taken = await take_all(target)
            assert [record.number for record in taken] == [number]
            target.done([number])


async def test_messages_that_no_record_can_hold_are_refused(tmp_path: Path) -> None:
    async with spool(tmp_path, SpoolConfig()) as target:
        for topic, body, mark in (("t", bytes((1 << 20) + 1), b""), ("t" * 1025, b"", b""), ("t", b"", bytes(33))):
            with pytest.raises(BadDataError, match="is too long: a spool takes 1048576, 32 and a topic of 1024"):
                target.append(topic, body, mark)
        target.append("t", bytes(1 << 20))
        await target.commit()
        assert [len(record.payload) for record in await target.take(5, 100)] == [1 << 20]


async def test_many_callers_share_one_flush(tmp_path: Path) -> None:
    async with spool(tmp_path, SpoolConfig()) as target:

        async def one(number: int) -> None:
            await target.commit(target.append("t", payload(number)))

        async with asyncio.TaskGroup() as tasks:
            for number in range(500):
                tasks.create_task(one(number))
        assert target.stats().groups <= 5
        assert target.pending == 500


async def test_the_age_of_the_oldest_message_raises_an_alarm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now_s = 1_800_000_000.0
    async with spool(tmp_path, SpoolConfig(alarm_age_s=3600), clock=lambda: now_s) as target:
        assert target.stats().oldest_age_s == 0
        await fill(target, 0, 1)
        now_s += 3000
        await fill(target, 1, 2)
        assert (target.stats().oldest_age_s, target.stats().overdue) == (3000, False)
        now_s += 1000
        await until(lambda: "have waited for 4000 s" in caplog.text)
        assert target.stats().overdue
        target.done([0])
        assert (target.stats().oldest_age_s, target.stats().overdue) == (1000, False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(directory)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small disk needs the right to mount a tmpfs (root)")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


async def test_a_full_disk_refuses_and_goes_on_by_itself(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = SpoolConfig(segment_bytes=32_768, limit_bytes=1 << 20, linger_s=0)
    async with spool(small_disk / "s", config, count_topics=True) as target:
        accepted, reason = await fill_up(target, 10)
        assert reason.startswith("spool full: no space left on the disk of")
        counted = target.topic_state("t0").appended
        assert accepted <= counted < accepted + 10
        for _ in range(5):
            with pytest.raises(TransientError, match="it goes on by itself when messages are delivered or space is"):
                await fill(target, counted, counted + 100)
        assert target.topic_state("t0").appended == counted
        assert "can be written again" not in caplog.text

        taken = await take_all(target)
        assert numbers(taken) == list(range(counted))
        target.done(record.number for record in taken[: counted // 2])
        await until(lambda: target.stats().size_bytes < 160_000)
        await fill(target, counted, counted + 100)
        assert target.topic_state("t0") == TopicState(counted + 100, b"%d" % (counted + 99))
        assert "can be written again" in caplog.text
    async with spool(small_disk / "s", config, count_topics=True) as target:
        assert numbers(await take_all(target)) == list(range(counted // 2, counted + 100))
        assert target.stats().lost == 0


async def test_a_disk_that_fails_a_flush_is_reported_and_the_next_message_goes_to_a_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with spool(tmp_path, count_topics=True) as target:
        await fill(target, 0, 5)

        def broken(_file: int) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "fdatasync", broken)
        position = target.append("t0", payload(99))
        with pytest.raises(TransientError, match="cannot be written: Input/output error"):
            await target.commit(position)
        monkeypatch.undo()
        assert (target.pending, target.topic_state("t0").appended) == (5, 5)
        await fill(target, 5, 8)
        with pytest.raises(TransientError):
            await target.commit(position)
        assert len(segments(tmp_path)) == 2
        assert numbers(await take_all(target)) == list(range(8))
    async with spool(tmp_path, count_topics=True) as target:
        assert numbers(await take_all(target)) == list(range(8))
        assert (target.stats().lost, target.topic_state("t0").appended) == (0, 8)


async def test_a_block_that_the_disk_cannot_read_costs_only_its_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with spool(tmp_path, SpoolConfig()) as target:
        await fill(target, 0, 300)
    real = os.pread

    def bad_sector(file: int, size: int, offset: int) -> bytes:
        if offset <= 9000 < offset + size:
            raise OSError(5, "Input/output error")
        return real(file, size, offset)

    monkeypatch.setattr(os, "pread", bad_sector)
    async with spool(tmp_path, SpoolConfig()) as target:
        taken = numbers(await take_all(target))
        assert target.stats().lost == 300 - len(taken)
        assert 25 <= target.stats().lost <= 35


async def test_leaving_writes_what_was_appended(tmp_path: Path) -> None:
    async with spool(tmp_path) as target:
        target.append("t", payload(0))
    async with spool(tmp_path) as target:
        assert numbers(await take_all(target)) == [0]


async def test_a_defect_in_the_writer_is_told_to_those_who_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with spool(tmp_path) as target:
        monkeypatch.setattr(target._log, "write", lambda *_: 1 / 0)
        with pytest.raises(TransientError, match=r"has stopped: ZeroDivisionError"):
            await fill(target, 0, 1)
        with pytest.raises(TransientError, match=r"has stopped: ZeroDivisionError"):
            target.append("t", b"")
    assert "has stopped" in caplog.text


async def test_nothing_in_the_directory_is_for_others(tmp_path: Path) -> None:
    async with spool(tmp_path / "s") as target:
        await fill(target, 0, 1)
    assert (tmp_path / "s").stat().st_mode & 0o077 == 0


async def test_a_disk_that_is_read_only_for_a_while_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was begun cannot even be removed then."""
    tried = asyncio.Event()
    loop = asyncio.get_running_loop()

    def refuse(*_: object, **__: object) -> None:
        loop.call_soon_threadsafe(tried.set)
        raise OSError(errno.EROFS, "Read-only file system")

    async with spool(tmp_path) as target:
        await target.commit(target.append("t", b"before"))
        with monkeypatch.context() as disk:
            for call in ("rename", "unlink", "pwrite", "ftruncate"):
                disk.setattr(os, call, refuse)
            target.done([0])
            await asyncio.wait_for(tried.wait(), 20)
            with pytest.raises(TransientError, match="Read-only file system"):
                await target.commit(target.append("t", b"meanwhile"))
        await target.commit(target.append("t", b"after"))
        assert [record.payload for record in await target.take(10, 1000)][-1] == b"after"
