"""Receipts: digests of messages, and batches of them."""

from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterway.core import receipts
from meterway.core.errors import BadDataError

digests = st.lists(st.binary(min_size=16, max_size=16), max_size=50)


def test_a_digest_is_over_topic_nul_and_payload() -> None:
    assert receipts.digest("a/b", b"payload") == blake2b(b"a/b\0payload", digest_size=16).digest()


def test_the_border_between_topic_and_payload_counts() -> None:
    assert receipts.digest("ab", b"c") != receipts.digest("a", b"bc")


@given(digests)
def test_a_receipt_holds_the_digests_in_order(batch: list[bytes]) -> None:
    assert [digest for payload in receipts.encode(batch) for digest in receipts.decode(payload)] == batch


def test_a_large_batch_becomes_several_receipts() -> None:
    batch = [number.to_bytes(16, "big") for number in range(receipts.LIMIT_DIGESTS + 1)]
    first, second = receipts.encode(batch)
    assert (len(first), second) == (16 * receipts.LIMIT_DIGESTS, batch[-1])
    assert receipts.decode(first) + receipts.decode(second) == batch


def test_nothing_needs_no_receipt() -> None:
    assert receipts.encode([]) == []
    assert receipts.decode(b"") == []


@pytest.mark.parametrize("size", [1, 15, 17, 16 * 4097])
def test_a_receipt_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(BadDataError, match=f"0 to 4096 digests of 16 bytes, not {size} bytes") as caught:
        receipts.decode(bytes(size))
    assert caught.value.reason == "bad-receipt"
