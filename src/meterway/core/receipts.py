"""Receipts: how a receiver tells a sender which messages it has committed.

A message is known by ``digest = blake2b-128(topic, 0x00, payload)``, topic and payload as the *sender* published
them. A receipt is the concatenation of such digests, 16 bytes each, in any order.
"""

from collections.abc import Iterable
from hashlib import blake2b

from meterway.core.errors import BadDataError

DIGEST_BYTES = 16

LIMIT_DIGESTS = 4096
"""The most digests in one receipt (64 KiB); a receiver with more publishes several."""


def digest(topic: str, payload: bytes) -> bytes:
    """Return the 16 bytes by which a message is known."""
    state = blake2b(topic.encode(), digest_size=DIGEST_BYTES)
    state.update(b"\0")
    state.update(payload)
    return state.digest()


def encode(digests: Iterable[bytes]) -> list[bytes]:
    """Return the payloads of as many receipts as ``digests`` need."""
    joined = b"".join(digests)
    step = DIGEST_BYTES * LIMIT_DIGESTS
    return [joined[start : start + step] for start in range(0, len(joined), step)]


def decode(payload: bytes) -> list[bytes]:
    """Return the digests in a receipt.

    Raises:
        BadDataError: the length is not a multiple of 16, or there are more than ``LIMIT_DIGESTS``.
    """
    if len(payload) % DIGEST_BYTES or len(payload) > DIGEST_BYTES * LIMIT_DIGESTS:
        raise BadDataError(
            f"a receipt is 0 to {LIMIT_DIGESTS} digests of {DIGEST_BYTES} bytes, not {len(payload)} bytes",
            reason="bad-receipt",
        )
    return [payload[start : start + DIGEST_BYTES] for start in range(0, len(payload), DIGEST_BYTES)]
