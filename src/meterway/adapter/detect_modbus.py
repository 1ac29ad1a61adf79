"""Asking for Modbus meters: a knock at the usual units, then the families' register maps, for any map reads something.

Which map is right is told by the meter's own name, where a family knows it, and else by what the registers say: a
voltage and a frequency that a grid has, and few registers that the meter refuses.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, cast

from meterway.adapter.choose import candidate_of, ranked
from meterway.adapter.detect_masters import InTurn, ModbusKnock
from meterway.adapter.detect_questions import Answered, Conversation, Known, Question, Verdict
from meterway.core.errors import TransientError
from meterway.meter.diagnose import Finding
from meterway.meter.family import Family, Line
from meterway.meter.master import Master
from meterway.meter.modbus_map import Framing
from meterway.meter.modbus_master import ModbusMaster

UNITS: Final = (1, 2, 3, 4, 5, 10, 100, 126, 240, 247)
"""What meters leave the factory with, or are given first; 126 and 240 are meters behind inverters."""
_TCP_UNITS: Final = (*UNITS, 255)
LINES: Final = (
    Line(baud=9600),
    Line(baud=19_200),
    Line(baud=19_200, parity="E"),
    Line(baud=9600, parity="E"),
    Line(baud=2400),
)
_VISIT_S: Final = 60.0
"""Reading one unit with all maps takes a quarter of this."""
_LIMIT_S: Final = 300.0

_Make = Callable[[], Master]


def modbus_rtu(known: Known) -> list[Question]:
    """Return the knocks on a serial line, or through a gateway that passes bytes on."""
    return [_knock(known, line, "rtu") for line in LINES]


def modbus_tcp(known: Known) -> Question:
    """Return the knock at a server of Modbus/TCP."""
    return _knock(known, LINES[0], "tcp")


def _knock(known: Known, line: Line, framing: Framing) -> Question:
    units = UNITS if framing == "rtu" else _TCP_UNITS
    where = f"RTU meters at {line.baud} {line.data_bits}{line.parity}{line.stop_bits}" if framing == "rtu" else "TCP"
    return Question(
        what=f"for Modbus {where} ({len(units)} usual unit ids)",
        line=line,
        limit_s=30.0,
        make_master=lambda: InTurn([(unit, _knocking(unit, framing, line)) for unit in units]),
        judge=lambda said: _somebody(said, known, line, framing),
        sets_line=framing == "rtu" and line != LINES[0],
    )


def _knocking(unit: int, framing: Framing, line: Line) -> _Make:
    return lambda: ModbusKnock(unit, framing, line)


def _somebody(said: Conversation, known: Known, line: Line, framing: Framing) -> Verdict:
    results = cast("InTurn[int]", said.master).results
    units = [unit for unit, result in results.items() if result.error is None]
    if units:
        outcome = f"unit {', '.join(map(str, units))} answers"
        return Verdict(then=[_maps(known, line, framing, units)], outcome=outcome)
    if not said.heard_bytes:
        return Verdict()
    told = next((result.error for result in results.values() if isinstance(result.error, TransientError)), None)
    if framing == "tcp" and told is not None and "gateway" in str(told):
        fix = "check wiring, unit ids and the gateway's baud rate and parity; the meter's display often shows its own"
        return Verdict(findings=[Finding("gateway-alone", f"{told}, nor any of the usual units", fix)])
    return Verdict()


def _maps(known: Known, line: Line, framing: Framing, units: Sequence[int]) -> Question:
    families = [family for family in known.asked("modbus") if family.modbus is not None]
    visits = [((unit, family.name), _visiting(family, unit, framing, line)) for unit in units for family in families]
    return Question(
        what=f"Modbus unit {', '.join(map(str, units))} for the registers of {len(families)} families",
        line=line,
        limit_s=min(_VISIT_S * len(units), _LIMIT_S),
        make_master=lambda: InTurn(visits),
        judge=lambda said: _by_maps(said, families, units, framing),
    )


def _visiting(family: Family, unit: int, framing: Framing, line: Line) -> _Make:
    def make() -> Master:
        assert family.modbus is not None  # noqa: S101 - those without a map are not asked
        return ModbusMaster(family.modbus, unit_id=unit, framing=framing, line=line)

    return make


def _by_maps(said: Conversation, families: Iterable[Family], units: Iterable[int], framing: Framing) -> Verdict:
    results = cast("InTurn[tuple[int, str]]", said.master).results
    meters: list[Answered] = []
    findings: list[Finding] = []
    for unit in units:
        read = [
            candidate_of(family, result.items)
            for family in families
            if (result := results.get((unit, family.name))) is not None
        ]
        fitting = ranked(each for each in read if each.readings and not each.is_absurd)
        if not fitting:
            detail = f"Modbus unit {unit} answers, and with no family's register map are its values those of a meter"
            fix = "look for its model in `meterway drivers`; a register map of your own is a file, docs/meters says how"
            findings.append(Finding("unknown-registers", detail, fix))
            continue
        own = fitting[0].family.modbus
        suffix = "" if own is None or own.framing == framing else f"/{framing}"
        meters.append(Answered(fitting, f"{unit}{suffix}"))
    return Verdict(meters, findings)
