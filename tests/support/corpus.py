"""Captured telegrams that lie outside the project; they are read where they are, never copied."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Capture:
    """One captured file."""

    name: str
    """The file's name without ending."""
    data: bytes
    """Exactly what was on the line."""
    about: dict[str, Any]
    """The JSON beside it: origin, checksum state, expected values where the source states them."""


def corpus_folder() -> Path:
    """Return where captures are: ``METERWAY_CORPUS``, else ``../shared/corpus`` beside the project."""
    return Path(os.environ.get("METERWAY_CORPUS") or _PROJECT.parent / "shared" / "corpus")


def captures(protocol: str) -> Iterator[Capture]:
    """Yield the captures of one protocol (a folder of the corpus) by name; none where there is no corpus."""
    for file in sorted((corpus_folder() / protocol).glob("*.bin")):
        beside = file.with_suffix(".json")
        about = json.loads(beside.read_text()) if beside.is_file() else {}
        yield Capture(file.stem, file.read_bytes(), about)


def capture_parameters(protocol: str) -> list[Any]:
    """Return one pytest parameter for each capture; a single skipped one where there is no corpus."""
    found = [pytest.param(capture, id=capture.name) for capture in captures(protocol)]
    return found or [pytest.param(None, id="none", marks=pytest.mark.skip(reason="corpus not present"))]
