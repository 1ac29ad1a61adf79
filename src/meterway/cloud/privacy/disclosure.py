"""Whether an answer about many households tells of a single one. Pure.

What it does: judges the values of one property and one day of UTC, a list of cells a household, by three rules.

- At least ``k`` distinct households, each with a value in every cell of the day. Rows and meters do not count.
- In no cell one household has more than ``share`` of the sum (of amounts without sign); a sum of nothing tells that
  each has nothing, and is refused too.
- Set against every earlier answer about the property and day, whoever had it and however long its cells were, on
  neither side fewer than ``k`` households are alone: else the difference of two answers tells of those few.

What it does not do: it knows nothing about what somebody learned elsewhere, nor about other properties that go
together with this one. What you must do: keep the set of households of each answer (``research_day``), answer whole
days of UTC in fixed cells only, and answer all days that were asked or none.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NamedTuple, TypeAlias

Reason: TypeAlias = Literal["too-few-households", "one-household-dominates", "tells-a-difference"]

Values: TypeAlias = Mapping[int, Sequence[Decimal | None]]
"""Of each household, by its key, a value a cell; None where it has none."""

STEPS_S = (900, 3600, 86_400)
"""How long a cell may be; each divides the next one."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What an answer must satisfy."""

    k: int
    share: Decimal
    """Between 0 and 1."""


class Cell(NamedTuple):
    """A number of a cell within its day, and what may be told."""

    number: int
    households: int
    sum: Decimal


class Judged(NamedTuple):
    """The cells of a day, or why they may not be told."""

    households: frozenset[int]
    cells: tuple[Cell, ...]
    refused: Reason | None


def judge(values: Values, rule: Rule, earlier: Iterable[frozenset[int]]) -> Judged:
    """Return what may be told of a day; ``earlier`` are the sets of households of the answers before."""
    whole = {key: [each for each in cells if each is not None] for key, cells in values.items() if None not in cells}
    households = frozenset(whole)
    if len(households) < rule.k:
        return Judged(households, (), "too-few-households")
    columns = list(zip(*whole.values(), strict=True))
    if any(_dominates(column, rule.share) for column in columns):
        return Judged(households, (), "one-household-dominates")
    if any(_differs_little(households, other, rule.k) for other in earlier):
        return Judged(households, (), "tells-a-difference")
    return Judged(households, tuple(Cell(n, len(c), sum(c, Decimal())) for n, c in enumerate(columns)), None)


def coarser(step_s: int) -> tuple[int, ...]:
    """Return ``step_s`` and the longer steps, in which an answer may be told when it may not in this one."""
    return tuple(each for each in STEPS_S if each >= step_s)


def _dominates(column: Sequence[Decimal], share: Decimal) -> bool:
    amounts = [abs(value) for value in column]
    total = sum(amounts, Decimal())
    return total == 0 or max(amounts) > share * total


def _differs_little(one: frozenset[int], other: frozenset[int], k: int) -> bool:
    return 0 < len(one - other) < k or 0 < len(other - one) < k
