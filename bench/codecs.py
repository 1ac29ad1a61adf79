"""Codecs beside named peers: telegrams a second on one core, the same bytes in the same run.

P1 beside dsmr-parser, SML beside pysml, DLMS pushes beside amshan, IEC 62056-21 readouts beside iec62056-21, M-Bus
beside pyMeterBus. Bytes come in pieces of 64, as from a serial line. P1 telegrams are those of our families, each with
fresh digits, so that nobody gains by remembering; the others are captures (and the families' own), as they have no
digits that could be changed in place. Time is this thread's, the best of some rounds.

dsmr-parser is told the dialect of each telegram, which it needs; ours is not.
"""

import logging
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from meterway.meter import hdlc
from meterway.meter.codec import Decoder
from meterway.meter.crc import crc16_arc
from meterway.meter.dlms import DlmsDecoder
from meterway.meter.dlms_layout import PushList
from meterway.meter.family import family_names, load_family, push_lists
from meterway.meter.iec62056_21 import ReadoutDecoder
from meterway.meter.mbus import MbusDecoder
from meterway.meter.p1 import P1Decoder
from meterway.meter.sml import SmlDecoder
from meterway.meter.telegram import Telegram
from meterway.meter.virtual.encode_dlms import encode_hdlc

CHUNK_BYTES = 64
TELEGRAMS = 400
ROUNDS = 5
DIALECTS = {
    "p1-generic": "V5",
    "p1-belgium": "BELGIUM_FLUVIUS",
    "p1-sweden": "SWEDEN",
    "p1-hungary": "EON_HUNGARY",
    "p1-luxembourg": "V5",  # its own dialect there is the encrypted one
    "p1-v2": "V2_2",
}

Counts = tuple[int, int]
"""Telegrams and values."""


class Input(NamedTuple):
    name: str
    telegrams: list[bytes]

    @property
    def chunks(self) -> list[bytes]:
        stream = b"".join(self.telegrams)
        return [stream[start : start + CHUNK_BYTES] for start in range(0, len(stream), CHUNK_BYTES)]


def main(arguments: Sequence[str] = ()) -> None:
    """Measure; names of `PARTS` as arguments leave out the others."""
    print(f"{'input':32}{'decoder':14}{'telegrams/s':>12}{'values/s':>12}{'MB/s':>8}{'telegrams':>14}{'ratio':>8}")
    for name in arguments or PARTS:
        PARTS[name]()


def p1_families() -> None:
    """Compare on each dialect of P1."""
    for family in (name for name in family_names() if name in DIALECTS):
        p1(family)


def p1(family_name: str) -> None:
    """Compare on one family's telegram."""
    source = Input(family_name, fresh(family_name, TELEGRAMS))
    zone = ZoneInfo(load_family(family_name).timezone)
    compare(
        source,
        {
            "meterway": lambda chunks: ours(P1Decoder(zone), chunks),
            "dsmr-parser": lambda chunks: dsmr_parser(DIALECTS[family_name], chunks),
        },
    )


def sml() -> None:
    """Compare on each captured SML telegram and on those of our families."""
    source = Input("sml captures and families", captured("sml", SmlDecoder))
    compare(source, {"meterway": lambda chunks: ours(SmlDecoder(), chunks), "pysml": pysml})


def dlms() -> None:
    """Compare on each captured push in HDLC that needs no key, and on those of our families."""
    source = Input("dlms captures and families", dlms_telegrams())
    compare(source, {"meterway": lambda chunks: ours(plain_dlms(), chunks), "amshan": amshan})


def readouts() -> None:
    """Compare on each captured IEC 62056-21 readout with a checksum, and on those of our families."""
    source = Input("readouts, captures and families", readout_telegrams())
    compare(
        source,
        {
            "meterway": lambda chunks: ours(ReadoutDecoder(ZoneInfo("Europe/Berlin")), chunks),
            "iec62056-21": lambda _: iec62056_21(source.telegrams),
        },
    )


def mbus() -> None:
    """Compare on each captured answer of an M-Bus meter and on those of our families."""
    source = Input("mbus captures and families", captured("mbus", lambda: MbusDecoder(UTC)))
    compare(source, {"meterway": lambda chunks: ours(MbusDecoder(UTC), chunks), "pyMeterBus": pymeterbus})


def compare(source: Input, decoders: dict[str, Callable[[list[bytes]], Counts]]) -> None:
    """Print a line for each decoder; the ratio is ours to theirs."""
    if not source.telegrams:
        print(f"{source.name:32}not present")
        return
    chunks = source.chunks
    size_bytes = sum(map(len, chunks))
    best = dict.fromkeys(decoders, float("inf"))
    counts: dict[str, Counts] = {}
    for _ in range(ROUNDS):
        for name, decode in decoders.items():
            begin = time.thread_time()
            counts[name] = decode(chunks)
            best[name] = min(best[name], time.thread_time() - begin)
    speeds = {name: len(source.telegrams) / seconds for name, seconds in best.items()}
    ours_first = next(iter(speeds.values()))
    for name, speed in speeds.items():
        telegrams, values = counts[name]
        print(
            f"{source.name:32}{name:14}{speed:12,.0f}{values / best[name]:12,.0f}{size_bytes / best[name] / 1e6:8.1f}"
            f"{telegrams:7} of{len(source.telegrams):4}{ours_first / speed:8.1f}"
        )


def ours(decoder: Decoder, chunks: Iterable[bytes]) -> Counts:
    telegrams = values = 0
    for chunk in chunks:
        for item in decoder.feed(chunk, 0.0):
            if isinstance(item, Telegram):
                telegrams += 1
                values += len(item.registers)
    return telegrams, values


def dsmr_parser(dialect: str, chunks: Iterable[bytes]) -> Counts:
    from dsmr_parser import telegram_specifications
    from dsmr_parser.clients.telegram_buffer import TelegramBuffer
    from dsmr_parser.parsers import TelegramParser

    logging.getLogger("dsmr_parser").setLevel(logging.CRITICAL)
    parser = TelegramParser(getattr(telegram_specifications, dialect))
    buffer = TelegramBuffer()
    telegrams = values = 0
    for chunk in chunks:
        buffer.append(chunk.decode("ascii"))
        for text in buffer.get_all():
            telegram = parser.parse(text)
            telegrams += 1
            values += sum(1 for _ in telegram)
    return telegrams, values


def pysml(chunks: Iterable[bytes]) -> Counts:
    from sml import SmlBase, SmlGetListResponse

    logging.getLogger("sml").setLevel(logging.CRITICAL)
    base: Any = SmlBase()
    buffered = b""
    telegrams = values = 0
    for chunk in chunks:
        buffered += chunk
        while True:
            try:
                end, frame = base.find_frame(buffered)
            except Exception:  # noqa: BLE001 - it raises on some real telegrams; they count as not decoded
                end, frame = len(buffered), None
            buffered = buffered[end:]
            if not frame:
                break
            lists = [body for message in frame if isinstance(body := message.get("messageBody"), SmlGetListResponse)]
            telegrams += bool(lists)
            values += sum(len(body.get("valList", ())) for body in lists)
    return telegrams, values


def fresh(family_name: str, count: int) -> list[bytes]:
    """Return the family's telegram ``count`` times, with other digits in every measured value and a right checksum."""
    sample = load_family(family_name).sample
    if sample is None:
        return []
    random = Random(family_name)
    telegrams = []
    for _ in range(count):
        varied = re.sub(
            rb"(?<=\()(\d+)\.(\d+)(?=\*)",
            lambda found: b"%0*d.%0*d" % numbers(random, len(found[1]), len(found[2])),
            sample.telegram,
        )
        mark = varied.rindex(b"!") + 1
        checksum = b"%04X" % crc16_arc(varied[:mark]) if sample.telegram[mark : mark + 1].isalnum() else b""
        telegrams.append(varied[:mark] + checksum + b"\r\n")
    return telegrams


def numbers(random: Random, whole: int, decimals: int) -> tuple[int, int, int, int]:
    return whole, random.randrange(10**whole), decimals, random.randrange(10**decimals)


def readout_telegrams() -> list[bytes]:
    """Return each readout from STX to its checksum, several times over."""
    found = [data[data.find(b"\x02") :] for data in raw_telegrams("iec62056_21", ("iec-", "heat-")) if b"\x02" in data]
    zone = ZoneInfo("Europe/Berlin")
    whole = [data for data in found if ours(ReadoutDecoder(zone), [data + b"\n/"])[0] == 1]
    return repeated([data[: data.rindex(b"\x03") + 2] for data in whole if b"\x03" in data])


def iec62056_21(telegrams: Iterable[bytes]) -> Counts:
    """It has no framer and asks through a transport of its own: it is given whole messages, from STX to checksum."""
    from iec62056_21.messages import ReadoutDataMessage

    whole = values = 0
    for telegram in telegrams:
        try:
            message = ReadoutDataMessage.from_representation(telegram.decode("latin-1"))
        except Exception:  # noqa: BLE001, S112 - it raises on some real telegrams; they count as not decoded
            continue
        whole += 1
        values += sum(len(line.data_sets) for line in message.data_block.data_lines)
    return whole, values


def plain_dlms() -> DlmsDecoder:
    return DlmsDecoder(ZoneInfo("Europe/Oslo"), lists=known_lists())


@cache
def known_lists() -> tuple[PushList, ...]:
    """Those of all families; reading 100 files is no part of what is measured."""
    return push_lists()


def dlms_telegrams() -> list[bytes]:
    """Return each push as HDLC frames, several times over; captures without a frame get one."""
    found = [
        encode_hdlc(data[3:]) if data.startswith(b"\xe6\xe7\x00") else data
        for data in raw_telegrams("dlms_push", ("dlms-",))
    ]
    return repeated([data for data in found if data[0] == hdlc.FLAG and ours(plain_dlms(), [data])[0] == 1])


def amshan(chunks: Iterable[bytes]) -> Counts:
    from han.autodecoder import AutoDecoder
    from han.hdlc import HdlcFrameReader

    reader, decoder = HdlcFrameReader(), AutoDecoder()
    telegrams = values = 0
    for chunk in chunks:
        for frame in reader.read(chunk):
            try:
                found = decoder.decode_message(frame)
            except Exception:  # noqa: BLE001, S112 - it raises on some real telegrams; they count as not decoded
                continue
            telegrams += bool(found)
            values += len(found or ())
    return telegrams, values


def pymeterbus(chunks: Iterable[bytes]) -> Counts:
    """It has no framer: the long frames are cut out for it by their length, which costs next to nothing."""
    import meterbus

    buffered = b""
    telegrams = values = 0
    for chunk in chunks:
        buffered += chunk
        while len(buffered) > 1 and len(buffered) >= (size := buffered[1] + 6):
            frame, buffered = buffered[:size], buffered[size:]
            try:
                records = [(record.value, record.unit) for record in meterbus.load(frame).records]
            except Exception:  # noqa: BLE001, S112 - it raises on some real telegrams; they count as not decoded
                continue
            telegrams += 1
            values += len(records)
    return telegrams, values


def captured(protocol: str, make_decoder: Callable[[], Decoder]) -> list[bytes]:
    """Return each telegram of a protocol that there is, several times over."""
    found = raw_telegrams(protocol, (f"{protocol}-",))
    return repeated([data for data in found if ours(make_decoder(), [data])[0] == 1])


def raw_telegrams(folder: str, families: tuple[str, ...]) -> list[bytes]:
    """Return the captures in a folder of the corpus, and the samples of the families whose names begin so."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    from support.corpus import captures

    samples = [load_family(name).sample for name in family_names() if name.startswith(families)]
    return [capture.data for capture in captures(folder)] + [sample.telegram for sample in samples if sample]


def repeated(telegrams: list[bytes]) -> list[bytes]:
    return telegrams * max(1, TELEGRAMS // len(telegrams)) if telegrams else []


PARTS = {"p1": p1_families, "sml": sml, "dlms": dlms, "readouts": readouts, "mbus": mbus}
