"""A look at a spool that another process owns."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from meterway.core.errors import SetupError
from meterway.delivery import spool as spool_module
from meterway.delivery.config import SpoolConfig
from meterway.delivery.look import look
from meterway.delivery.spool import Spool

SMALL = SpoolConfig(segment_bytes=4096, limit_bytes=1 << 20, linger_s=0)
FIRST_S = 1_800_000_000


@pytest.fixture(autouse=True)
def housekeeping_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_KEEP_INTERVAL_S", 0.02)


def at(second: int) -> datetime:
    return datetime.fromtimestamp(FIRST_S + second, UTC)


def test_where_nothing_was_ever_stored(tmp_path: Path) -> None:
    assert look(tmp_path / "absent") is None
    assert look(tmp_path) is None


async def test_it_sees_what_the_owner_says_while_the_owner_works(tmp_path: Path) -> None:
    seconds = iter(range(100_000))
    async with Spool(tmp_path, SMALL, clock=lambda: FIRST_S + next(seconds) // 40) as spool:
        for number in range(300):
            spool.append("t", b"%0100d" % number)
            await spool.commit()
        before = look(tmp_path)
        assert before is not None
        assert (before.messages, before.size_bytes) == (300, spool.stats().size_bytes)
        assert before.oldest == at(0)
        spool.done(range(299))
    after = look(tmp_path)
    assert after is not None
    assert after.messages == 1
    assert after.oldest is not None
    assert after.oldest > at(5)


async def test_when_all_is_delivered_nothing_waits(tmp_path: Path) -> None:
    async with Spool(tmp_path, SMALL) as spool:
        positions = [spool.append("t", b"x") for _ in range(10)]
        await spool.commit()
        spool.done(positions)
    seen = look(tmp_path)
    assert seen is not None
    assert (seen.messages, seen.oldest) == (0, None)


async def test_a_write_that_is_under_way_does_not_count(tmp_path: Path) -> None:
    async with Spool(tmp_path, SMALL) as spool:
        spool.append("t", b"x")
        await spool.commit()
    [segment] = tmp_path.glob("*.segment")
    segment.write_bytes(segment.read_bytes() + b"\xa5MW1half of a record")
    seen = look(tmp_path)
    assert seen is not None
    assert seen.messages == 1


def test_what_may_not_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / f"{0:020d}-00000000.segment").mkdir()
    with pytest.raises(SetupError, match=f"the spool in {tmp_path} cannot be read"):
        look(tmp_path)
