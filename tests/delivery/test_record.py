from hypothesis import given
from hypothesis import strategies as st

from meterway.delivery.record import LIMIT_PAYLOAD_BYTES, Damage, Record, Scanner, encode

SEED = 0x1234_5678
RECORDS = [
    Record(7 + n, f"smartMeterMessage/m{n}/readings", bytes([n]) * 40 * n, 1_800_000_000, b"m", n) for n in range(4)
]
DATA = [encode(record, SEED) for record in RECORDS]
WHOLE = b"".join(DATA)


def scan(data: bytes, seed: int = SEED, step: int | None = None) -> list[Record | Damage]:
    scanner = Scanner(seed)
    step = step or len(data) or 1
    found = [item for at in range(0, len(data), step) for item in scanner.feed(data[at : at + step])]
    return found + scanner.finish()


@given(
    st.builds(
        Record,
        number=st.integers(0, 2**64 - 1),
        topic=st.text(st.characters(codec="utf-8"), max_size=50),
        payload=st.binary(max_size=300),
        time_s=st.integers(0, 2**32 - 1),
        mark=st.binary(max_size=32),
        count=st.integers(0, 2**32 - 1),
        kind=st.integers(0, 2),
    ),
    st.integers(0, 2**32 - 1),
)
def test_a_record_survives_the_round_trip(record: Record, seed: int) -> None:
    assert scan(encode(record, seed), seed) == [record]


def test_records_are_the_same_fed_whole_and_byte_by_byte() -> None:
    assert scan(WHOLE) == scan(WHOLE, step=1) == scan(WHOLE, step=17) == RECORDS


def test_every_prefix_yields_the_whole_records_and_one_damage() -> None:
    ends = [sum(map(len, DATA[: n + 1])) for n in range(len(DATA))]
    for cut in range(len(WHOLE)):
        whole = sum(end <= cut for end in ends)
        end = ends[whole - 1] if whole else 0
        rest: list[Record | Damage] = [Damage(end, cut - end)] if cut > end else []
        assert scan(WHOLE[:cut]) == [*RECORDS[:whole], *rest], cut


def test_a_flipped_bit_costs_one_record_and_is_reported_before_the_next() -> None:
    for at in range(len(DATA[0]), len(DATA[0]) + len(DATA[1])):
        damaged = bytearray(WHOLE)
        damaged[at] ^= 0x10
        assert scan(bytes(damaged)) == [RECORDS[0], Damage(len(DATA[0]), len(DATA[1])), *RECORDS[2:]], at
        assert scan(bytes(damaged), step=5) == scan(bytes(damaged)), at


def test_noise_between_records_is_skipped() -> None:
    noise = b"\xa5MW1" * 9 + b"\0" * 50 + b"\xa5MW"
    assert scan(noise + DATA[0] + noise + DATA[1]) == [
        Damage(0, len(noise)),
        RECORDS[0],
        Damage(len(noise) + len(DATA[0]), len(noise)),
        RECORDS[1],
    ]


def test_a_payload_that_imitates_a_record_is_not_taken_for_one() -> None:
    forged = encode(Record(8, "smartMeterMessage/other/readings", b"forged", 0), seed=0)
    carrier = encode(Record(7, "t", forged, 0), SEED)
    damaged = b"\0" + carrier[1:]
    assert scan(damaged) == [Damage(0, len(carrier))]


@given(st.binary(max_size=2000), st.integers(1, 200))
def test_arbitrary_bytes_never_raise_and_hide_nothing_behind_them(noise: bytes, step: int) -> None:
    assert scan(noise + DATA[2], step=step)[-1:] == [RECORDS[2]]


def test_an_incomplete_record_is_not_held_beyond_the_longest_record() -> None:
    scanner = Scanner(SEED)
    head = bytearray(encode(Record(1, "t", b"", 0), SEED))
    head[24:28] = (LIMIT_PAYLOAD_BYTES + 1).to_bytes(4, "little")
    for _ in range(50):
        scanner.feed(bytes(head) + bytes(100_000))
        assert len(scanner._rest) <= LIMIT_PAYLOAD_BYTES + 10_000
