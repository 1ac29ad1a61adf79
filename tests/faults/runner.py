"""Runs scenarios one after another and prints a row for each: a table for each kind, then the sum."""

import argparse
import asyncio
import logging
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import pytest

from faults.catalogue import SCENARIOS
from faults.scenario import CannotRunError, Expect, Result, Scenario

DEFAULT_SEED = 20261123
LONGEST_S = 900.0
"""A scenario that takes longer is ended, and has failed."""
_COLUMNS = ("fault", "component", "engine", "seed", "sent", "stored", "lost", "duplicated", "altered", "recovery s")
_WIDTHS = (20, 27, 16, 9, 7, 7, 6, 10, 7, 10)
_TITLES = {
    Expect.NOTHING_LOST: "Meterway: lost, duplicated and altered must be 0",
    Expect.FOUND_WRONG: "Broken on purpose: the same check must find something wrong",
    Expect.WHATEVER: "Peers, with the same check",
}


@dataclass(frozen=True, slots=True)
class Row:
    """What one run of a scenario came to: a result, or why there is none."""

    scenario: Scenario
    seed: int
    result: Result | None
    error: str
    seconds: float

    @property
    def is_as_expected(self) -> bool:
        match self.scenario.expect:
            case Expect.NOTHING_LOST:
                return self.result is not None and self.result.is_right
            case Expect.FOUND_WRONG:
                return self.result is not None and self.result.sent > 0 and not self.result.is_right
            case Expect.WHATEVER:
                return True

    def line(self) -> str:
        """Return the row of the table."""
        cells = [self.scenario.fault, self.scenario.component, self.scenario.engine, str(self.seed)]
        found = self.result
        if found is None:
            return f"{_aligned(cells)}  {self.error}"
        recovery = "" if found.recovery_s is None else f"{found.recovery_s:.1f}"
        cells += [*map(str, (found.sent, found.stored, found.lost, found.duplicated, found.altered)), recovery]
        notes = [
            found.note,
            f"{found.refused} refused" if found.refused else "",
            "" if self.is_as_expected else "WRONG",
        ]
        return f"{_aligned(cells)}  {', '.join(note for note in notes if note)}".rstrip()

    def json(self) -> str:
        """Return the row as an object."""
        scenario = self.scenario
        said = {"fault": scenario.fault, "component": scenario.component, "engine": scenario.engine, "seed": self.seed}
        found = asdict(self.result) if self.result else {"error": self.error}
        return msgspec.json.encode(
            said | found | {"kind": scenario.expect.value, "asExpected": self.is_as_expected, "seconds": self.seconds}
        ).decode()


def _aligned(cells: Sequence[str]) -> str:
    """Words to the left, figures to the right."""
    return " ".join(
        cell.ljust(width) if index < 3 else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=False))
    )


async def run_once(scenario: Scenario, seed: int) -> Row:
    """Run a scenario in a folder of its own; whatever it raises is its row's error."""
    started_s = time.monotonic()
    result, error = None, ""
    with tempfile.TemporaryDirectory(prefix="mwfault-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        try:
            async with asyncio.timeout(LONGEST_S):
                result = await scenario.run(folder, random.Random(f"{seed} {scenario.name}"))
        except (CannotRunError, pytest.skip.Exception) as problem:
            error = f"not run: {problem}"
        except (Exception, pytest.fail.Exception) as problem:  # noqa: BLE001 - the other scenarios are run all the same
            traceback.print_exc()
            error = f"failed: {type(problem).__name__}: {problem}".splitlines()[0]
    return Row(scenario, seed, result, error, time.monotonic() - started_s)


def chosen(arguments: argparse.Namespace) -> list[Scenario]:
    """Return the scenarios to run: calibrations after the matrix, peers last."""
    wanted = [
        each
        for each in SCENARIOS
        if arguments.only.lower() in each.name.lower()
        and (each.quick or not arguments.quick)
        and (each.expect is not Expect.WHATEVER or arguments.peers)
    ]
    return sorted(wanted, key=lambda each: list(Expect).index(each.expect))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make faults",
        description="Run the fault matrix with real processes. Example: make faults ARGS='--only SIGKILL --repeat 3'",
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="those with TEXT in 'fault component engine'")
    parser.add_argument("--quick", action="store_true", help="a few minutes' choice")
    parser.add_argument("--peers", action="store_true", help="other software beside it; its losses do not count")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="of all that is random (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="each with N seeds, from --seed on")
    parser.add_argument("--json", action="store_true", help="one object a line instead of tables")
    parser.add_argument("--list", action="store_true", help="say what there is")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run; return 0 if all is as expected, 1 if not, 2 if nothing was chosen."""
    logging.basicConfig(level=logging.CRITICAL)
    options = parse(arguments)
    scenarios = chosen(options)
    if options.list:
        print("\n".join(f"{each.name}{' (quick)' if each.quick else ''} - {each.expect.value}" for each in scenarios))
        return 0
    if not scenarios:
        print("no scenario is chosen; --list says what there is", file=sys.stderr)
        return 2
    return _sum(_run_all(scenarios, options), as_json=options.json)


def _run_all(scenarios: Sequence[Scenario], options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    shown = None
    for scenario in scenarios:
        if scenario.expect is not shown and not options.json:
            shown = scenario.expect
            print(f"\n{_TITLES[shown]}\n\n{_aligned(_COLUMNS)}", flush=True)
        for seed in range(options.seed, options.seed + options.repeat):
            if sys.stderr.isatty():
                sys.stderr.write(f"... {scenario.name} {seed}\r")
            row = asyncio.run(run_once(scenario, seed))
            rows.append(row)
            print(row.json() if options.json else row.line(), flush=True)
    return rows


def _sum(rows: Sequence[Row], *, as_json: bool) -> int:
    ours = [row.result for row in rows if row.scenario.expect is Expect.NOTHING_LOST and row.result]
    lost, duplicated = sum(each.lost for each in ours), sum(each.duplicated for each in ours)
    wrong = [row for row in rows if not row.is_as_expected]
    if as_json:
        print(msgspec.json.encode({"lost": lost, "duplicated": duplicated, "wrong": len(wrong)}).decode())
        return 1 if wrong else 0
    print()
    for row in wrong:
        print(f"not as expected: {row.scenario.name} {row.seed}")
    longest_s = max((each.recovery_s for each in ours if each.recovery_s is not None), default=0.0)
    print(f"{len(rows)} runs, {len(wrong)} not as expected, longest recovery {longest_s:.1f} s")
    print(f"lost {lost} duplicated {duplicated}")
    return 1 if wrong else 0
