"""What the bytes of a link say about one meter, against its configuration. Pure: the moment is an argument."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import msgspec

from meterway.adapter.config import MeterConfig, ReplaySource
from meterway.adapter.doctor.check import Check, failed
from meterway.adapter.doctor.hearing import Hearing
from meterway.adapter.mapping import Mapper
from meterway.adapter.memory import ClockMemory
from meterway.adapter.plausible_clock import CLOCK_WRONG, judge_clock
from meterway.adapter.prepare import line_of
from meterway.core.errors import SetupError
from meterway.core.obis import Obis
from meterway.core.zones import find_zone
from meterway.meter.codec import Decoder
from meterway.meter.diagnose import Heard, diagnose
from meterway.meter.driver import MeterSetup
from meterway.meter.family import Family
from meterway.meter.keys import NO_KEYS, Keys
from meterway.meter.telegram import Telegram
from meterway.plugins import load_driver, make_decoder

SILENT_INTERVALS: Final = 3
"""A meter that is asked is not silent before so many of its intervals have passed."""
_FEWEST_TELEGRAMS: Final = 20
"""Fewer do not show whether a list has changed: many meters send a short and a long one by turns."""
_CERTAIN: Final = frozenset(("no-bytes", "bad-checksum", "no-key", "wrong-key"))
_NAMED: Final = 8
"""So many codes are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A meter that is looked at."""

    config: MeterConfig
    family: Family
    """With its line as the source sets it."""
    is_asked: bool
    keys: Keys = field(default=NO_KEYS, repr=False)

    @classmethod
    def of(cls, config: MeterConfig, family: Family, keys: Keys = NO_KEYS) -> "Subject":
        """Return the meter of a configuration.

        Raises:
            SetupError: there is no driver for it.
        """
        family = msgspec.structs.replace(family, line=line_of(config.source, family.line))
        return cls(config=config, family=family, is_asked=load_driver(family.protocol).asks(family), keys=keys)

    @property
    def name(self) -> str:
        return f"meter {self.config.id}"

    @property
    def watchdog_s(self) -> float:
        """After so long without a whole telegram it is silent."""
        interval_s = self.config.interval_s or self.family.interval_s
        return max(self.config.watchdog_s, SILENT_INTERVALS * interval_s) if self.is_asked else self.config.watchdog_s

    def decoder(self) -> Decoder | None:
        """Return a decoder for what came; None for meters whose answers say nothing without the question."""
        setup = MeterSetup(
            family=self.family,
            zone=find_zone(self.config.timezone or self.family.timezone),
            keys=self.keys,
            address=self.config.address,
        )
        try:
            return make_decoder(setup)
        except SetupError:
            return None


def examine(subject: Subject, hearing: Hearing, now: datetime, *, is_running: bool) -> list[Check]:
    """Return what was heard of a meter, and what is wrong with it by that.

    ``now`` is aware. ``is_running``: an adapter listens, so that silence is the meter's.
    """
    problems = _line(subject, hearing)
    problems += _silence(subject, hearing, now) if is_running else []
    problems += _clock(subject, hearing)
    problems += _list_changed(subject, hearing, now)
    mapped = _unmapped(subject, hearing.heard.telegrams, now)
    good = _good(subject, hearing) if hearing.arrivals or not problems else []
    return [*good, *problems, *mapped]


def _line(subject: Subject, hearing: Hearing) -> list[Check]:
    """Return what the bytes themselves say.

    Not everything that a meter answers can be read without the question, so as long as no telegram of a meter that is
    asked was read, only what is certain counts.
    """
    found = _findings(subject, hearing.heard)
    if subject.is_asked and not hearing.heard.telegrams:
        return [check for check in found if check.code in _CERTAIN]
    return found


def _findings(subject: Subject, heard: Heard) -> list[Check]:
    findings = diagnose(heard, subject.family.protocol, subject.family.line, _decoder_of)
    return [failed(subject.name, finding) for finding in findings]


def _decoder_of(protocol: str) -> Decoder:
    return make_decoder(MeterSetup.unknown(protocol, UTC))


def _good(subject: Subject, hearing: Hearing) -> list[Check]:
    heard = hearing.heard
    if not hearing.arrivals:
        detail = f"{len(heard.data)} bytes came, which are not read without the adapter's questions"
        return [Check(subject.name, ok=True, detail=detail, code="telegrams")]
    detail = f"{len(heard.telegrams)} whole {subject.family.protocol} telegrams, the last {_at(hearing.arrivals[-1])}"
    return [Check(subject.name, ok=True, detail=detail, code="telegrams")]


def _silence(subject: Subject, hearing: Hearing, now: datetime) -> list[Check]:
    if not hearing.arrivals or isinstance(subject.config.source, ReplaySource):
        return []
    silent_s = (now - hearing.arrivals[-1]).total_seconds()
    if silent_s <= subject.watchdog_s:
        return []
    detail = f"silent since {_at(hearing.arrivals[-1])}, {silent_s:.0f} s: no whole telegram came after that"
    fix = "is the head or cable still in place, the meter powered, its port still switched on?"
    after = [] if subject.is_asked or not hearing.after.data else _findings(subject, hearing.after)
    return [Check(subject.name, ok=False, detail=detail, fix=fix, code="silent"), *after]


def _clock(subject: Subject, hearing: Hearing) -> list[Check]:
    """Look at the newest telegram: a replayed file is old rightly, and so are all rows of a load profile but one."""
    is_old = subject.config.clock == "recorded" or isinstance(subject.config.source, ReplaySource)
    if is_old or not hearing.arrivals:
        return []
    arrival = hearing.arrivals[-1]
    times = [
        telegram.time
        for telegram, at in zip(hearing.heard.telegrams, hearing.arrivals, strict=True)
        if at == arrival and telegram.time is not None
    ]
    doubt = judge_clock(ClockMemory(), max(times), arrival) if times else None
    if doubt is None:
        return []
    fix = "set `timezone` right, and have the operator set the meter's clock; check this computer's with `timedatectl`"
    return [Check(subject.name, ok=False, detail=doubt.sentence, fix=fix, code=CLOCK_WRONG)]


def _list_changed(subject: Subject, hearing: Hearing, now: datetime) -> list[Check]:
    """Compare what most telegrams of the earlier half have with those of the later."""
    telegrams = hearing.heard.telegrams
    if len(telegrams) < _FEWEST_TELEGRAMS:
        return []
    half = len(telegrams) // 2
    before, after = (Counter(_codes(each)) for each in (telegrams[:half], telegrams[half:]))
    came = {code for code, count in after.items() if code not in before and 2 * count > half}
    gone = {code for code, count in before.items() if code not in after and 2 * count > half}
    if not came and not gone:
        return []
    unmapped = came & _unknown_codes(subject, telegrams[half:], now)
    detail = f"the meter's list changed: {len(came)} objects came{_list(came)}, {len(gone)} went{_list(gone)}"
    detail += f"; {len(unmapped)} unmapped{_list(unmapped)}"
    fix = "choose the `family` of the new list, or name the new objects under [meters.mapping]"
    return [Check(subject.name, ok=False, detail=detail, fix=fix, code="list-changed")]


def _unmapped(subject: Subject, telegrams: Sequence[Telegram], now: datetime) -> list[Check]:
    """Return which objects become nothing: worth knowing, and wrong only where nothing else comes."""
    codes = _unknown_codes(subject, telegrams, now)
    has_reading = any(_mapper(subject).readings(each, each.time or now) for each in telegrams[-1:])
    if not telegrams or (has_reading and not codes):
        return []
    detail = f"{len(codes)} objects unmapped{_list(codes)}"
    if not has_reading:
        detail += ", and the last telegram gave no reading at all"
    fix = "name them under [meters.mapping], to a property or to { ignore = true }; or choose another `family`"
    return [Check(subject.name, ok=has_reading, detail=detail, fix=fix, code="unmapped")]


def _unknown_codes(subject: Subject, telegrams: Sequence[Telegram], now: datetime) -> set[Obis]:
    mapper = _mapper(subject)
    for telegram in telegrams:
        mapper.readings(telegram, telegram.time or now)
    return mapper.unmapped


def _mapper(subject: Subject) -> Mapper:
    return Mapper(subject.config, subject.family)


def _codes(telegrams: Sequence[Telegram]) -> list[Obis]:
    return [code for telegram in telegrams for code in {register.obis for register in telegram.registers}]


def _list(codes: set[Obis]) -> str:
    if not codes:
        return ""
    names = sorted(str(code) for code in codes)
    rest = len(names) - _NAMED
    return f" ({', '.join(names[:_NAMED])}{f' and {rest} more' if rest > 0 else ''})"


def _at(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
