"""The check of the fault tests finds what is wrong: with components that are broken on purpose it fails."""

import signal
from pathlib import Path

import pytest

from faults.load import Load, Setup

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("component", "variant"),
    [
        ("cloud", "ingest_acknowledges_before_commit"),
        ("concentrator", "concentrator_acknowledges_before_the_disk"),
    ],
)
async def test_what_is_confirmed_too_early_is_found_missing(component: str, variant: str, tmp_path: Path) -> None:
    async with Load(tmp_path, Setup(broken={component: variant})) as load:
        await load.flows()
        await load.send(component, signal.SIGKILL)
        await load.flows()
        truth, verdict = await load.settle(within_s=8)
    assert verdict.missing > 0
    assert verdict.missing < truth.total
    assert (verdict.duplicated, verdict.invented, verdict.altered) == (0, 0, 0)


async def test_what_has_no_stable_identifier_is_found_twice(tmp_path: Path) -> None:
    async with Load(tmp_path, Setup(broken={"cloud": "ingest_gives_identifiers_of_its_own"})) as load:
        await load.flows()
        await load.send("concentrator", signal.SIGKILL)
        await load.flows()
        _, verdict = await load.settle()
    assert verdict.missing == 0
    assert verdict.duplicated > 0
    assert verdict.altered > 0
