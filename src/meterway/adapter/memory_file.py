"""The file in which plausibility's memory survives restarts and power cuts.

One JSON file for all meters of an adapter, replaced as a whole (``durable_file``). An SD card is spared: it is written
at most every ``SAVE_S``, or after ``URGENT_S`` when there was a doubt. A power cut therefore sets the memory back by so
much; that costs nothing but sharpness, for a register that fell below an older level fell below the newer one too. A
file that is missing, damaged or too large is a fresh start, which the log says; a disk that cannot be written is said
and tried again.
"""

import asyncio
import logging
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

import msgspec

from meterway.adapter.memory import Memories, MeterMemory
from meterway.durable_file import replace_file

_log = logging.getLogger(__name__)

SAVE_S: Final = 300.0
URGENT_S: Final = 10.0
LIMIT_BYTES: Final = 64 * 1024 * 1024
"""A longer file is not read; that of a meter with 128 registers has 32 KB."""


class _File(msgspec.Struct):
    version: Literal[1]
    meters: dict[str, MeterMemory]


_encoder = msgspec.json.Encoder()


class MemoryFile:
    """Reads the memory when entered, saves it in the background and when left.

        async with MemoryFile(path, meter_ids) as memories: ...

    What is remembered of meters that are not among ``meter_ids`` is forgotten.
    """

    def __init__(self, path: Path, meter_ids: Collection[str]) -> None:
        self._path = path
        self._meter_ids = meter_ids
        self._memories = Memories()
        self._failed = False
        self._saving: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Memories:
        self._memories = Memories(await asyncio.to_thread(load, self._path, self._meter_ids))
        self._task = asyncio.create_task(self._run(), name="meterway.adapter.memory")
        return self._memories

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        if self._saving is not None:
            await self._saving
        if self._memories.is_changed:
            self._save(_encode(self._memories))

    async def _run(self) -> None:
        waited_s = 0.0
        while True:
            await asyncio.sleep(URGENT_S)
            waited_s += URGENT_S
            if self._memories.is_urgent or (self._memories.is_changed and waited_s >= SAVE_S):
                self._memories.is_urgent = self._memories.is_changed = False
                waited_s = 0.0
                self._saving = asyncio.ensure_future(asyncio.to_thread(self._save, _encode(self._memories)))
                await asyncio.shield(self._saving)

    def _save(self, data: bytes) -> None:
        try:
            replace_file(self._path, data)
        except OSError as error:
            self._memories.is_changed = True
            if not self._failed:
                _log.warning(
                    "! %s cannot be saved (%s); what is remembered of the meters is lost if the adapter stops",
                    self._path,
                    error.strerror,
                )
            self._failed = True
        else:
            self._failed = False


def load(path: Path, meter_ids: Collection[str]) -> dict[str, MeterMemory]:
    """Return what the file remembers of these meters; nothing if it cannot be used, which the log says."""
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT_BYTES + 1)
        if len(data) > LIMIT_BYTES:
            raise ValueError(f"it has more than {LIMIT_BYTES} bytes")  # noqa: TRY301 - the same end as a damaged one
        found = msgspec.json.decode(data, type=_File).meters
    except FileNotFoundError:
        _log.info("%s is not there yet: the first values of the meters are held against nothing", path)
    except (OSError, ValueError, RecursionError) as error:
        _log.warning("! %s cannot be used (%s): the first values of the meters are held against nothing", path, error)
    else:
        return {meter_id: memory for meter_id, memory in found.items() if meter_id in meter_ids}
    return {}


def _encode(memories: Memories) -> bytes:
    return _encoder.encode(_File(1, memories.meters))
