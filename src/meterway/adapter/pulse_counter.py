"""A counter of pulses that survives restarts and power cuts.

The count is on the disk (file replaced, fsync) before a reading that contains it is handed on, so no reading is ever
above what the counter goes on from, and the register never falls. It is written once for each reading, every
``interval_s`` (30 s), and only if a pulse came: a small write that often or less, which an SD card bears.

What is lost: at a power cut or kill, the pulses since the last reading (usually the meter is without power
then, too). When the adapter is stopped and ``close`` is called: none. While the adapter does not run: all pulses
of a bare contact, none of a microcontroller that counts on. To make good for it, set ``start`` to what the dial shows:
a new ``start`` begins the count anew.

While the file cannot be written, readings are held back, and a fault says why; counting goes on.
"""

import logging
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from meterway.core.config import Table
from meterway.core.errors import SetupError
from meterway.durable_file import replace_file
from meterway.meter.codec import CodecError
from meterway.meter.pulse import Items, PulseDecoder, PulseState
from meterway.meter.pulse_input import PulseInput, check_pulses_per_unit
from meterway.meter.telegram import Telegram

_log = logging.getLogger(__name__)

_LIMIT_BYTES: Final = 4096


class PulseConfig(Table, frozen=True):
    """What the adapter is told of a meter that gives pulses."""

    file: Path
    """Where the count is kept: a file of this meter's own, on a disk that survives a restart."""
    start: str = "0"
    """What the meter's dial shows now, as a text: "12345.678". Changing it begins the count anew from there."""
    pulses_per_unit: str | None = None
    """As printed on the meter, where it is not as its family says: "800"."""

    def __post_init__(self) -> None:
        try:
            usable = Decimal(self.start).is_finite() and 0 <= Decimal(self.start) < 10**12
        except InvalidOperation:
            usable = False
        if not usable:
            raise ValueError(f'start {self.start!r} is not a number as a dial shows it, such as "12345.678"')
        if self.pulses_per_unit is not None:
            check_pulses_per_unit(self.pulses_per_unit)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    start: str
    pulses_per_unit: str
    count: Annotated[int, msgspec.Meta(ge=0)]
    line_count: int | None = None


class PulseCounter:
    """A decoder of pulses (see ``Decoder``) whose count is durable."""

    def __init__(self, config: PulseConfig, pulse: PulseInput, *, interval_s: float) -> None:
        """Go on from the file, or from ``start`` if there is none.

        Raises:
            SetupError: the file cannot be read, or its count is of another ``pulses_per_unit``.
        """
        if config.pulses_per_unit is not None:
            pulse = msgspec.structs.replace(pulse, pulses_per_unit=config.pulses_per_unit)
        self.skipped_bytes = 0
        self._config = config
        self._per_unit = pulse.pulses_per_unit
        self._decoder = PulseDecoder(pulse, interval_s=interval_s, start=Decimal(config.start))
        self._saved: PulseState | None = self._load()
        if self._saved is not None:
            self._decoder.state = self._saved

    @property
    def buffered_bytes(self) -> int:
        """See ``Decoder``."""
        return self._decoder.buffered_bytes

    def feed(self, data: bytes, now: float) -> Items:
        """Take the next bytes; return what they completed, its count on the disk (see ``Decoder``)."""
        return self._kept(self._decoder.feed(data, now))

    def idle(self, now: float) -> Items:
        """Tell the time; return a telegram if one is due, its count on the disk."""
        return self._kept(self._decoder.idle(now))

    def close(self) -> None:
        """Save what was counted since the last telegram; a disk that cannot be written is said in the log."""
        if self._decoder.state == self._saved:
            return
        try:
            self._save()
        except OSError as error:
            _log.warning("! %s: the last pulses cannot be saved: %s", self._config.file, error.strerror)

    def _kept(self, items: Items) -> Items:
        self.skipped_bytes = self._decoder.skipped_bytes
        if self._decoder.state == self._saved or not any(isinstance(item, Telegram) for item in items):
            return items
        try:
            self._save()
        except OSError as error:
            text = f"{self._config.file}: the count of pulses cannot be saved ({error.strerror}); readings wait for it"
            items = [item for item in items if isinstance(item, CodecError)]
            items.append(CodecError(text, reason="not-saved", data=b""))
        return items

    def _save(self) -> None:
        state = self._decoder.state
        content = _File(1, self._config.start, self._per_unit, state.count, state.line_count)
        replace_file(self._config.file, msgspec.json.encode(content))
        self._saved = state

    def _load(self) -> PulseState | None:
        path = self._config.file
        try:
            with path.open("rb") as file:
                found = msgspec.json.decode(file.read(_LIMIT_BYTES), type=_File)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise SetupError(
                f"{path}: the count of pulses cannot be read: {error}; set `start` to what the meter's dial shows, and "
                "remove the file"
            ) from error
        if found.start != self._config.start:
            return PulseState()
        if found.pulses_per_unit != self._per_unit:
            raise SetupError(
                f"{path}: these pulses were counted at {found.pulses_per_unit} a unit, and now there are "
                f"{self._per_unit}; set `start` to what the meter's dial shows, and the count begins anew"
            )
        return PulseState(found.count, found.line_count)
