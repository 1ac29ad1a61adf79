"""docs/delivery.md names every setting and every metric; docs/bounds.md names none that does not exist."""

import re
from dataclasses import fields
from pathlib import Path

import msgspec
import pytest

from meterway.delivery.config import RelayConfig, SpoolConfig
from meterway.delivery.stats import RelayStats, SpoolStats

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "delivery.md").read_text()
BOUNDS = (DOCS / "bounds.md").read_text()


@pytest.mark.parametrize("config", [SpoolConfig, RelayConfig])
def test_every_setting_is_on_the_page(config: type[msgspec.Struct]) -> None:
    assert [name for name in config.__struct_fields__ if f"`{name}`" not in PAGE and f"`{name} = " not in PAGE] == []


@pytest.mark.parametrize("stats", [SpoolStats, RelayStats])
def test_every_metric_is_on_the_page(stats: type[SpoolStats | RelayStats]) -> None:
    assert [field.name for field in fields(stats) if f"`{field.name}`" not in PAGE] == []


def test_the_bounds_of_a_hop_name_metrics_and_settings_that_exist() -> None:
    metrics = {f"spool_{field.name}" for field in fields(SpoolStats)} | {"spool_limit_bytes"}
    metrics |= {f"relay_{field.name}" for field in fields(RelayStats)}
    named = {name.removesuffix("_total") for name in re.findall(r"\b(?:spool|relay)_[a-z_]+", BOUNDS)}
    assert named
    assert named - metrics == set()
    for table, config in (("spool", SpoolConfig), ("relay", RelayConfig)):
        keys = re.findall(rf"`\[{table}\] (\w+)`", BOUNDS)
        assert keys
        assert set(keys) - set(config.__struct_fields__) == set()
