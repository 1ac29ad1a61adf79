"""What every family of meters says for people: a title, a guide, how to get its secrets; and what is too much."""

import re

import pytest

from meterway.core.reading import PhysicalMeterClass
from meterway.meter.family import Family, family_names, load_family

FAMILIES = [load_family(name) for name in family_names()]
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)

ANY_SIZE = {"iec-emh-lzqj", "iec-landisgyr-e650", "iec-push-generic", "iec-generic", "json-meterway"}
"""Meters behind transformers, and of nobody in particular: no power is too much."""

MAKERS_TO_SHIP = {
    "sml": "DZG Holley EMH Iskraemeco Itron eBZ EasyMeter Logarex",
    "iec62056_21": "EasyMeter Hager eBZ Iskraemeco ZMD ZMF E350 E650 AS1440 Itron UH50 T550",
    "p1": "Netherlands Belgium Luxembourg Sweden Hungary T210-D Slovenia Switzerland",
    "p1-encrypted": "Lithuania Luxembourg T210-D",
    "dlms": "Aidon Kaifa Kamstrup Denmark E360 E450 E570 AM550 Niederösterreich Vorarlberg Tirol Salzburg Steiermark "
    "Burgenland Slovenia Croatia Czechia",
    "mbus": "Kamstrup Sensus Engelmann Itron Elster",
    "modbus": "SDM630 SDM72 SDM120 EM24 EM340 EM540 SunSpec",
    "json": "Tasmota gPlug whatwatt ESPHome Shelly HomeWizard SHRDZM wmbusmeters RL-DSP",
}
"""Words by which people look for the families that the design promises."""


@pytest.mark.parametrize(("protocol", "words"), MAKERS_TO_SHIP.items())
def test_families_that_the_design_promises_are_found_by_their_titles(protocol: str, words: str) -> None:
    titles = " ".join(family.title for family in FAMILIES if family.protocol == protocol)
    assert [word for word in words.split() if word not in titles] == []


@EVERY_FAMILY
def test_guide_says_what_to_order_and_how_to_connect_it(family: Family) -> None:
    guide = family.guide
    assert guide is not None
    for text in (guide.order, guide.connect, guide.unlock, guide.notes):
        assert text == "" or re.fullmatch(r"(?s)\s*[A-Z0-9`].*[.)]", text), text
        assert not re.search(r"(?i)amazon|ebay|aliexpress|http(s)?://www", text)
    assert guide.order
    assert guide.connect


@EVERY_FAMILY
def test_guide_says_how_to_get_the_secrets_that_the_family_needs(family: Family) -> None:
    assert family.guide is not None
    assert family.guide.unlock or not family.secrets


@EVERY_FAMILY
def test_household_meters_of_electricity_have_a_power_that_is_too_much(family: Family) -> None:
    sends = family.meter_class is PhysicalMeterClass.ELECTRICITY and family.protocol not in (
        "dlms-pull",
        "pulse",
        "json",
    )
    assert family.maximum_power_w is not None or not sends or family.name in ANY_SIZE


@EVERY_FAMILY
def test_title_is_one_line_that_fits_a_table(family: Family) -> None:
    assert len(family.title) < 120
    assert "|" not in family.title
