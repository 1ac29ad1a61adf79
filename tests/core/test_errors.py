"""The tree of errors, as callers rely on it."""

from meterway.core.errors import BadDataError, MeterwayError, SetupError, TransientError


def test_all_errors_are_of_one_family_and_none_is_another() -> None:
    kinds = (BadDataError, TransientError, SetupError)
    assert all(issubclass(kind, MeterwayError) for kind in kinds)
    assert not any(issubclass(one, other) for one in kinds for other in kinds if one is not other)


def test_bad_data_carries_its_reason_and_shows_its_message() -> None:
    error = BadDataError("the sum is wrong", reason="bad-checksum")
    assert (error.reason, str(error)) == ("bad-checksum", "the sum is wrong")
