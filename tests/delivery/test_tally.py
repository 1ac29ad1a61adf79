import pytest

from meterway.core.errors import SetupError
from meterway.delivery.ages import LIMIT_MARKS, Ages
from meterway.delivery.tally import LIMIT_TOPICS, Tally, TopicState


def test_counts_begin_at_one_and_go_back_when_a_write_fails() -> None:
    tally = Tally()
    assert tally["a"] == TopicState(0, b"")
    assert [tally.append("a", b"1"), tally.append("a", b"2"), tally.append("b", b"")] == [1, 2, 1]
    tally.settle("a", TopicState(2, b"2"))
    assert tally.append("a", b"3") == 3
    tally.forget_pending()
    assert tally["a"] == TopicState(2, b"2")
    assert tally["b"] == TopicState(0, b"")
    assert list(tally) == [("a", TopicState(2, b"2"))]


def test_a_later_pending_state_outlives_the_settling_of_an_earlier_one() -> None:
    tally = Tally()
    tally.append("a", b"1")
    tally.append("a", b"2")
    tally.settle("a", TopicState(1, b"1"))
    assert tally["a"] == TopicState(2, b"2")


def test_lost_messages_leave_a_gap_and_no_number_is_used_twice() -> None:
    tally = Tally()
    tally.settle("a", TopicState(5, b""))
    tally.settle("b", TopicState(9, b""))
    tally.skip(2)
    assert (tally["a"].appended, tally["b"].appended) == (7, 11)


def test_one_topic_too_many_is_refused_and_the_known_ones_go_on() -> None:
    tally = Tally()
    for number in range(LIMIT_TOPICS):
        tally.append(f"t{number}", b"")
    with pytest.raises(SetupError, match="counts at most 10000 topics and 'one-more' is one more; spread the meters"):
        tally.append("one-more", b"")
    assert tally.append("t0", b"") == 2


def test_the_oldest_age_is_that_of_the_first_pending_message_or_a_little_more() -> None:
    ages = Ages()
    for second in range(100):
        ages.mark(second * 10, 1000 + second)
    assert ages.oldest_s(0) == 1000
    assert ages.oldest_s(505) == 1050
    assert ages.oldest_s(5000) == 1099


def test_ages_get_coarser_instead_of_larger() -> None:
    ages = Ages()
    for second in range(LIMIT_MARKS * 10):
        ages.mark(second, second)
    assert len(ages._marks) <= LIMIT_MARKS
    found = ages.oldest_s(20_000)
    assert found is not None
    assert 20_000 - 32 <= found <= 20_000
