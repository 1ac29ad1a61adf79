import asyncio
import logging
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from meterway.adapter import memory_file
from meterway.adapter.memory import Level, Memories, RegisterMemory
from meterway.adapter.memory_file import MemoryFile, load

BEGIN = datetime(2026, 11, 23, 9, 15, tzinfo=UTC)


def learn(memories: Memories, meter_id: str, value: str) -> None:
    register = memories.of(meter_id).register("OBIS_1.8.0", "kWh")
    assert register is not None
    register.level = Level(Decimal(value), BEGIN)
    memories.of(meter_id).decided("id", "register-fell")
    memories.is_changed = True


async def test_memory_survives_a_restart_exactly(tmp_path: Path) -> None:
    path = tmp_path / "state" / "memory.json"
    async with MemoryFile(path, ["m"]) as memories:
        learn(memories, "m", "12345.6780")
    async with MemoryFile(path, ["m"]) as again:
        assert again.meters == memories.meters
        assert again.of("m").registers["OBIS_1.8.0"] == RegisterMemory(Level(Decimal("12345.6780"), BEGIN), None, "kWh")
        assert str(again.of("m").registers["OBIS_1.8.0"].level.value) == "12345.6780"  # type: ignore[union-attr]


async def test_a_meter_that_is_no_longer_configured_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    async with MemoryFile(path, ["m", "gone"]) as memories:
        learn(memories, "m", "1")
        learn(memories, "gone", "2")
    async with MemoryFile(path, ["m"]) as again:
        assert set(again.meters) == {"m"}


async def test_what_matters_is_saved_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_file, "URGENT_S", 0.01)
    path = tmp_path / "memory.json"
    async with MemoryFile(path, ["m"]) as memories:
        learn(memories, "m", "7")
        await asyncio.sleep(0.1)
        assert not path.exists(), "nothing urgent"
        memories.is_urgent = True
        async with asyncio.timeout(30):
            while not path.exists():
                await asyncio.sleep(0.01)
        assert set(load(path, ["m"])) == {"m"}


@pytest.mark.parametrize("content", [b"", b"{", b'{"version":2,"meters":{}}', b"\x00" * 100, b"[" * 100_000, b"null"])
def test_a_damaged_file_is_a_fresh_start_and_said(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "memory.json"
    path.write_bytes(content)
    assert load(path, ["m"]) == {}
    assert "cannot be used" in caplog.text


def test_a_missing_file_is_a_fresh_start_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert load(tmp_path / "memory.json", ["m"]) == {}
    assert "not there yet" in caplog.text


async def test_a_folder_that_cannot_be_written_is_said_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    async with MemoryFile(tmp_path / "file" / "memory.json", ["m"]) as memories:
        learn(memories, "m", "1")
    assert "cannot be saved" in caplog.text
