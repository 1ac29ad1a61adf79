"""SML, the smart message language, as optical heads push it: bytes become telegrams.

One telegram for each SML_GetList.Res. The frames are in ``sml_transport``, the grammar is in ``sml_message``.
"""

from collections.abc import Collection, Iterable, Iterator

from meterway.core.errors import SetupError
from meterway.meter.codec import CodecError
from meterway.meter.sml_message import (
    QUIRKS,
    RESPONSE_HEAD,
    GetList,
    GrammarError,
    checksum_holds,
    read_message,
    read_messages,
    x25_holds,
)
from meterway.meter.sml_transport import LIMIT_BYTES, Frame, Framer
from meterway.meter.telegram import Telegram

__all__ = ["LIMIT_BYTES", "QUIRKS", "SmlDecoder"]


class SmlDecoder:
    """Turns bytes of an optical head into telegrams; a ``meter.codec.Decoder``.

    ``quirks`` are names of ``QUIRKS``. A frame needs only its own checksum, the messages' checksums are not looked
    at, for some meters send wrong ones. The other way round, an SML_GetList.Res whose own checksum holds counts
    wherever it is found: in a frame that lost its end, or without any frame, as some gateways hand it out. At most
    ``LIMIT_BYTES`` are buffered; a longer frame is an error (``too-long``), other bytes are dropped and counted.

    Manufacturer, number plate and firmware are text, all other octet strings upper-case hex. A boolean is 0 or 1. A
    unit that ``core.units`` does not have is ``dlms-`` and its number. A time that counts the seconds since the
    meter was switched on is no time.

    Raises:
        SetupError: a quirk that does not exist.
    """

    def __init__(self, *, quirks: Collection[str] = ()) -> None:
        for quirk in quirks:
            if quirk not in QUIRKS:
                raise SetupError(f"the SML codec knows no quirk `{quirk}`; known are {', '.join(sorted(QUIRKS))}")
        self.skipped_bytes = 0
        self._quirks = frozenset(quirks)
        self._framer = Framer()

    @property
    def buffered_bytes(self) -> int:
        """How many bytes wait for the rest of their frame."""
        return self._framer.buffered_bytes

    def feed(self, data: bytes, now: float) -> list[Telegram | CodecError]:  # noqa: ARG002 - nothing is timed here
        """Take the next bytes; return what they completed, in order."""
        return self._decode(self._framer.feed(data))

    def idle(self, now: float) -> list[Telegram | CodecError]:  # noqa: ARG002 - nothing is timed here
        """Give up the frame that was begun; return what is in it nevertheless."""
        return self._decode(self._framer.flush())

    def _decode(self, items: Iterable[Frame | bytes | CodecError]) -> list[Telegram | CodecError]:
        found: list[Telegram | CodecError] = []
        for item in items:
            if isinstance(item, Frame):
                found += self._from_frame(item)
            elif isinstance(item, bytes):
                found += self._from_noise(item)
            else:
                found.append(item)
        return found

    def _from_frame(self, frame: Frame) -> list[Telegram | CodecError]:
        found: list[Telegram | CodecError] = []
        problem = reason = ""
        try:
            found.extend(
                _telegram(message.response, frame.raw)
                for message in read_messages(frame.payload, self._quirks)
                if message.response and (not frame.kermit or checksum_holds(frame.payload, message))
            )
        except GrammarError as error:
            problem, reason = str(error), error.reason
        if not found and not problem:
            problem, reason = "there is no SML_GetList.Res in it", "bad-syntax"
            if frame.kermit:
                problem, reason = "it is of a rare kind, and no message has one that agrees", "bad-checksum"
        if problem:
            text = f"the SML frame of {len(frame.raw)} bytes has a good checksum, but {problem}"
            found.append(CodecError(text, reason=reason, data=frame.raw))
        return found

    def _from_noise(self, data: bytes) -> Iterator[Telegram]:
        self.skipped_bytes += len(data)
        start = 0
        while head := RESPONSE_HEAD.search(data, start):
            start = head.start() + 1
            try:
                message = read_message(data, head.start(), self._quirks)
            except GrammarError:
                continue
            if message.response and x25_holds(data, message):
                self.skipped_bytes -= message.end - message.start
                start = message.end
                yield _telegram(message.response, data[message.start : message.end])


def _telegram(response: GetList, raw: bytes) -> Telegram:
    return Telegram("sml", response.registers, raw, response.server_id, response.time)
