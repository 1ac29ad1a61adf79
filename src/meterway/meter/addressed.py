"""One meter of several on a link: what the others say is not its own."""

from collections.abc import Callable

from meterway.meter.codec import CodecError, Decoder
from meterway.meter.driver import MeterSetup
from meterway.meter.telegram import Telegram


class AddressedDecoder:
    """A decoder that hands on only the telegrams of the meter that calls itself ``address``.

    ``address`` is ``Telegram.meter``; large and small letters are alike. Damaged frames are handed on: whose they were
    nobody knows.
    """

    def __init__(self, decoder: Decoder, address: str) -> None:
        self._decoder = decoder
        self._address = address.casefold()
        self.skipped_bytes = decoder.skipped_bytes

    @property
    def buffered_bytes(self) -> int:
        """See ``Decoder``."""
        return self._decoder.buffered_bytes

    def feed(self, data: bytes, now: float) -> list[Telegram | CodecError]:
        """See ``Decoder``."""
        return self._own(self._decoder.feed(data, now))

    def idle(self, now: float) -> list[Telegram | CodecError]:
        """See ``Decoder``."""
        return self._own(self._decoder.idle(now))

    def _own(self, items: list[Telegram | CodecError]) -> list[Telegram | CodecError]:
        self.skipped_bytes = self._decoder.skipped_bytes
        return [item for item in items if isinstance(item, CodecError) or item.meter.casefold() == self._address]


def addressed(make: Callable[[MeterSetup], Decoder]) -> Callable[[MeterSetup], Decoder]:
    """Return how to make the decoder of a protocol whose meters do not know who shares their link."""

    def decoder(setup: MeterSetup) -> Decoder:
        made = make(setup)
        return AddressedDecoder(made, setup.address) if setup.address else made

    return decoder
