"""The gate every push codec passes: one capture, fed in all the ways a line mangles it.

    from meterway.testing import check_codec

    def test_my_codec() -> None:
        report = check_codec(MyDecoder, capture, limit_bytes=16384)
        assert report.telegrams == 3

What it demands, of each variant: ``feed`` and ``idle`` raise nothing; ``buffered_bytes`` stays within the limit;
``raw`` of every telegram is bytes that were fed; and what the variant's own line below says. *Good* are the
telegrams of the capture fed whole; telegrams are the same when all but ``raw`` and ``checked`` is equal.

    whole            the reference
    chunks           of 1, 7 and 64 bytes: the same telegrams and errors in the same order
    prefix           the capture ends at any byte: nothing but good telegrams
    cut, then whole  any prefix, then the capture twice: all good telegrams of both
    concatenation    the capture three times: exactly the good telegrams three times
    flip, loss       bits turned, runs lost, then the capture: nothing but good telegrams, and all of the second
    noise            random bytes before and between: exactly the good telegrams
    runs             of 1b, 7e, 68, '/', '!', 00 and ff, short and past the limit: exactly the good telegrams
    garbage          random bytes alone: no telegram
    endless          half the capture, then other bytes past the limit, then the capture: all of the second

Where the capture's telegrams carry no checksum (``checked`` is false), damage may go unnoticed and prefixes may be
whole telegrams: "nothing but good telegrams" is then not asked of ``prefix``, ``cut``, ``flip`` and ``loss``. Nor is
the first copy asked of ``noise`` and ``runs``: what follows a telegram without an end mark damages it.
A 16-bit checksum lets one damaged frame of 65,536 pass; the seeds are fixed, so a pass stays a pass. One of 8 bits
lets too many pass: of such a protocol, fed with ``weak_checksum``, "nothing but good telegrams" is not asked; its own
tests say which damage is always noticed.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from meterway.meter.codec import CodecError, Decoder
from meterway.meter.telegram import Telegram

MakeDecoder = Callable[[], Decoder]

_CHUNK_BYTES = (1, 7, 64)
_RUN_BYTES = (b"\x1b", b"\x7e", b"\x68", b"/", b"!", b"\x00", b"\xff")
_RUN_LENGTHS = (1, 2, 3, 4, 5, 8, 13)
_MOST_PREFIXES = 160


@dataclass(frozen=True, slots=True)
class GateReport:
    """What the gate saw; it returns only when everything held."""

    telegrams: int
    """In the capture fed whole."""
    errors: int
    """In the capture fed whole."""
    checked: bool
    """Whether all telegrams of the capture carried a strong checksum (so that only good ones were ever accepted)."""
    variants: int
    """How many ways of feeding were tried."""
    most_buffered_bytes: int
    """The most that a decoder held between two calls."""


class _Variant(NamedTuple):
    """One way of feeding."""

    name: str
    data: bytes
    ending: int = 0
    """The last telegrams must be the good ones, this many times over."""
    exactly: bool = False
    """There must be no others."""
    only_good: bool = False
    """All others must be good telegrams too, if the capture is checksummed."""
    noisy: bool = False
    """Bytes were put between the copies."""


class _Fed(NamedTuple):
    telegrams: list[Telegram]
    errors: list[CodecError]
    order: list[object]
    most_buffered_bytes: int


def check_codec(
    make_decoder: MakeDecoder, capture: bytes, *, limit_bytes: int, rounds: int = 25, weak_checksum: bool = False
) -> GateReport:
    """Feed ``capture`` to fresh decoders in every way named above; return what was seen.

    ``limit_bytes`` is the most that the codec promises to buffer; ``rounds`` is how many seeds each random kind of
    damage is tried with. Deterministic.

    Raises:
        AssertionError: the codec broke a demand; the message names variant, seed and offset.
    """
    whole = _feed(make_decoder, capture, _whole(capture), limit_bytes, "whole")
    good = [_substance(telegram) for telegram in whole.telegrams]
    checked = all(telegram.checked for telegram in whole.telegrams)
    strict = checked and not weak_checksum
    most_buffered_bytes = whole.most_buffered_bytes
    variants = 1
    for size in _CHUNK_BYTES:
        name = f"chunks of {size} bytes"
        fed = _feed(make_decoder, capture, _chunks(capture, size), limit_bytes, name)
        _demand(fed.order == whole.order, name, f"differs from the capture fed whole: {_difference(fed, whole)}")
        most_buffered_bytes = max(most_buffered_bytes, fed.most_buffered_bytes)
        variants += 1
    for seed, variant in enumerate(_variants(capture, limit_bytes, rounds)):
        name = f"{variant.name} (chunks by seed {seed})"
        fed = _feed(make_decoder, variant.data, _ragged(variant.data, seed), limit_bytes, name)
        _judge(
            variant, name, [_substance(telegram) for telegram in fed.telegrams], good, checked=checked, strict=strict
        )
        most_buffered_bytes = max(most_buffered_bytes, fed.most_buffered_bytes)
        variants += 1
    return GateReport(len(good), len(whole.errors), strict, variants, most_buffered_bytes)


def _feed(make_decoder: MakeDecoder, data: bytes, chunks: Iterable[bytes], limit_bytes: int, name: str) -> _Fed:
    decoder = make_decoder()
    fed = _Fed([], [], [], 0)
    most_buffered_bytes = offset = 0
    for chunk in chunks:
        _collect(lambda piece=chunk: decoder.feed(piece, 0.0), fed, data, f"{name}, offset {offset}")  # type: ignore[misc]
        offset += len(chunk)
        held = decoder.buffered_bytes
        _demand(
            held <= limit_bytes, f"{name}, offset {offset}", f"{held} bytes are buffered, the limit is {limit_bytes}"
        )
        most_buffered_bytes = max(most_buffered_bytes, held)
        skipped = decoder.skipped_bytes
        _demand(0 <= skipped <= offset, f"{name}, offset {offset}", f"skipped_bytes is {skipped}")
    _collect(lambda: decoder.idle(0.0), fed, data, f"{name}, idle after the end")
    return fed._replace(most_buffered_bytes=most_buffered_bytes)


def _collect(call: Callable[[], list[Telegram | CodecError]], fed: _Fed, data: bytes, name: str) -> None:
    try:
        items = call()
    except Exception as error:
        raise AssertionError(f"{name}: raised {error!r}; a codec never raises on wire data") from error
    for item in items:
        if isinstance(item, Telegram):
            _demand(item.raw in data, name, f"raw is not what was fed: {item.raw[:40].hex()}...")
            fed.telegrams.append(item)
            fed.order.append(_substance(item))
        else:
            fed.errors.append(item)
            fed.order.append((item.reason, item.data))


def _judge(variant: _Variant, name: str, got: list[object], good: list[object], *, checked: bool, strict: bool) -> None:
    spoiled = variant.noisy and not checked
    ending = good if spoiled else good * variant.ending
    if variant.exactly and not spoiled:
        _demand(got == ending, name, f"{len(got)} telegrams came, not exactly the {len(ending)} good ones")
        return
    tail = got[len(got) - len(ending) :]
    _demand(tail == ending, name, f"of {len(ending)} good telegrams at the end, {_common_tail(got, ending)} came")
    if variant.only_good and strict:
        wrong = [index for index, substance in enumerate(got) if substance not in good]
        _demand(not wrong, name, f"telegram {wrong[0] if wrong else 0} is a wrong reading: damage was not noticed")


def _variants(capture: bytes, limit_bytes: int, rounds: int) -> Iterator[_Variant]:
    for end in _spread(len(capture)):
        yield _Variant(f"prefix, offset {end}", capture[:end], only_good=True)
        yield _Variant(f"cut then whole, offset {end}", capture[:end] + capture * 2, ending=2, only_good=True)
    yield _Variant("concatenation", capture * 3, ending=3, exactly=True)
    for seed in range(rounds):
        yield from _damaged(capture, seed)
        yield from _noisy(capture, limit_bytes, seed)
    for byte in _RUN_BYTES:
        for length in (*_RUN_LENGTHS, limit_bytes + 100):
            run = byte * length
            data = run + capture + run + capture
            yield _Variant(f"run of {length} x {byte.hex()}", data, ending=2, exactly=True, noisy=True)


def _damaged(capture: bytes, seed: int) -> Iterator[_Variant]:
    random = Random(seed)  # noqa: S311 - repeatable damage, not a secret
    flipped = bytearray(capture)
    places = sorted(random.randrange(len(capture) * 8) for _ in range(random.choice((1, 1, 2, 8))))
    for place in places:
        flipped[place >> 3] ^= 1 << (place & 7)
    at = ", ".join(str(place >> 3) for place in places)
    yield _Variant(f"flip, seed {seed}, offset {at}", bytes(flipped) + capture, ending=1, only_good=True)
    start = random.randrange(len(capture))
    length = random.choice((1, 1, 2, 5, 20, 150))
    lossy = capture[:start] + capture[start + length :]
    yield _Variant(f"loss of {length}, seed {seed}, offset {start}", lossy + capture, ending=1, only_good=True)


def _noisy(capture: bytes, limit_bytes: int, seed: int) -> Iterator[_Variant]:
    random = Random(seed)  # noqa: S311 - repeatable noise, not a secret
    before, between = (random.randbytes(random.choice((1, 3, 30, 500))) for _ in range(2))
    data = before + capture + between + capture
    yield _Variant(f"noise, seed {seed}, of {len(before)} and {len(between)}", data, ending=2, exactly=True, noisy=True)
    filler = random.randbytes(limit_bytes + 1000)
    yield _Variant(f"garbage, seed {seed}", filler, exactly=True)
    half = random.randrange(len(capture))
    filler = random.choice((filler, b"0" * len(filler)))
    yield _Variant(f"endless, seed {seed}, offset {half}", capture[:half] + filler + capture, ending=1, only_good=True)


def _spread(length: int) -> list[int]:
    """Return all places to cut, or an even spread of them where there are many."""
    if length <= _MOST_PREFIXES:
        return list(range(length))
    return sorted(
        {length * index // _MOST_PREFIXES for index in range(_MOST_PREFIXES)} | set(range(length - 12, length))
    )


def _whole(data: bytes) -> Iterator[bytes]:
    yield data


def _chunks(data: bytes, size_bytes: int) -> Iterator[bytes]:
    return (data[start : start + size_bytes] for start in range(0, len(data), size_bytes))


def _ragged(data: bytes, seed: int) -> Iterator[bytes]:
    random = Random(seed)  # noqa: S311 - repeatable chunks, not a secret
    start = 0
    while start < len(data):
        length = random.choice((1, 3, 16, 64, 256))
        yield data[start : start + length]
        start += length


def _substance(telegram: Telegram) -> object:
    return (telegram.protocol, telegram.meter, telegram.time, telegram.registers)


def _difference(fed: _Fed, whole: _Fed) -> str:
    return (
        f"{len(fed.telegrams)} telegrams and errors {[error.reason for error in fed.errors]} "
        f"instead of {len(whole.telegrams)} and {[error.reason for error in whole.errors]}"
    )


def _common_tail(got: list[object], ending: list[object]) -> int:
    count = 0
    while count < min(len(got), len(ending)) and got[-1 - count] == ending[-1 - count]:
        count += 1
    return count


def _demand(held: bool, name: str, otherwise: str) -> None:  # noqa: FBT001 - an assertion that python -O keeps
    if not held:
        raise AssertionError(f"{name}: {otherwise}")
