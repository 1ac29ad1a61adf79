"""What an answer about many households must satisfy, whatever the values are."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from meterway.cloud.privacy.disclosure import Rule, Values, coarser, judge

RULE = Rule(3, Decimal("0.5"))


def even(*households: int, cells: int = 2) -> Values:
    return {key: [Decimal(1)] * cells for key in households}


def test_fewer_than_k_households_are_not_told() -> None:
    assert judge(even(1, 2), RULE, []).refused == "too-few-households"
    assert judge(even(1, 2, 3), RULE, []).refused is None


def test_a_household_that_lacks_a_cell_is_not_in_the_day() -> None:
    values = {**even(1, 2, 3), 4: [Decimal(1), None]}
    judged = judge(values, RULE, [])
    assert judged.households == {1, 2, 3}
    assert [(cell.number, cell.households, cell.sum) for cell in judged.cells] == [
        (0, 3, Decimal(3)),
        (1, 3, Decimal(3)),
    ]
    assert judge({**even(1, 2), 4: [Decimal(1), None]}, RULE, []).refused == "too-few-households"


def test_a_household_that_dominates_one_cell_spoils_the_day() -> None:
    values = {**even(1, 2, 3), 4: [Decimal(1), Decimal("3.01")]}
    assert judge(values, RULE, []).refused == "one-household-dominates"
    assert judge({**values, 4: [Decimal(1), Decimal(3)]}, RULE, []).refused is None


def test_amounts_of_either_sign_dominate() -> None:
    values = {**even(1, 2, 3, cells=1), 4: [Decimal(-9)]}
    assert judge(values, RULE, []).refused == "one-household-dominates"


def test_a_sum_of_nothing_would_tell_that_each_has_nothing() -> None:
    assert judge({key: [Decimal(0)] for key in range(9)}, RULE, []).refused == "one-household-dominates"


def test_an_answer_that_differs_from_an_earlier_one_by_few_households_is_not_told() -> None:
    asked = even(1, 2, 3, 4)
    for earlier in ({1, 2, 3}, {1, 2, 3, 4, 5}, {1, 2, 3, 5}, {1, 2, 3, 4, 5, 6}):
        assert judge(asked, RULE, [frozenset(earlier)]).refused == "tells-a-difference"
    for earlier in ({1, 2, 3, 4}, {1, 2, 3, 4, 5, 6, 7}, {5, 6, 7}):
        assert judge(asked, RULE, [frozenset(earlier)]).refused is None


def test_steps_get_coarser_up_to_a_day() -> None:
    assert coarser(900) == (900, 3600, 86_400)
    assert coarser(86_400) == (86_400,)


_VALUES = st.dictionaries(
    st.integers(1, 12),
    st.lists(st.none() | st.decimals(-100, 100, places=2), min_size=2, max_size=2),
    max_size=12,
)
_SETS = st.lists(st.frozensets(st.integers(1, 12)), max_size=3)


@given(_VALUES, _SETS)
def test_what_is_told_keeps_every_rule(values: Values, earlier: list[frozenset[int]]) -> None:
    judged = judge(values, RULE, earlier)
    assert (judged.refused is None) == bool(judged.cells)
    for cell in judged.cells:
        column = [abs(values[key][cell.number] or Decimal()) for key in judged.households]
        assert cell.households == len(judged.households) >= RULE.k
        assert max(column) <= RULE.share * sum(column)
        for other in earlier:
            assert len(judged.households - other) not in (1, 2)
            assert len(other - judged.households) not in (1, 2)
