import pytest

from meterway.bus.nats_users import CalloutUser, StaticUser, authorization, permissions, subjects
from meterway.core.grants import OBSERVER, Grant


@pytest.mark.parametrize(
    ("topic_filter", "expected"),
    [
        ("a/b", ["a.b"]),
        ("a/#", ["a", "a.>"]),
        ("a/+/c", ["a.*.c"]),
        ("#", [">"]),
        ("/a", ["/.a"]),
        ("a//b", ["a./.b"]),
        ("a/", ["a./"]),
        ("a.b/c", ["a//b.c"]),
    ],
)
def test_topic_filters_become_the_subjects_that_nats_makes_of_them(topic_filter: str, expected: list[str]) -> None:
    assert subjects([topic_filter]) == expected


def test_nothing_granted_is_denied_and_not_left_open() -> None:
    assert permissions(Grant()) == ({"deny": [">"]}, {"deny": [">"]})
    assert permissions(OBSERVER)[0] == {"deny": [">"]}


def test_passwords_are_in_the_configuration_and_in_no_repr() -> None:
    user, callout = StaticUser("observer", "hush-1", OBSERVER), CalloutUser("AISSUER", "hush-2")
    written = authorization([user], callout)
    assert "hush-1" in written
    assert "hush-2" in written
    assert "hush" not in repr((user, callout))
    assert '"auth_users":["callout","observer"]' in written
