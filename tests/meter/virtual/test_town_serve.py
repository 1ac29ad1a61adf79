"""A town on real sockets and ptys: what the ledger says was sent is what Meterway reads, exactly."""

import asyncio
import itertools
import stat
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from meterway.adapter.config import HttpSource, MeterConfig
from meterway.core.errors import SetupError
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.links import TcpAddress
from meterway.meter.virtual.town import serve
from meterway.meter.virtual.town.faults import parse_wishes
from meterway.meter.virtual.town.lines import Places
from meterway.meter.virtual.town.meter import Medium, TownMeter
from meterway.meter.virtual.town.serve import TownRun, serve_town
from meterway.meter.virtual.town.town import Town
from meterway.meter.virtual.town.voices.catalogue import VOICES, Asked, OnSegment
from support.town import Heard, RunningTown, ask, is_asked, lines_of, running_town, states, until

VIENNA = ZoneInfo("Europe/Vienna")
MEDIA_OF: dict[Medium, tuple[str, ...]] = {
    "heat": ("mbus-heat", "heat-landisgyr-uh50"),
    "gas": ("mbus-gas",),
    "water": ("mbus-water",),
}
JUNE = int(datetime(2026, 6, 17, 6, tzinfo=VIENNA).timestamp())


def town(households: int, profile: str = "mixed", seed: str = "t") -> Town:
    return Town(profile, households, seed, VIENNA)


def speaking(running: RunningTown) -> list[Heard]:
    return [Heard(meter) for meter in running.meters if not is_asked(meter)]


def is_polled(heard: Heard) -> bool:
    """Whether it says something only when it is asked to, over HTTP."""
    return isinstance(heard.meter.source, HttpSource)


def lines(running: RunningTown) -> list[list[MeterConfig]]:
    """The meters that are asked, by the line they share."""
    asked = [meter for meter in running.meters if is_asked(meter)]
    return [list(group) for _, group in itertools.groupby(asked, key=lambda meter: meter.source)]


def assert_all_read(heard: Sequence[Heard], ledger: Path) -> int:
    """Nothing is missing, nothing is wrong; returns how many telegrams were compared."""
    count = 0
    for each in heard:
        said = lines_of(ledger, each.meter.id, "whole")
        assert each.reasons == [], each.meter.family
        assert len(each.telegrams) == len(said), each.meter.family
        for line, telegram in zip(said, each.telegrams, strict=True):
            assert states(telegram, line.values), (each.meter.family, line, telegram)
        count += len(said)
    return count


async def test_twenty_households_are_read_exactly_as_the_written_configuration_says(tmp_path: Path) -> None:
    ledger = tmp_path / "truth.jsonl"
    run = TownRun(
        town=town(20), speed=60, start_s=JUNE, wait_s=60, ledger=ledger, places=Places(alias_folder=tmp_path / "ptys")
    )
    async with running_town(run, tmp_path / "config") as running:
        heard = speaking(running)
        tasks = [asyncio.create_task(each.listen()) for each in heard]
        asked = await asyncio.gather(*map(ask, lines(running)))
        answers = [said for line in asked for said in line.items()]
        await until(lambda: all(len(each.telegrams) > (0 if is_polled(each) else 5) for each in heard))
        summary = await running.stop()
        await asyncio.gather(*tasks)
    told = assert_all_read(heard, ledger)
    assert told > 200
    for meter_id, items in answers:
        (line,) = lines_of(ledger, meter_id, "whole")
        (telegram,) = items
        assert isinstance(telegram, Telegram)
        assert states(telegram, line.values), line
    assert summary.telegrams == told + len(answers)
    by_line = {repr(each.meter.source): len(each.data) for each in heard}
    assert summary.bytes_sent >= sum(by_line.values())
    assert (summary.readers_dropped, summary.telegrams_lost) == (0, 0)
    assert {"p1", "sml", "dlms", "iec62056_21", "mbus", "wmbus", "modbus", "json"} <= set(summary.meters)
    assert not any((tmp_path / "ptys").iterdir())


@pytest.mark.parametrize("family", [name for name, voice in VOICES.items() if isinstance(voice, Asked | OnSegment)])
async def test_every_family_that_is_asked_answers_what_the_ledger_says(family: str, tmp_path: Path) -> None:
    ledger = tmp_path / "truth.jsonl"
    one = town(1)
    medium: Medium = next((medium for medium, families in MEDIA_OF.items() if family in families), "electricity")
    meter = TownMeter(one.dwellings[0], medium, family, zone=VIENNA)
    is_alone = isinstance(VOICES[family], Asked)
    one.push, one.receivers = [], []
    one.asked, one.segments = ([meter], []) if is_alone else ([], [[meter]])
    run = TownRun(town=one, start_s=JUNE, ledger=ledger, places=Places(alias_folder=tmp_path / "ptys"))
    async with running_town(run, tmp_path / "config") as running:
        (config,) = running.meters
        if is_asked(config):
            telegrams = [item for item in (await ask([config]))[config.id] if isinstance(item, Telegram)]
        else:
            heard = Heard(config)
            task = asyncio.create_task(heard.listen())
            await until(lambda: bool(heard.telegrams))
            telegrams = heard.telegrams[:1]
            task.cancel()
        await running.stop()
    (line,) = lines_of(ledger, config.id, "whole")
    (telegram,) = telegrams
    assert states(telegram, line.values)
    assert line.truth == meter.truth(int(datetime.fromisoformat(line.instant).timestamp()))


async def test_keys_are_their_owners_alone_and_never_in_an_offer(tmp_path: Path) -> None:
    run = TownRun(town=town(20, "village"), start_s=JUNE, places=Places(alias_folder=tmp_path / "ptys"))
    async with running_town(run, tmp_path / "config") as running:
        sealed = [meter for meter in running.meters if meter.key_file]
        assert len(sealed) >= 2
        for meter in sealed:
            assert meter.key_file is not None
            assert stat.S_IMODE(meter.key_file.stat().st_mode) == 0o600
            assert meter.key_file.read_text().strip() not in str(running.offers)
        for name in ("adapter.toml", "edge.toml", "keys"):
            assert stat.S_IMODE((tmp_path / "config" / name).stat().st_mode) & 0o077 == 0


async def test_every_town_on_ptys_is_read_like_on_tcp(tmp_path: Path) -> None:
    ledger = tmp_path / "truth.jsonl"
    run = TownRun(
        town=town(3, "village"),
        speed=20,
        start_s=JUNE,
        ledger=ledger,
        places=Places(pty=True, alias_folder=tmp_path / "ptys"),
    )
    async with running_town(run, tmp_path / "config") as running:
        heard = speaking(running)
        tasks = [asyncio.create_task(each.listen()) for each in heard]
        for line in lines(running):
            for items in (await ask(line)).values():
                assert len(items) == 1
        await until(lambda: all(len(each.telegrams) > (0 if is_polled(each) else 2) for each in heard))
        await running.stop()
        await asyncio.gather(*tasks)
    for each in heard:
        said = lines_of(ledger, each.meter.id, "whole")
        assert all(states(telegram, line.values) for line, telegram in zip(said, each.telegrams, strict=False))


async def test_time_stands_still_for_a_slow_reader_and_nothing_is_left_out(tmp_path: Path) -> None:
    """An hour is told as fast as it is read; the reader rests in between, and all wait for it."""
    ledger = tmp_path / "truth.jsonl"
    run = TownRun(town=town(4, "village"), speed=1e6, start_s=JUNE, days=1 / 24, wait_s=60, ledger=ledger)
    async with running_town(run, tmp_path / "config") as running:
        heard = speaking(running)
        tasks = [asyncio.create_task(each.listen()) for each in heard]
        summary = await running.ended()
        await asyncio.gather(*tasks)
    assert_all_read(heard, ledger)
    assert summary.readers_dropped == 0
    assert summary.meters_time.startswith("2026-06-17T05:00:00")
    for each in heard:
        if is_polled(each):
            continue
        told = lines_of(ledger, each.meter.id, "whole")
        meter = next(meter for meter in run.town.meters if meter.meter_id == each.meter.id)
        assert len(told) == 3600 // meter.interval_s


async def test_a_reader_that_stalls_is_dropped_and_the_ledger_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "STALL_LIMIT_S", 0.5)
    ledger = tmp_path / "truth.jsonl"
    run = TownRun(
        town=town(2, "campus"), speed=1e6, start_s=JUNE, ledger=ledger, places=Places(alias_folder=tmp_path / "ptys")
    )
    async with running_town(run, tmp_path / "config") as running:
        offer = next(offer for offer in running.offers if not offer.is_asked)
        assert isinstance(offer.source, TcpAddress)
        reader, writer = await asyncio.open_connection(offer.source.host, offer.source.port, limit=1000)
        await until(lambda: bool(lines_of(ledger, offer.meter_id, "left")))
        summary = await running.stop()
        writer.transport.abort()
        del reader
    assert summary.readers_dropped == 1


async def test_the_past_is_told_first_and_then_the_present(tmp_path: Path) -> None:
    ledger = tmp_path / "truth.jsonl"
    run = TownRun(town=town(6, "village"), speed=10, start_s=JUNE, past_s=7200, ledger=ledger)
    async with running_town(run, tmp_path / "config") as running:
        heard = speaking(running)
        tasks = [asyncio.create_task(each.listen()) for each in heard]
        with_clock = [each for each in heard if each.meter.family in ("p1-generic", "dlms-kaifa-austria")]
        assert with_clock
        await until(lambda: all(len(each.telegrams) > 7200 // 300 + 3 for each in with_clock))
        await running.stop()
        await asyncio.gather(*tasks)
    for each in with_clock:
        times = [telegram.time for telegram in each.telegrams if telegram.time]
        assert times == sorted(set(times))
        assert int(times[0].timestamp()) == JUNE - 7200


async def test_what_cannot_be_is_said_in_a_sentence(tmp_path: Path) -> None:
    stop = asyncio.Event()
    with pytest.raises(SetupError, match="there is no town profile 'hamlet'; there are apartment-block, campus"):
        town(1, "hamlet")
    with pytest.raises(SetupError, match="exist from 2020"):
        await serve_town(TownRun(town=town(1), start_s=0), lambda _: None, stop)
    with pytest.raises(SetupError, match="exceed 65535"):
        await serve_town(TownRun(town=town(40), places=Places(tcp_port=65_530)), lambda _: None, stop)
    wishes = parse_wishes(["leak:heat"])
    with pytest.raises(SetupError, match="no meter of heat in this town can have the fault leak"):
        await serve_town(TownRun(town=town(3), faults=wishes), lambda _: None, stop)
    with pytest.raises(SetupError, match="the clock does not change while the town runs"):
        await serve_town(TownRun(town=town(9), start_s=JUNE, faults=parse_wishes(["dst"])), lambda _: None, stop)
    with pytest.raises(SetupError, match="cannot be written"):
        await serve_town(TownRun(town=town(1), ledger=tmp_path / "no" / "folder"), lambda _: None, stop)
