"""Faults of a town: each can be seen in the bytes that a reader gets, and stands in the ledger."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from meterway.core.errors import SetupError
from meterway.meter.codec import CodecError
from meterway.meter.driver import MeterSetup
from meterway.meter.master import Send
from meterway.meter.mbus import MbusDecoder
from meterway.meter.mbus_frames import SND_NKE, short_frame
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.counters import Counters
from meterway.meter.virtual.ledger import Ledger, read_ledger
from meterway.meter.virtual.town.answer import MeterConversation, SegmentConversation
from meterway.meter.virtual.town.faults import (
    EXPECTED,
    Fault,
    FaultKind,
    FaultWish,
    next_clock_change_s,
    parse_wishes,
    plan_faults,
)
from meterway.meter.virtual.town.lines import Places
from meterway.meter.virtual.town.meter import TownMeter
from meterway.meter.virtual.town.record import Books
from meterway.meter.virtual.town.serve import TownRun
from meterway.meter.virtual.town.shown import ShownElectricity
from meterway.meter.virtual.town.town import Town
from meterway.meter.virtual.town.voices.catalogue import VOICES, Push
from meterway.plugins import find_family, make_decoder
from support.town import Heard, is_asked, lines_of, numbers, running_town, states

VIENNA = ZoneInfo("Europe/Vienna")
JUNE = int(datetime(2026, 6, 17, 6, tzinfo=VIENNA).timestamp())
HOUR_S = 3600
PUSHING = sorted(family for family, voice in VOICES.items() if isinstance(voice, Push) and not voice.radio)


def faulty(family: str, *faults: Fault, seed: str = "f") -> TownMeter:
    """Return a meter of a family that sends by itself, with faults."""
    dwelling = Town("village", 1, seed, VIENNA).dwellings[0]
    meter = TownMeter(dwelling, "electricity", family, zone=VIENNA)
    meter.faults = faults
    return meter


def telegrams(meter: TownMeter, instants: Sequence[int]) -> list[Telegram | CodecError]:
    """Return what a reader with the meter's right key makes of what it sends at these instants."""
    assert isinstance(meter.voice, Push)
    decoder = make_decoder(MeterSetup(family=find_family(meter.family), zone=VIENNA, keys=meter.keys))
    found: list[Telegram | CodecError] = []
    for instant_s in instants:
        shown = meter.shown(instant_s)
        assert isinstance(shown, ShownElectricity)
        found += decoder.feed(meter.voice.say(shown).data, float(instant_s))
        found += decoder.idle(float(instant_s))
    return found


def energies(items: Sequence[Telegram | CodecError]) -> list[Decimal]:
    """Return the energy taken in all, in the meter's unit, of each telegram."""
    found = []
    for item in items:
        assert isinstance(item, Telegram), item
        said = {code: value for code, value in numbers(item).items() if code[3:].startswith(":1.8.") or ":1.8." in code}
        found.append(sum(said.values(), Decimal(0)))
    return found


@pytest.mark.parametrize("family", PUSHING)
def test_a_swapped_meter_has_another_number_and_begins_anew(family: str) -> None:
    meter = faulty(family, Fault(FaultKind.SWAP, JUNE))
    before, after, later = energies(telegrams(meter, [JUNE - 60, JUNE + 60, JUNE + HOUR_S]))
    assert after < before / 1000
    assert after <= later
    assert meter.serial(JUNE - 1) != meter.serial(JUNE)
    truth = [meter.truth(instant_s)["import_ws"] for instant_s in (JUNE - 60, JUNE + 60)]
    assert truth[0] < truth[1] < truth[0] + 10_000_000


@pytest.mark.parametrize("family", PUSHING)
def test_a_register_rolls_over_at_a_million_kilowatt_hours(family: str) -> None:
    meter = faulty(family, Fault(FaultKind.ROLLOVER, JUNE))
    before, after = (meter.shown(instant_s) for instant_s in (JUNE - HOUR_S, JUNE + HOUR_S))
    assert isinstance(before, ShownElectricity)
    assert isinstance(after, ShownElectricity)
    assert before.import_ws > 999_000 * 3_600_000 > 1000 * after.import_ws
    true_ws = meter.truth(JUNE + HOUR_S)["import_ws"] - meter.truth(JUNE - HOUR_S)["import_ws"]
    assert (after.import_ws - before.import_ws) % (10**6 * 3_600_000) == true_ws
    decoded = energies(telegrams(meter, [JUNE - HOUR_S, JUNE + HOUR_S]))
    assert decoded[0] > 50 * decoded[1]


@pytest.mark.parametrize("family", PUSHING)
def test_a_zero_reading_is_zero_for_a_moment(family: str) -> None:
    meter = faulty(family, Fault(FaultKind.ZERO, JUNE, JUNE + 60))
    before, during, after = energies(telegrams(meter, [JUNE - 30, JUNE + 30, JUNE + 90]))
    assert during == 0 < before <= after


@pytest.mark.parametrize("family", [family for family in PUSHING if VOICES[family].has_clock])
def test_a_drifting_clock_gains_a_second_a_minute(family: str) -> None:
    meter = faulty(family, Fault(FaultKind.DRIFT, JUNE))
    instants = [JUNE - 60, JUNE + 600, JUNE + HOUR_S]
    gained_s = []
    for instant_s, item in zip(instants, telegrams(meter, instants), strict=True):
        assert isinstance(item, Telegram)
        assert item.time is not None
        gained_s.append(int(item.time.timestamp()) - instant_s)
    assert gained_s == [0, 10, 60]


@pytest.mark.parametrize(
    "family",
    [family for family, voice in VOICES.items() if family in PUSHING and isinstance(voice, Push) and voice.sealed],
)
def test_a_wrong_key_decrypts_nothing(family: str) -> None:
    (item,) = telegrams(faulty(family, Fault(FaultKind.WRONG_KEY, JUNE)), [JUNE + 10])
    assert isinstance(item, CodecError)
    assert item.reason == "bad-key"
    (good,) = telegrams(faulty(family), [JUNE + 10])
    assert isinstance(good, Telegram)


@pytest.mark.parametrize("family", [family for family in PUSHING if VOICES[family].has_clock])
def test_the_hour_that_comes_twice_is_told_apart(family: str) -> None:
    change_s = next_clock_change_s(int(datetime(2026, 10, 20, tzinfo=VIENNA).timestamp()), VIENNA)
    assert change_s == int(datetime.fromisoformat("2026-10-25T02:00:00+01:00").timestamp())
    instants = [change_s - 1800, change_s + 1800]
    items = telegrams(faulty(family), instants)
    times = [item.time for item in items if isinstance(item, Telegram) and item.time]
    assert [int(time.timestamp()) for time in times] == instants
    assert times[0].replace(tzinfo=None, fold=0) == times[1].replace(tzinfo=None, fold=0)


def test_a_leak_runs_day_and_night() -> None:
    home = Town("mixed", 1, "leak", VIENNA).dwellings[0]
    meter = TownMeter(home, "water", "mbus-water", zone=VIENNA)
    night_s = [JUNE - 3 * HOUR_S + minute * 60 for minute in range(0, 120, 5)]

    def flows() -> list[int]:
        return [meter.volume_ml(at_s + 300) - meter.volume_ml(at_s) for at_s in night_s]

    assert min(flows()) == 0
    meter.faults = (Fault(FaultKind.LEAK, JUNE - 12 * HOUR_S, JUNE + 12 * HOUR_S),)
    assert min(flows()) == 11 * 300
    after_s = JUNE + 13 * HOUR_S
    assert meter.volume_ml(after_s) == home.water_ml(after_s) + 11 * 24 * HOUR_S


async def test_every_fault_stands_in_the_ledger_with_what_a_good_system_says(tmp_path: Path) -> None:
    ledger = tmp_path / "truth.jsonl"
    texts = [f"{kind}=0.5" for kind in FaultKind if kind is not FaultKind.DST]
    run = TownRun(
        town=Town("village", 8, "all", VIENNA),
        speed=1e6,
        start_s=JUNE,
        days=0.5,
        interval_s=120,
        wait_s=60,
        faults=parse_wishes(texts),
        ledger=ledger,
        places=Places(alias_folder=tmp_path / "ptys"),
    )
    async with running_town(run, tmp_path / "config") as running:
        heard = [Heard(meter) for meter in running.meters if not is_asked(meter)]
        tasks = [asyncio.create_task(each.listen()) for each in heard]
        summary = await running.ended()
        await asyncio.gather(*tasks)
    events = [line for line in read_ledger(ledger) if line.state == "event"]
    assert {line.fault for line in events} == set(FaultKind) - {FaultKind.DST} == set(summary.faults)
    assert all(line.expects == EXPECTED[FaultKind(line.fault or "")] for line in events)
    states_seen = set()
    for each in heard:
        said = lines_of(ledger, each.meter.id, "whole")
        states_seen |= {line.state for line in lines_of(ledger, each.meter.id, "whole", "spoilt", "silent")}
        assert len(each.telegrams) == len(said), each.meter.family
        assert all(states(telegram, line.values) for line, telegram in zip(said, each.telegrams, strict=True))
        spoilt = lines_of(ledger, each.meter.id, "spoilt")
        assert set(each.reasons) == ({"bad-key"} if spoilt else set())
    assert states_seen == {"whole", "spoilt", "silent"}
    noisy = [line for line in read_ledger(ledger) if line.fault and line.state == "whole" and "noise" in line.fault]
    assert noisy
    assert summary.telegrams_lost == sum(line.state == "silent" for line in read_ledger(ledger)) > 0


def on_segment(fault: Fault | None, ledger: Ledger) -> tuple[SegmentConversation, list[int]]:
    """Return a segment with one water meter at address 1, and its clock."""
    meter = TownMeter(Town("mixed", 1, "leak", VIENNA).dwellings[0], "water", "mbus-water", zone=VIENNA)
    meter.faults = (fault,) if fault else ()
    now_s = [JUNE - 60]
    return SegmentConversation([meter], lambda: now_s[0], Books(ledger, Counters())), now_s


def ask_segment(segment: SegmentConversation) -> Telegram | None:
    """Ask the meter at address 1 as a master does that begins anew."""
    segment.hear(short_frame(SND_NKE, 1))
    heard = b"".join(effect.data for effect in segment.hear(short_frame(0x7B, 1)) if isinstance(effect, Send))
    segment.sent()
    items = MbusDecoder(VIENNA).feed(heard, 0.0)
    if not items:
        return None
    (telegram,) = items
    assert isinstance(telegram, Telegram)
    return telegram


def test_a_meter_on_a_segment_is_swapped_and_keeps_its_primary_address(tmp_path: Path) -> None:
    with Ledger(tmp_path / "truth.jsonl") as ledger:
        segment, now_s = on_segment(Fault(FaultKind.SWAP, JUNE), ledger)
        before = ask_segment(segment)
        now_s[0] = JUNE + 60
        after = ask_segment(segment)
    assert before is not None
    assert after is not None
    assert before.meter != after.meter
    assert numbers(before)["8-0:1.0.0*255"] > 100 > numbers(after)["8-0:1.0.0*255"]
    first, second = read_ledger(tmp_path / "truth.jsonl")
    assert (first.fault, second.fault) == (None, "swap")
    assert (states(before, first.values), states(after, second.values)) == (True, True)


def test_a_meter_on_a_segment_that_is_silent_answers_nothing_and_the_ledger_says_what_was_swallowed(
    tmp_path: Path,
) -> None:
    with Ledger(tmp_path / "truth.jsonl") as ledger:
        segment, now_s = on_segment(Fault(FaultKind.SILENCE, JUNE, JUNE + 600), ledger)
        now_s[0] = JUNE + 60
        assert ask_segment(segment) is None
        now_s[0] = JUNE + 660
        assert ask_segment(segment) is not None
    lines = list(read_ledger(tmp_path / "truth.jsonl"))
    assert [(line.state, line.fault) for line in lines] == [("silent", "silence"), ("whole", None)]


def test_a_meter_at_a_head_that_loses_an_answer_gives_it_when_asked_again(tmp_path: Path) -> None:
    meter = TownMeter(Town("mixed", 1, "leak", VIENNA).dwellings[0], "heat", "heat-landisgyr-uh50", zone=VIENNA)
    meter.faults = (Fault(FaultKind.LOSS, JUNE),)
    now_s = [JUNE]
    with Ledger(tmp_path / "truth.jsonl") as ledger:
        head = MeterConversation(meter, lambda: now_s[0], Books(ledger, Counters()))
        answered = 0
        for _ in range(60):
            now_s[0] += 7
            answered += bool([effect for effect in head.hear(b"/?!\r\n") if isinstance(effect, Send)])
            head.sent()
            head.forget()
    states_seen = [line.state for line in read_ledger(tmp_path / "truth.jsonl")]
    assert len(states_seen) == 60
    assert states_seen.count("whole") == answered
    assert 2 <= states_seen.count("silent") <= 30


def test_the_same_seed_has_the_same_faults_and_a_share_is_a_share() -> None:
    meters = list(Town("village", 40, "plan", VIENNA).meters)

    def plan(seed: str, *texts: str) -> dict[str, tuple[Fault, ...]]:
        return plan_faults(parse_wishes(texts), meters, seed=seed, start_s=JUNE, span_s=86_400, zone=VIENNA)

    assert plan("a", "swap=0.5", "zero") == plan("a", "swap=0.5", "zero") != plan("b", "swap=0.5", "zero")
    water = [meter for meter in meters if meter.medium == "water"]
    assert len(plan("a", "leak=0.25")) == round(len(water) / 4)
    assert len(plan("a", "leak=1")) == len(water)
    assert plan("a", "swap=0") == {}
    by_id = {meter.meter_id: meter for meter in meters}
    assert {by_id[key].medium for key in plan("a", "swap:gas=1")} == {"gas"}
    both = plan("a", "swap=0.6", "rollover=1")
    assert all(len(faults) == 1 for faults in both.values())
    assert all(JUNE <= fault.begin_s < JUNE + 43_200 + 1 for faults in both.values() for fault in faults)


def test_wishes_are_parsed_and_refused_with_a_sentence() -> None:
    assert parse_wishes(["noise", "leak:water=0.05"]) == (
        FaultWish(FaultKind.NOISE, "", 0.1),
        FaultWish(FaultKind.LEAK, "water", 0.05),
    )
    for text, sentence in (
        ("fire", "fault 'fire' is unknown; there are noise, loss, silence"),
        ("leak=much", "needs a share from 0 to 1, such as leak=0.2"),
        ("leak=2", "the share of meters lies between 0 and 1"),
        ("leak=nan", "the share of meters lies between 0 and 1"),
    ):
        with pytest.raises(SetupError, match=sentence):
            parse_wishes([text])
