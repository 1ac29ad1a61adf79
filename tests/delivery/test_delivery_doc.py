"""docs/delivery.md names every setting and every metric."""

from dataclasses import fields
from pathlib import Path

import msgspec
import pytest

from meterway.delivery.config import RelayConfig, SpoolConfig
from meterway.delivery.stats import RelayStats, SpoolStats

PAGE = (Path(__file__).parents[2] / "docs" / "delivery.md").read_text()


@pytest.mark.parametrize("config", [SpoolConfig, RelayConfig])
def test_every_setting_is_on_the_page(config: type[msgspec.Struct]) -> None:
    assert [name for name in config.__struct_fields__ if f"`{name}`" not in PAGE and f"`{name} = " not in PAGE] == []


@pytest.mark.parametrize("stats", [SpoolStats, RelayStats])
def test_every_metric_is_on_the_page(stats: type[SpoolStats | RelayStats]) -> None:
    assert [field.name for field in fields(stats) if f"`{field.name}`" not in PAGE] == []
